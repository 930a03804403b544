"""Removes known secrets, by value, from everything that is shown or stored. Pure.

A value is found as it is, and as any nesting of JSON, `repr` of text or bytes, HTML and URLs writes it: these writers keep letters and
digits and put something known in place of every other character, so a pattern with all of these in each place knows every nesting. It is
also found in hexadecimal and in base64, inside a longer text as well: `Authorization: Basic` has the name and the password in one.
Each line of a multi-line value is found, too. A value that arrives in pieces, such as tokens of a stream, is not found.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, AnyStr

import msgspec

from gen_orchestrator.domain.escapes import PLAIN_RUN, pattern_of

MIN_LINE_CHARACTERS = 8
PIECE_CHARACTERS = 250  # a longer form is sought in pieces: a pattern is compiled, and fails, in a time that grows with its length


class Redactor:
    """For a set of secrets, given as pairs of name and value."""

    def __init__(self, secrets: Iterable[tuple[str, str]] = ()) -> None:
        found: dict[str, str] = {}
        for name, value in secrets:
            for form in _forms(value):
                found.setdefault(form, f"[secret {name}]")
        # The longest first: a value that contains another must be replaced before the shorter one breaks it up.
        longest = sorted(found.items(), key=lambda pair: len(pair[0]), reverse=True)
        self._sought = [_Sought(form, shown) for form, shown in longest]
        # Without one of these there is no secret in a text. This is all that most texts cost.
        self._anchors = list({piece.anchor: None for each in self._sought for piece in each.pieces})
        self._anchors_bytes = list(map(str.encode, self._anchors))

    def __bool__(self) -> bool:
        """Whether there is anything to redact."""
        return bool(self._sought)

    def text(self, text: str) -> str:
        """The text with each secret's value replaced by its name."""
        for anchor in self._anchors:
            if anchor in text:
                return self._changed_text(text)
        return text

    def _changed_text(self, text: str) -> str:
        for each in self._sought:
            for first, piece in enumerate(each.pieces):
                if piece.anchor in text:
                    text = "".join(_without([later.in_text for later in each.pieces[first:]], text, each.shown))
        return text

    def json(self, data: bytes) -> bytes:
        """The same for a JSON document, or any text in UTF-8. JSON stays valid."""
        for anchor in self._anchors_bytes:
            if anchor in data:
                return self._changed_bytes(data)
        return data

    def _changed_bytes(self, data: bytes) -> bytes:
        for each in self._sought:
            for first, piece in enumerate(each.pieces):
                if piece.anchor_bytes in data:
                    data = b"".join(_without([later.in_bytes for later in each.pieces[first:]], data, each.shown_bytes))
        return data

    def msgpack(self, data: bytes) -> bytes:
        """The same for msgpack. A value that contains a secret and cannot be decoded is dropped."""
        if not any(anchor in data for anchor in self._anchors_bytes) or self._changed_bytes(data) == data:
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


class _Sought:
    """A form, in pieces, and what to show for it."""

    def __init__(self, form: str, shown: str) -> None:
        self.pieces = [_Piece(part) for part in _cut(form)]
        self.shown, self.shown_bytes = shown, shown.encode()


class _Piece:
    """Its patterns are compiled only when a text has its `anchor`, which no writer changes: most secrets never appear anywhere."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.anchor = max(PLAIN_RUN.findall(text), key=len, default="")
        self.anchor_bytes = self.anchor.encode()

    def in_text(self) -> re.Pattern[str]:
        return self._in_text

    def in_bytes(self) -> re.Pattern[bytes]:
        return self._in_bytes

    @cached_property
    def _in_text(self) -> re.Pattern[str]:
        return re.compile(pattern_of(self._text))

    @cached_property
    def _in_bytes(self) -> re.Pattern[bytes]:
        return re.compile(pattern_of(self._text).encode())


def _without(pieces: Sequence[Callable[[], re.Pattern[AnyStr]]], text: AnyStr, shown: AnyStr) -> Iterator[AnyStr]:
    """The text around these pieces, and `shown` for as many as follow the first."""
    done = 0
    while (found := pieces[0]().search(text, done)) is not None:
        yield text[done : found.start()]
        yield shown
        done = found.end()
        for piece in pieces[1:]:
            if (found := piece().match(text, done)) is None:
                break
            done = found.end()
    yield text[done:]


def _forms(value: str) -> set[str]:
    """The forms in which a value may appear, before anything quotes them."""
    parts = {value, *(part for each in (value, *value.splitlines()) if len(part := each.strip()) >= MIN_LINE_CHARACTERS)}
    forms = set(parts)
    for data in map(str.encode, parts):
        forms |= {data.hex(), data.hex().upper(), *_base64_forms(data)}
    return {form for form in forms if form}


def _cut(form: str) -> list[str]:
    """The form, cut where what is written for one character cannot be taken for a part of the next."""
    found: list[str] = []
    while len(form) > PIECE_CHARACTERS and (cut := _BETWEEN.search(form, PIECE_CHARACTERS)):
        found.append(form[: cut.end()])
        form = form[cut.end() :]
    return [*found, form]


_BETWEEN = re.compile(r"[^\\%&](?=.)|%(?=[^\\2])|&(?=[^\\a])", re.DOTALL)


def _base64_forms(data: bytes) -> set[str]:
    """How these bytes appear in base64, alone or inside something longer: a character has 6 bits, so what is before them shifts them by
    0, 1 or 2 bytes, and characters that hold bits of a neighbour do not count."""
    forms = {base64.b64encode(data).decode().rstrip("=")}
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        forms.add(text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6])
    return forms | {form.replace("+", "-").replace("/", "_") for form in forms}
