"""Finds duplicate keys in JSON and msgpack.

Some decoders take the last of two equal keys, others the first. A service that checks a payload before us and the
function that runs it must read the same value, so a payload with two equal keys is refused.

For the usual payload a cheap proof is enough: JSON by counting (each key ends in `":`, so a text with as many of them
as there are keys has no duplicates), msgpack by encoding it again. Payloads without such a proof are read by
`first_duplicate_key` and `_first_in_msgpack`, which are 10 to 100 times slower.
"""

from typing import Any, ClassVar

import msgspec

from gen_worker.execution.encoding import Encoding
from gen_worker.json_keys import escape_pointer, first_duplicate_key


def first_duplicate(data: bytes | msgspec.Raw, value: Any, encoding: Encoding, key_count: int) -> str | None:
    """The JSON pointer of the first key that occurs twice in its object; None when there is none. `value` is `data`
    decoded, with `key_count` keys in all objects.
    """
    found = data if isinstance(data, bytes) else bytes(data)
    if encoding == "json":
        # A key may be followed by a space before its colon; then it is not counted, and the slow path decides.
        if found.count(b'":') == key_count and not (b" :" in found or b"\n:" in found or b"\t:" in found or b"\r:" in found):
            return None
        return first_duplicate_key(found)
    return None if msgspec.msgpack.encode(value) == found else _first_in_msgpack(found)


def _first_in_msgpack(data: bytes) -> str | None:
    try:
        _MsgpackKeys(data).read(None)
    except _Twice as found:
        return "".join(f"/{escape_pointer(str(part))}" for part in found.path)
    return None


class _Twice(Exception):  # noqa: N818 - it is what is looked for
    def __init__(self, chain: Any) -> None:
        self.path: list[Any] = []
        while chain is not None:
            chain, part = chain
            self.path.insert(0, part)


class _MsgpackKeys:
    """Reads msgpack that msgspec has accepted, so its lengths are right: https://github.com/msgpack/msgpack/blob/master/spec.md"""

    # Bytes after the first one: those of the value itself, or those of the number that says how many bytes or items follow.
    FIXED: ClassVar = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
                       0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}  # fmt: skip
    BYTES: ClassVar = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}
    EXTENDED: ClassVar = (0xC7, 0xC8, 0xC9)  # one more byte, for the type
    ARRAYS: ClassVar = {0xDC: 2, 0xDD: 4}
    MAPS: ClassVar = {0xDE: 2, 0xDF: 4}

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def read(self, chain: Any) -> None:
        """Read one value; `chain` is its position: `(chain of the container, key)`."""
        first = self.data[self.at]
        self.at += 1
        if first <= 0x7F or first >= 0xE0:
            return
        if first <= 0x8F:
            self._map(first & 0x0F, chain)
        elif first <= 0x9F:
            self._array(first & 0x0F, chain)
        elif first <= 0xBF:
            self.at += first & 0x1F
        elif first in self.FIXED:
            self.at += self.FIXED[first]
        elif first in self.BYTES:
            size = self._number(self.BYTES[first])
            self.at += size + (first in self.EXTENDED)
        elif first in self.ARRAYS:
            self._array(self._number(self.ARRAYS[first]), chain)
        else:
            self._map(self._number(self.MAPS[first]), chain)

    def _number(self, size: int) -> int:
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "big")

    def _array(self, count: int, chain: Any) -> None:
        if count and (size := self.FIXED.get(self.data[self.at])):
            end = self.at + count * (size + 1)
            if self.data[self.at : end : size + 1] == self.data[self.at : self.at + 1] * count:
                self.at = end  # numbers of one kind, such as an embedding: they hold no keys
                return
        for index in range(count):
            self.read((chain, index))

    def _map(self, count: int, chain: Any) -> None:
        seen = set()
        for _ in range(count):
            begin = self.at
            self.read(None)
            key = msgspec.msgpack.decode(self.data[begin : self.at])
            if key in seen:
                raise _Twice((chain, key))
            seen.add(key)
            self.read((chain, key))
