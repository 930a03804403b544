"""Checks and encodes the values that a function returns or yields, as strictly as inputs are checked.

msgspec checks what it decodes, not what an author's code constructs: `Out(text=5)` passes for an `Out` with a `str`. So
the value is written as msgpack and read back as the declared type, which takes a microsecond for a small one. What one
of the two encodings cannot represent is refused in both (NaN, infinity, integers beyond 64 bits, keys that are neither
text nor number), so that a function behaves the same in the dev runner and on the wire.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from gen_worker.authoring.patterns import pattern_of
from gen_worker.authoring.shapes import Leaf, shape_of
from gen_worker.errors import OutputError, ValidationError
from gen_worker.execution.encoding import Encoding
from gen_worker.texts import class_name, repr_of, text_of

CheckPatterns = Callable[[type[msgspec.Struct], bytes, Encoding], None]
# In msgpack a float is 0xcb and 8 bytes; NaN and infinity have all exponent bits set. Other bytes may look the same.
_MAYBE_NONFINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
_encode_json = msgspec.json.Encoder().encode
_encode_sorted_json = msgspec.json.Encoder(order="sorted").encode
_encode_msgpack = msgspec.msgpack.Encoder().encode


class OutputLimits(msgspec.Struct, frozen=True):
    """0 means no limit."""

    output_bytes: int = 0
    delta_bytes: int = 0
    delta_events: int = 0


class OutputWriter:
    """Checks and encodes what one call returns or yields. Safe from any thread. `message_bytes` is the most that the
    connection to the caller can carry; 0 means no limit.
    """

    def __init__(
        self, kind: type[msgspec.Struct], encoding: Encoding, limits: OutputLimits, check_patterns: CheckPatterns, message_bytes: int = 0
    ) -> None:
        self.limits = limits
        self._message_bytes = message_bytes
        self._check_patterns = check_patterns
        self._encoding = encoding
        self._check = _check_of(kind)

    def result(self, value: Any) -> bytes:
        """Encode a returned value. `OutputError` when it does not match the signature, `ValueError` when it is too large."""
        as_msgpack = self._check(value, "returned", self._check_patterns)
        data = _encode_json(value) if self._encoding == "json" else as_msgpack
        size_bytes, limit = len(data), self.limits.output_bytes
        if limit and size_bytes > limit:
            raise ValueError(f"output of {size_bytes} bytes; at most {limit} are allowed (WORKER_MAX_OUTPUT_BYTES)")
        if self._message_bytes and size_bytes > self._message_bytes:
            raise ValueError(
                f"output of {size_bytes} bytes; messages to the scheduler hold at most {self._message_bytes} "
                "(WORKER_MAX_MESSAGE_BYTES). Save a file and return its ref"
            )
        return data

    def delta(self, value: Any) -> bytes:
        """Encode a yielded value, always as JSON. `OutputError` when it does not match the signature or is too large."""
        self._check(value, "yielded", self._check_patterns)
        data = _encode_json(value) if self._encoding == "json" else _sorted_json(value)
        limit = self.limits.delta_bytes
        if limit and len(data) > limit:
            raise OutputError(
                f"yielded an item of {len(data)} bytes; at most {limit} are allowed (WORKER_MAX_OUTPUT_DELTA_BYTES). "
                "Yield smaller pieces, or save a file and yield its ref"
            )
        return data


def _sorted_json(value: Any) -> bytes:
    try:
        return _encode_sorted_json(value)
    except TypeError:  # msgspec sorts only text keys
        return _encode_json(value)


class _Check:
    """Checks values of one type and returns them as msgpack."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self._kind = kind
        shapes = list(shape_of(kind).everywhere())
        leaves = [shape.annotation for shape in shapes if isinstance(shape, Leaf)]
        self._has_patterns = any(pattern_of(shape) is not None for shape in shapes)
        # `Any` may hold what only msgpack can represent; every declared type fits JSON.
        self._is_open = any(leaf in (Any, object) for leaf in leaves)
        self._holds_floats = self._is_open or any(leaf is float for leaf in leaves) or msgspec.Raw in leaves
        self._decode: Callable[[bytes], Any] | None = None
        if msgspec.Raw not in leaves:  # raw JSON has no msgpack to read back
            with contextlib.suppress(TypeError):  # a type that msgspec writes but cannot read
                self._decode = msgspec.msgpack.Decoder(kind).decode

    def __call__(self, value: Any, verb: str, check_patterns: CheckPatterns) -> bytes:
        kind = self._kind
        if not isinstance(value, kind):
            raise OutputError(f"{verb} {class_name(value)}; declared is {kind.__name__}")
        try:
            data = _encode_msgpack(value)
            if self._is_open:
                _encode_json(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise OutputError(f"{verb} a {class_name(value)} that cannot be encoded: {text_of(exc)}") from exc
        if self._decode is not None:
            try:
                if self._has_patterns:
                    check_patterns(kind, data, "msgpack")  # it may contain texts of callers
                self._decode(data)
            except (msgspec.DecodeError, RecursionError, ValidationError) as exc:
                raise OutputError(f"{verb} a {kind.__name__} that is not as declared: {text_of(exc)}") from None
        if self._holds_floats and _MAYBE_NONFINITE.search(data) is not None:
            for path, number in _nonfinite(value, "$"):
                raise OutputError(f"{verb} a {kind.__name__} with {number} at `{path}`, which JSON cannot carry; give None or a number")
        return data


@lru_cache(1024)
def _check_of(kind: type[msgspec.Struct]) -> _Check:
    return _Check(kind)


def _nonfinite(value: Any, path: str) -> Iterable[tuple[str, float]]:
    """Every NaN and infinity in an encodable value, with its path."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path, value
    elif isinstance(value, (list, tuple, set, frozenset)):
        with contextlib.suppress(TypeError, OverflowError):  # some are not numbers, or their sum is too large
            if math.isfinite(sum(value)):  # checks a million of them in a few milliseconds
                return
        for index, item in enumerate(value):
            yield from _nonfinite(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _nonfinite(key, f"{path}[{repr_of(key, 100)}]")
            yield from _nonfinite(item, f"{path}[{repr_of(key, 100)}]")
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _nonfinite(getattr(value, name), f"{path}.{name}")
    elif hasattr(value, "__dataclass_fields__") or hasattr(value, "__attrs_attrs__"):
        for name, item in vars(value).items() if hasattr(value, "__dict__") else ():
            yield from _nonfinite(item, f"{path}.{name}")
