"""Decodes callers' JSON: bounded in size and depth, and no key twice in an object.

    brackets, keys, quotes counted --too many or too deep--> refused, before anything is built
                                   --within bounds--> decoded --a key twice--> refused

The decoder is C code, and nothing else runs meanwhile: 0.07 us for an empty list, 0.4 us for a new key, 0.01 us for a number. So the counts
of lists, keys and values are bounded; only the content of strings is not. The other work is split into many short calls: in a thread
(`read_json_aside`) it leaves the event loop responsive. Small bodies are decoded directly, because a thread would cost more.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from gen_worker.json_keys import first_duplicate_key, has_key_twice

MAX_DEPTH = 64
MAX_NODES = 200_000  # objects, lists and keys
MAX_VALUES = 2_000_000
MAX_QUOTES = 4_000_000
INLINE_BYTES = 16 << 10
PLACE_BYTES = 1 << 20  # in longer texts the position of a duplicate key is not reported, because the search would block everything

T = TypeVar("T")
_decode = msgspec.json.Decoder().decode
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_PLAIN = (str, int, float, type(None))


class JsonError(ValueError):
    """A text that is refused. `word` is the runner contract's word for it; `too_large`: it is only too large."""

    def __init__(self, detail: str, word: str = "invalid_json", *, too_large: bool = False) -> None:
        super().__init__(detail.format("the text"))
        self._detail = detail
        self.word = word
        self.too_large = too_large

    def about(self, what: str) -> str:
        """A sentence that says what is wrong with `what`."""
        return self._detail.format(what)


async def aside(size_bytes: int, work: Callable[[], T]) -> T:
    """The result of `work`, which reads a text of this size: in a thread, unless it is small."""
    return work() if size_bytes <= INLINE_BYTES else await asyncio.to_thread(work)


def read_json(data: bytes) -> Any:
    """The decoded value of a text; `JsonError` says why it is refused."""
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH or data.count(b":") > MAX_NODES or data.count(b",") > MAX_VALUES:
        _count(data)
    try:
        value = _decode(data)
        twice = _has_key_twice(data, value)
    except msgspec.DecodeError as exc:
        raise JsonError(f"{{}} is not valid JSON: {_plain(exc)}") from None
    except UnicodeDecodeError as exc:
        raise JsonError(f"{{}} is not valid UTF-8 (byte {exc.start})") from None
    if twice:
        place = first_duplicate_key(data) if len(data) <= PLACE_BYTES else None
        raise JsonError(f"{{}}: {'a key' if place is None else f'the key at {_plain(place)}'} is given twice", "duplicate_key")
    return value


def _has_key_twice(data: bytes, value: Any) -> bool:
    found = has_key_twice(data, value)
    return _count(data) != _keys_of(value) if found is None else found


def _keys_of(value: Any) -> int:
    count, todo = 0, [value]
    while todo:
        here = todo.pop()
        if isinstance(here, dict):
            count += len(here)
            here = here.values()
        todo += [each for each in here if isinstance(each, (dict, list))] if not isinstance(here, _PLAIN) else ()
    return count


def _plain(text: object) -> str:
    """Escaped for `str.format`."""
    return str(text)[:200].replace("{", "{{").replace("}", "}}")


def _count(data: bytes) -> int:
    """The number of keys in a text; `JsonError` when it is nested too deeply, or too large. Invalid JSON is skipped,
    because the decoder will report it.
    """
    if data.count(b'"') > MAX_QUOTES:
        raise JsonError(f"{{}} has more than {MAX_QUOTES // 2} strings: send large inputs as files", too_large=True)
    depth = nodes = keys = commas = at = 0
    while at >= 0:
        opened = data.find(b'"', at)
        outside = data[at:opened] if opened >= 0 else data[at:]
        commas += outside.count(b",")
        if commas > MAX_VALUES:
            raise JsonError(f"{{}} has more than {MAX_VALUES} values: send large inputs as files", too_large=True)
        if outside != b"," and outside:
            keys += outside.count(b":")
            nodes += outside.count(b"[") + outside.count(b"{")
            if nodes + keys > MAX_NODES and depth <= MAX_DEPTH:
                _refuse_depth(outside, depth)
                raise JsonError(f"{{}} has more than {MAX_NODES} objects, lists and keys: send large inputs as files", too_large=True)
            depth = _refuse_depth(outside, depth)
        at = _end_of_string(data, opened) if opened >= 0 else -1
    return keys


def _refuse_depth(outside: bytes, depth: int) -> int:
    """The nesting depth after this piece of a text."""
    for bracket in outside.translate(None, _NO_BRACKETS)[: 3 * MAX_NODES]:
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise JsonError(f"{{}} is nested more than {MAX_DEPTH} levels deep")
    return depth


def _end_of_string(data: bytes, opened: int) -> int:
    """The position after the string that opens there; -1 when it does not end."""
    at = opened + 1
    while (quote := data.find(b'"', at)) >= 0:
        piece = data[at:quote]
        if not piece.endswith(b"\\") or (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 0:
            return quote + 1
        at = quote + 1
    return -1
