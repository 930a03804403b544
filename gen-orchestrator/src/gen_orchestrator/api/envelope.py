"""The body of an invocation: `{"payload": {...}, options}` or the bare payload, to msgpack and options."""

import hashlib
from typing import Any

import msgspec

from gen_orchestrator.api.payload_bytes import with_bytes
from gen_orchestrator.domain.runs import PRIORITIES
from gen_orchestrator.domain.webhooks import EVENTS
from gen_worker.contract.run import InvokeOptions
from gen_worker.errors import FieldError
from gen_worker.http.asgi import RequestError
from gen_worker.names import did_you_mean

MAX_TIMEOUT_S = 7 * 24 * 3600.0
MAX_DEPTH = 64
MAX_PAYLOAD_BYTES = 15 << 20  # below the 16 MiB of a message to a worker
_NUMBER = int | float


class Invocation(msgspec.Struct, frozen=True):
    """A checked body. `fingerprint` tells equal requests from others under one idempotency key."""

    payload: bytes
    options: InvokeOptions
    fingerprint: str


_OPTIONS = frozenset(InvokeOptions.__struct_fields__)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode


def read_invocation(body: bytes, path: str, bytes_schema: dict[str, Any] | None = None) -> Invocation:
    """Read a body; `RequestError` 400 says what is wrong with it. `bytes_schema`: of a payload that has fields for bytes."""
    try:
        _check_depth(body)
        value: Any = _decode(body) if body else {}
    except msgspec.DecodeError as exc:
        raise RequestError(400, "invalid_json", f"the body is not valid JSON: {exc}", error="invalid_json") from None
    except UnicodeDecodeError as exc:
        raise RequestError(400, "invalid_json", f"the body is not valid UTF-8 (byte {exc.start})", error="invalid_json") from None
    except RecursionError:
        raise RequestError(400, "invalid_json", f"the body is nested more than {MAX_DEPTH} levels deep", error="invalid_json") from None
    if not isinstance(value, dict):
        raise RequestError(400, "validation", f"the body is a {_kind(value)}; expected a JSON object", error="invalid_json")
    options = InvokeOptions()
    name = "payload" if "payload" in value else "input" if "input" in value and value.keys() - {"input"} <= _OPTIONS else ""
    if name and isinstance(value[name], dict):
        payload = value.pop(name)
        options = _options(value)
        value = payload
    elif name == "payload":
        raise RequestError(400, "validation", f"payload is a {_kind(value[name])}; expected a JSON object", error="invalid_payload")
    fingerprint = hashlib.blake2b(path.encode() + b"\0" + body, digest_size=16).hexdigest()
    try:
        payload = _encode(value if bytes_schema is None else with_bytes(value, bytes_schema))
    except OverflowError:
        error = FieldError(_too_large(value) or "", "a whole number that no worker can read", "a number from -2^63 to 2^64 - 1")
        detail = f"payload{error.pointer}: {error.message}; expected {error.expected}"
        raise RequestError(400, "validation", detail, error="invalid_payload") from None
    if len(payload) > MAX_PAYLOAD_BYTES:
        detail = (
            f"payload of {len(payload)} bytes; a worker takes at most {MAX_PAYLOAD_BYTES}: send large inputs as files, by form or by URL"
        )
        raise RequestError(413, "too_large", detail)
    return Invocation(payload, options, fingerprint)


def _too_large(value: Any, pointer: str = "") -> str | None:
    """Where a whole number stands that msgpack cannot carry."""
    if isinstance(value, int):
        return None if -(1 << 63) <= value < 1 << 64 else pointer
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        found = _too_large(each, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")
        if found is not None:
            return found
    return None


def _options(given: dict[str, Any]) -> InvokeOptions:
    for name in given:
        if name not in _OPTIONS:
            known = ", ".join(sorted(_OPTIONS))
            raise RequestError(400, "validation", f"unknown option {name[:60]!r}.{did_you_mean(name, _OPTIONS)} Options: {known}")
    try:
        options = msgspec.convert(given, InvokeOptions)
    except msgspec.ValidationError as exc:
        raise RequestError(400, "validation", f"option {exc}") from None
    for name in ("timeout_s", "start_timeout_s"):
        value = getattr(options, name)
        if not 0 <= value <= MAX_TIMEOUT_S:  # also refuses NaN
            raise RequestError(400, "validation", f"{name}={value}: expected seconds from 0 (none) to {MAX_TIMEOUT_S:.0f} (a week)")
    for event in options.webhook_events:
        if event not in EVENTS:
            near = did_you_mean(event, EVENTS)
            raise RequestError(400, "validation", f"webhook_events: {event[:40]!r}.{near} Expected some of: {', '.join(EVENTS)}")
    if options.webhook_events and not options.webhook:
        raise RequestError(400, "validation", "webhook_events without webhook: give the URL to tell, too")
    if options.priority not in PRIORITIES:
        near = did_you_mean(options.priority, PRIORITIES)
        raise RequestError(400, "validation", f"priority {options.priority[:40]!r}.{near} Expected: {', '.join(PRIORITIES)}")
    return options


def _check_depth(body: bytes) -> None:
    """Refuse deep nesting before anything recurses. Brackets in strings count as well: only a body with many of them pays for the scan."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    in_string = escaped = False
    for byte in body:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            if depth > MAX_DEPTH:
                raise RecursionError
        elif byte in (0x5D, 0x7D):
            depth -= 1


def _kind(value: Any) -> str:
    names = {list: "list", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}
    return names.get(type(value), type(value).__name__)
