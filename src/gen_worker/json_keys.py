"""Where a key stands twice in an object of JSON.

Decoders keep the last of two equal keys, others the first. Who checks a text before us and who runs it must read the same.
"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

# A key that is not followed by `":` at once, and quotes and colons (in strings) that are written as escapes.
_HIDES_KEYS = (b" :", b"\n:", b"\t:", b"\r:", b"\\u0022", b"\\u003")
_encode = msgspec.json.Encoder().encode


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with all its keys."""


def has_key_twice(data: bytes, value: Any) -> bool | None:
    """Whether an object of a text, which decodes to `value`, holds a key twice; None where only reading it again can tell.

    Written again, a value has each key once. Each key ends in `":`, and in strings of both texts those two stand equally often.
    """
    if data.count(b":") < 2:
        return False
    if any(each in data for each in _HIDES_KEYS):
        return None
    try:
        return data.count(b'":') != _encode(value).count(b'":')
    except OverflowError:  # a whole number that cannot be written
        return None


def first_duplicate_key(data: bytes) -> str | None:
    """The JSON pointer of the first key that an object of a valid text holds twice. Slow: a text that may have none is proved so first."""
    todo: list[tuple[str, Any]] = [("", json.loads(data.decode(), object_pairs_hook=_Pairs, parse_int=str, parse_float=str))]
    while todo:
        pointer, value = todo.pop()
        parts: Iterable[tuple[Any, Any]] = value if isinstance(value, _Pairs) else enumerate(value)
        seen = set()
        for key, item in parts:
            if key in seen:
                return f"{pointer}/{escape_pointer(key)}"
            seen.add(key)
            if isinstance(item, list):
                todo.append((f"{pointer}/{escape_pointer(str(key))}", item))
    return None


def escape_pointer(part: str) -> str:
    """One part of a JSON pointer (RFC 6901)."""
    return part.replace("~", "~0").replace("/", "~1")
