"""Decodes payload bytes into the author's Struct: strict, bounded, with field paths in every error."""

from functools import cache
from typing import Any

import msgspec

from gen_worker.authoring.constraints import clamper
from gen_worker.authoring.decoding_code import runs_authors_code
from gen_worker.authoring.pattern_process import PatternProcess
from gen_worker.authoring.shapes import Record, shape_of
from gen_worker.errors import FieldError, ValidationError
from gen_worker.execution.duplicate_keys import first_duplicate
from gen_worker.execution.encoding import Encoding
from gen_worker.execution.payload_errors import UNSEEN, payload_error
from gen_worker.execution.payload_patterns import PayloadPatterns
from gen_worker.execution.unknown_fields import look

_MAX_QUICK_BYTES = 256 << 10  # takes about a millisecond
_MAX_SHOWN_VALUES = 100_000
_NONE: tuple[FieldError, ...] = ()
_decode_any = {"json": msgspec.json.Decoder().decode, "msgpack": msgspec.msgpack.Decoder().decode}


class Payload(msgspec.Struct, frozen=True):
    """A payload as the function gets it. `warnings`: fields that were ignored because its type does not have them."""

    value: Any
    warnings: tuple[FieldError, ...] = ()


def reads_at_once(kind: type[msgspec.Struct], size_bytes: int) -> bool:
    """Whether reading a payload of this size and type is quick enough for the event loop."""
    return size_bytes <= _reader(kind).max_quick_bytes


def runs_code(kind: type[msgspec.Struct]) -> bool:
    """Whether reading a payload of this type runs its author's code."""
    return _reader(kind).runs_code


def check_output_patterns(kind: type[msgspec.Struct], data: bytes, encoding: Encoding, patterns: PatternProcess) -> None:
    """`ValidationError` when a text in an encoded output breaks its pattern, or checking it takes too long. Blocks."""
    _reader(kind).check_patterns(data, encoding, patterns, root="output")


def read_payload(
    kind: type[msgspec.Struct],
    data: bytes | msgspec.Raw,
    encoding: Encoding = "json",
    *,
    max_bytes: int = 0,
    patterns: PatternProcess | None = None,
) -> Payload:
    """The payload as `kind`, with clamps applied; `ValidationError` points at what is wrong.

    `patterns` tries the author's patterns on the caller's texts if they may take long; None when the texts are our own.
    Blocks unless `reads_at_once`.
    """
    size_bytes = len(data) if isinstance(data, bytes) else len(memoryview(data))
    if max_bytes and size_bytes > max_bytes:
        raise ValidationError(f"payload of {size_bytes} bytes; at most {max_bytes} are allowed (WORKER_MAX_INPUT_BYTES)")
    try:
        return _reader(kind).read(data, encoding, patterns)
    except msgspec.DecodeError as exc:
        raise ValidationError(f"payload is not valid {encoding}: {exc}") from None
    except UnicodeDecodeError as exc:
        raise ValidationError(f"payload is not valid UTF-8 (byte {exc.start})") from None
    except RecursionError:
        raise ValidationError("payload is nested too deep") from None


class _Reader:
    """Reads payloads of one type. What depends only on the type is computed once, because most payloads are small and there are many."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self._shape = shape_of(kind)
        self._decode = {"json": msgspec.json.Decoder(kind).decode, "msgpack": msgspec.msgpack.Decoder(kind).decode}
        self._clamp = clamper(kind)
        self._patterns = PayloadPatterns(self._shape)
        self._max_unchecked_bytes = self._patterns.max_quick_bytes
        self.runs_code = runs_authors_code(self._shape)
        self.max_quick_bytes = -1 if self.runs_code else min(_MAX_QUICK_BYTES, self._max_unchecked_bytes)
        assert isinstance(self._shape, Record)
        # All fields are scalars: a payload with these keys only contains no object besides itself.
        is_flat = not self._shape.is_array and all(field.shape.is_scalar for field in self._shape.fields)
        self._flat_keys = frozenset(self._shape.by_key) if is_flat else frozenset()

    def check_patterns(self, data: bytes | msgspec.Raw, encoding: Encoding, process: PatternProcess, *, root: str = "payload") -> None:
        if len(data) > self._max_unchecked_bytes:
            self._patterns.check(_decode_any[encoding](data), process, root=root)

    def read(self, data: bytes | msgspec.Raw, encoding: Encoding, process: PatternProcess | None) -> Payload:
        if process is not None and len(data) > self._max_unchecked_bytes:
            self.check_patterns(data, encoding, process)
        try:
            value = self._decode[encoding](data)
        except msgspec.ValidationError as exc:
            raise payload_error(str(exc), self._shape, _as_it_stands(data, encoding)) from None
        plain = _decode_any[encoding](data)
        if self._flat_keys and self._flat_keys >= plain.keys():
            key_count, unknown = len(plain), _NONE
        else:
            looked = look(self._shape, plain)
            key_count, unknown = looked.key_count, tuple(looked.unknown)
        twice = first_duplicate(data, plain, encoding, key_count)
        if twice is not None:
            raise ValidationError(f"payload: the key at {twice} is given twice", errors=(FieldError(twice, "this key is given twice"),))
        return Payload(value if self._clamp is None else self._clamp(value), unknown)


def _as_it_stands(data: bytes | msgspec.Raw, encoding: Encoding) -> Any:
    """The payload decoded without its type, for error messages. UNSEEN for one with very many values: creating their
    objects would block everything else (16 MB of `[],` took 1.7 s and 350 MB).
    """
    if len(data) > _MAX_QUICK_BYTES:
        found = bytes(data)
        if encoding == "msgpack" or sum(map(found.count, (b"[", b"{", b","))) > _MAX_SHOWN_VALUES:
            return UNSEEN
    try:
        return _decode_any[encoding](data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@cache
def _reader(kind: type[msgspec.Struct]) -> _Reader:
    return _Reader(kind)
