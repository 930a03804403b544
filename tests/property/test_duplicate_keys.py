"""A payload with two equal keys is refused, wherever they are and however they are written; any other is accepted."""

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_worker.errors import ValidationError
from gen_worker.execution.payloads import read_payload


class Payload(msgspec.Struct):
    any: Any = None


class Pairs(list[tuple[str, Any]]):
    """An object that may hold a key twice."""


KEYS = st.sampled_from(["a", "b", "a/b", "~", '"', '":', "é", " ", "", "1"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEYS
    | st.just('", "a": 1'),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(KEYS, inner), max_size=3).map(Pairs),
    max_leaves=12,
)


def twice_in(value: Any, pointer: str = "/any") -> set[str]:
    found: set[str] = set()
    if isinstance(value, Pairs):
        keys = [key for key, _ in value]
        found |= {f"{pointer}/{escaped(key)}" for key in keys if keys.count(key) > 1}
        for key, item in value:
            found |= twice_in(item, f"{pointer}/{escaped(key)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found |= twice_in(item, f"{pointer}/{index}")
    return found


def escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def as_json(value: Any, space: str, *, ascii_only: bool) -> str:
    if isinstance(value, Pairs):
        fields = [
            f"{json.dumps(key, ensure_ascii=ascii_only)}{space}:{space}{as_json(item, space, ascii_only=ascii_only)}" for key, item in value
        ]
        return "{" + ",".join(fields) + "}"
    if isinstance(value, list):
        return "[" + ",".join(as_json(item, space, ascii_only=ascii_only) for item in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def as_msgpack(value: Any, *, wide: bool) -> bytes:
    """msgpack as encoders write it that spend four bytes on each length, or as msgspec does."""
    if isinstance(value, Pairs):
        head = struct.pack(">BI", 0xDF, len(value)) if wide else bytes([0x80 | len(value)])
        return head + b"".join(as_msgpack(key, wide=wide) + as_msgpack(item, wide=wide) for key, item in value)
    if isinstance(value, list):
        head = struct.pack(">BI", 0xDD, len(value)) if wide else bytes([0x90 | len(value)])
        return head + b"".join(as_msgpack(item, wide=wide) for item in value)
    if wide and isinstance(value, str):
        return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
    if wide and type(value) is int and value < 2**63:
        return struct.pack(">Bq", 0xD3, value)
    return msgspec.msgpack.encode(value)


def check(data: bytes, encoding: Any, twice: set[str]) -> None:
    if not twice:
        read_payload(Payload, data, encoding)
        return
    with pytest.raises(ValidationError, match="is given twice") as caught:
        read_payload(Payload, data, encoding)
    assert caught.value.errors[0].pointer in twice


@given(VALUES, st.sampled_from(["", " ", "\n\t", "\r  "]), st.booleans())
def test_in_json(value: Any, space: str, ascii_only: bool) -> None:
    check(f'{{"any":{as_json(value, space, ascii_only=ascii_only)}}}'.encode(), "json", twice_in(value))


@given(VALUES, st.booleans())
def test_in_msgpack(value: Any, wide: bool) -> None:
    check(as_msgpack(Pairs([("any", value)]), wide=wide), "msgpack", twice_in(value))


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b'{"any":1,"any":2}', "json"),
        (b'{"any":1,"\\u0061ny":2}', "json"),
        (b'{"any":"\\": {\\"any","any":2}', "json"),
        (b"\x82\xa3any\x01\xa3any\x02", "msgpack"),
        (b"\x82\xa3any\x01\xd9\x03any\x02", "msgpack"),
        (b"\x81\xa3any\x92\xca\x00\x00\x00\x00\x82\x01\x01\xcc\x01\x02", "msgpack"),  # 1 and a wide 1 are one key
    ],
)
def test_by_hand(data: bytes, encoding: Any) -> None:
    with pytest.raises(ValidationError, match="is given twice"):
        read_payload(Payload, data, encoding)


def test_a_long_list_of_numbers_is_passed_over_at_once() -> None:
    numbers = struct.pack(">BI", 0xDD, 200_000) + struct.pack(">Bf", 0xCA, 1.5) * 200_000
    assert len(read_payload(Payload, b"\x81\xa3any" + numbers, "msgpack").value.any) == 200_000


@given(st.binary(max_size=60))
def test_msgpack_of_any_bytes_ends(data: bytes) -> None:
    try:
        read_payload(Payload, data, "msgpack")
    except ValidationError as exc:
        assert str(exc)
