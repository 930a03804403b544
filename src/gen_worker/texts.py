"""Converts anything to text that can always be written and sent, has a limited length, and is read without raising.

Values from an author, a caller or a file may contain lone surrogates, which neither JSON nor protobuf nor UTF-8 files
can represent, and an author's `__str__` or `__repr__` may raise anything. All their text that we log, send or keep
passes through here.
"""

from collections.abc import Callable

MAX_CHARS = 4000


def sound(text: str, max_chars: int = MAX_CHARS) -> str:
    r"""`text` as a plain `str` without lone surrogates (they are written out, as in `\udcff`), cut at `max_chars`."""
    # Called on the class, because a subclass of str may override its methods.
    text = str.__getitem__(text, slice(max_chars))
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()[:max_chars]


def text_of(value: object, max_chars: int = MAX_CHARS) -> str:
    """`str(value)`, or a note that it cannot be read."""
    return _asked(str, value, max_chars)


def repr_of(value: object, max_chars: int = MAX_CHARS) -> str:
    """`repr(value)`, or a note that it cannot be read."""
    return _asked(repr, value, max_chars)


def class_name(value: object) -> str:
    """The name of a value's class."""
    try:
        return sound(type(value).__name__, 200)
    except BaseException:  # noqa: BLE001 - a metaclass of the author's may make anything of `__name__`
        return "?"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 run`, `2 runs`. `plural`: if it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def _asked(ask: Callable[[object], str], value: object, max_chars: int) -> str:
    try:
        return sound(ask(value), max_chars)
    except BaseException as broken:  # noqa: BLE001 - an author's __str__ may raise anything, SystemExit included
        return f"(its text cannot be read: {class_name(broken)})"
