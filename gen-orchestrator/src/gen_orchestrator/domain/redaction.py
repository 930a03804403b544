"""Removes known secrets, by value, from everything that is shown or stored. Pure.

A value is found as it is, and as it appears in JSON (encoded once or twice), in a Python repr, in hexadecimal, in URLs and in base64, also
inside a longer text in base64: `Authorization: Basic` has the name and the password in one. Each line of a multi-line value is found, too.
A value that arrives in pieces, such as tokens of a stream, is not found.
"""

import base64
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

MIN_LINE_CHARACTERS = 8


class Redactor:
    """For a set of secrets, given as pairs of name and value."""

    def __init__(self, secrets: Iterable[tuple[str, str]] = ()) -> None:
        found: dict[str, str] = {}
        for name, value in secrets:
            for form in _forms(value):
                found.setdefault(form, f"[secret {name}]")
        # The longest first: a value that contains another must be replaced before the shorter one breaks it up.
        self._texts = sorted(found.items(), key=lambda pair: len(pair[0]), reverse=True)
        self._bytes = [(form.encode(), shown.encode()) for form, shown in self._texts]

    def __bool__(self) -> bool:
        """Whether there is anything to redact."""
        return bool(self._texts)

    def text(self, text: str) -> str:
        """The text with each secret's value replaced by its name."""
        for form, shown in self._texts:
            if form in text:
                text = text.replace(form, shown)
        return text

    def json(self, data: bytes) -> bytes:
        """The same for a JSON document, or any text in UTF-8. JSON stays valid."""
        for form, shown in self._bytes:
            if form in data:
                data = data.replace(form, shown)
        return data

    def msgpack(self, data: bytes) -> bytes:
        """The same for msgpack. A value that contains a secret and cannot be decoded is dropped."""
        if not any(form in data for form, _ in self._bytes):
            return data
        try:
            return msgspec.msgpack.encode(self._value(msgspec.msgpack.decode(data)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return b""

    def _value(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case bytes():
                return self.json(value)
            case list():
                return [self._value(each) for each in value]
            case dict():
                return {self._value(key): self._value(each) for key, each in value.items()}
            case msgspec.msgpack.Ext():
                return msgspec.msgpack.Ext(value.code, self.json(bytes(value.data)))
        return value


def _forms(value: str) -> set[str]:
    """The forms in which a value may appear."""
    parts = {value, *(part for each in (value, *value.splitlines()) if len(part := each.strip()) >= MIN_LINE_CHARACTERS)}
    forms = set()
    for part in parts:
        for ascii_only in (True, False):
            once = json.dumps(part, ensure_ascii=ascii_only)[1:-1]
            forms |= {once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]}
        forms |= {part, repr(part)[1:-1], quote(part, safe=""), quote(part), quote_plus(part)}
        forms |= {part.encode().hex(), part.encode().hex().upper(), *_base64_forms(part.encode())}
    return {form for form in forms if form}


def _base64_forms(data: bytes) -> set[str]:
    """How these bytes appear in base64, alone or inside something longer: a character has 6 bits, so what is before them shifts them by
    0, 1 or 2 bytes, and characters that hold bits of a neighbour do not count."""
    forms = {base64.b64encode(data).decode().rstrip("=")}
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        forms.add(text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6])
    return forms | {form.replace("+", "-").replace("/", "_") for form in forms}
