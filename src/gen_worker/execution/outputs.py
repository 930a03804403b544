"""Values that a function returns or yields: checked against its signature as strictly as inputs are, and encoded.

The encoded value is decoded again as the declared type, which costs about as much as encoding it. Only this notices an `int` in a field
declared `str`: msgspec checks what it decodes, not what an author's code constructs. What no JSON can carry (NaN, infinity) is refused
whatever the caller's encoding is, so that a function behaves alike in the dev runner and on the wire.
"""

import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Literal

import msgspec

from gen_worker.errors import OutputError
from gen_worker.execution.encoding import Encoding
from gen_worker.texts import class_name, text_of

# In msgpack a float is 0xcb and 8 bytes; all bits of its exponent are set in NaN and infinity. Other bytes may look like that, too.
_MAYBE_NONFINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
_encode_json = msgspec.json.Encoder().encode
_encode_sorted_json = msgspec.json.Encoder(order="sorted").encode
_encode_msgpack = msgspec.msgpack.Encoder().encode


class OutputLimits(msgspec.Struct, frozen=True):
    """0 means no limit. `message_bytes`: what the way to the caller can carry."""

    output_bytes: int = 0
    delta_bytes: int = 0
    delta_events: int = 0
    message_bytes: int = 0


class OutputWriter:
    """Checks and encodes what one call returns or yields. Safe from any thread."""

    def __init__(self, kind: type[msgspec.Struct], encoding: Encoding, limits: OutputLimits) -> None:
        self.kind = kind
        self.limits = limits
        self._encoding = encoding

    def result(self, value: Any) -> bytes:
        """A returned value; `OutputError` when it is not what the signature declares, `ValueError` when it is too large."""
        if self._encoding == "json":
            data = _checked(value, "returned", self.kind, _encode_json, "json")
        else:
            data = _checked(value, "returned", self.kind, _encode_msgpack, "msgpack")
        size_bytes, limits = len(data), self.limits
        if limits.output_bytes and size_bytes > limits.output_bytes:
            raise ValueError(f"output of {size_bytes} bytes; at most {limits.output_bytes} are allowed (WORKER_MAX_OUTPUT_BYTES)")
        if limits.message_bytes and size_bytes > limits.message_bytes:
            raise ValueError(
                f"output of {size_bytes} bytes; messages to the scheduler hold at most {limits.message_bytes} "
                "(WORKER_MAX_MESSAGE_BYTES). Save a file and return its ref"
            )
        return data

    def delta(self, value: Any) -> bytes:
        """A yielded value, as JSON in any case; `OutputError` when it is not what the signature declares, or too large."""
        encode = _encode_json if self._encoding == "json" else _encode_sorted_json
        data = _checked(value, "yielded", self.kind, encode, "json")
        limit = self.limits.delta_bytes
        if limit and len(data) > limit:
            raise OutputError(
                f"yielded an item of {len(data)} bytes; at most {limit} are allowed (WORKER_MAX_OUTPUT_DELTA_BYTES). "
                "Yield smaller pieces, or save a file and yield its ref"
            )
        return data


def _checked(
    value: Any, verb: str, kind: type[msgspec.Struct], encode: Callable[[Any], bytes], encoding: Literal["json", "msgpack"]
) -> bytes:
    if not isinstance(value, kind):
        raise OutputError(f"{verb} {class_name(value)}; declared is {kind.__name__}")
    try:
        data = encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise OutputError(f"{verb} a {class_name(value)} that cannot be encoded: {text_of(exc)}") from exc
    decode = _decoder(kind, encoding)
    if decode is not None:
        try:
            decode(data)
        except msgspec.DecodeError as exc:
            # A NaN that JSON shows as null is better called by its name.
            _refuse_nonfinite(value, verb, kind)
            raise OutputError(f"{verb} a {kind.__name__} that is not as declared: {text_of(exc)}") from None
    if (b"null" in data) if encoding == "json" else _MAYBE_NONFINITE.search(data) is not None:
        _refuse_nonfinite(value, verb, kind)
    return data


@lru_cache(1024)
def _decoder(kind: type[msgspec.Struct], encoding: Literal["json", "msgpack"]) -> Callable[[bytes], Any] | None:
    """What reads a value of this type back; None for types that msgspec writes but does not read."""
    try:
        return (msgspec.json.Decoder(kind) if encoding == "json" else msgspec.msgpack.Decoder(kind)).decode
    except TypeError:
        return None


def _refuse_nonfinite(value: Any, verb: str, kind: type[msgspec.Struct]) -> None:
    for path, number in _nonfinite(value, ""):
        raise OutputError(f"{verb} a {kind.__name__} with {number} in {path[1:]!r}, which JSON cannot carry; return None or a number")


def _nonfinite(value: Any, path: str) -> Iterable[tuple[str, float]]:
    """Every NaN and infinity in an encodable value, and where it is."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path or "/", value
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield from _nonfinite(item, f"{path}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _nonfinite(key, f"{path}/{text_of(key, 100)}")
            yield from _nonfinite(item, f"{path}/{text_of(key, 100)}")
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _nonfinite(getattr(value, name), f"{path}/{name}")
    elif hasattr(value, "__dataclass_fields__") or hasattr(value, "__attrs_attrs__"):
        for name, item in vars(value).items() if hasattr(value, "__dict__") else ():
            yield from _nonfinite(item, f"{path}/{name}")
