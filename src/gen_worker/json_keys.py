"""Finds duplicate keys in JSON objects.

Some decoders keep the last of two equal keys, others the first. A service that checks a text before us and the function
that runs it must read the same value.
"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

# A key that is not directly followed by `":`, and quotes and colons in strings that are written as escapes.
_HIDES_KEYS = (b" :", b"\n:", b"\t:", b"\r:", b"\\u0022", b"\\u003")
_encode = msgspec.json.Encoder().encode


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with all its keys."""


def has_key_twice(data: bytes, value: Any) -> bool | None:
    """Whether an object in a text has a duplicate key; None when only reading it again can tell. `value` is the decoded
    text.

    An encoded value has each key once. Each key ends in `":`, and within strings, those two characters occur equally
    often in both texts.
    """
    if data.count(b":") < 2:
        return False
    if any(each in data for each in _HIDES_KEYS):
        return None
    try:
        return data.count(b'":') != _encode(value).count(b'":')
    except OverflowError:  # an integer that cannot be encoded
        return None


def first_duplicate_key(data: bytes) -> str | None:
    """The JSON pointer of the first key that occurs twice in an object of a valid text. Slow, so callers first try to
    prove that there is none.
    """
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
