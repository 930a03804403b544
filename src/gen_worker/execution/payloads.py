"""Payload bytes to the author's Struct: strict, bounded, with field paths in every error."""

import re
from functools import cache
from typing import Any, Literal

import msgspec

from gen_worker.authoring.constraints import clamper
from gen_worker.errors import FieldError, ValidationError
from gen_worker.names import nearest

Encoding = Literal["json", "msgpack"]
_EXPECTED = re.compile(r"Expected (?P<expected>.+?)(?:, got (?P<got>.+?))?(?: - at `(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.+?)`(?: - at `(?P<path>.*)`)?")
_AT = re.compile(r" - at `(?P<path>.*)`$")
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")


@cache
def _json_decoder(kind: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@cache
def _msgpack_decoder(kind: type[msgspec.Struct]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def decode_payload(kind: type[msgspec.Struct], data: bytes | msgspec.Raw, encoding: Encoding = "json", *, max_bytes: int = 0) -> Any:
    """The payload as `kind`, clamps applied; `ValidationError` points at what is wrong."""
    size_bytes = len(memoryview(data))
    if max_bytes and size_bytes > max_bytes:
        raise ValidationError(f"payload of {size_bytes} bytes; at most {max_bytes} are allowed (WORKER_MAX_INPUT_BYTES)")
    decoder = _json_decoder(kind) if encoding == "json" else _msgpack_decoder(kind)
    try:
        value = decoder.decode(data)
    except msgspec.ValidationError as exc:
        error = _field_error(str(exc), data, encoding)
        at = _AT.search(str(exc))
        where = "payload" + (at["path"][1:] if at else "")
        hint = f" Did you mean {error.suggestion}?" if error.suggestion else ""
        raise ValidationError(f"{where}: {error.message}.{hint}", errors=(error,)) from None
    except msgspec.DecodeError as exc:
        raise ValidationError(f"payload is not valid {encoding}: {exc}") from None
    except UnicodeDecodeError as exc:
        raise ValidationError(f"payload is not valid UTF-8 (byte {exc.start})") from None
    except RecursionError:
        raise ValidationError("payload is nested too deep") from None
    clamp = clamper(kind)
    return value if clamp is None else clamp(value)


def _field_error(text: str, data: bytes | msgspec.Raw, encoding: Encoding) -> FieldError:
    if missing := _MISSING.fullmatch(text):
        field = missing["field"]
        pointer = json_pointer(missing["path"] or "$")
        return FieldError(
            f"{pointer}/{_escaped(field)}",
            f"required field {field!r} is missing",
            suggestion=_similar_key(data, encoding, pointer, field),
        )
    if expected := _EXPECTED.fullmatch(text):
        pointer = json_pointer(expected["path"] or "$")
        wanted = expected["expected"].replace("`", "")
        got = expected["got"].replace("`", "") if expected["got"] else None
        return FieldError(pointer, f"expected {wanted}" + (f", got {got}" if got else ""), wanted, got)
    at = _AT.search(text)
    return FieldError(json_pointer(at["path"]) if at else "", _AT.sub("", text))


def json_pointer(path: str) -> str:
    """msgspec's `$.a.b[0]` as the JSON pointer `/a/b/0`."""
    return "".join(f"/{_escaped(step['name'] or step['index'])}" for step in _STEP.finditer(path))


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _similar_key(data: bytes | msgspec.Raw, encoding: Encoding, pointer: str, field: str) -> str | None:
    """A key that the caller did send and that looks like the missing one."""
    try:
        value = msgspec.json.decode(data) if encoding == "json" else msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    for part in pointer.split("/")[1:]:
        if isinstance(value, dict):
            value = value.get(part.replace("~1", "/").replace("~0", "~"))
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    if not isinstance(value, dict):
        return None
    found = nearest(field, (key for key in value if isinstance(key, str)))
    return f"{field!r}, where you wrote {found!r}" if found else None
