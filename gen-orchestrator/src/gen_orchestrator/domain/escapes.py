"""The pattern of a text in every way that JSON, `repr`, HTML and URLs write it, at any depth of nesting. Pure.

Every repetition is possessive or bounded by what follows, and a run of backslashes is entered only at its start, so that no text takes
more than its length times the pattern's.
"""

import re

PLAIN = r"A-Za-z0-9_.~\-"  # written as they are by every writer
PLAIN_RUN = re.compile(f"[{PLAIN}]+")
_TOKENS = re.compile(rf"(\\*)([{PLAIN}]+|[^\\]|$)", re.DOTALL)
_LETTERS = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\0": "0", "\a": "a", "\v": "v"}
_ENTITIES = {'"': "quot", "'": "apos", "<": "lt", ">": "gt", "&": "amp"}
_SLASH = r"\\"
_ESCAPED_SLASH = r"%(?:25)*+5[cC]"
_ANY_SLASH = rf"(?:{_SLASH}|{_ESCAPED_SLASH})"
_AMPERSAND, _NUMBER_SIGN, _SEMICOLON = "(?:&|%(?:25)*+26)", "(?:[#]|%(?:25)*+23)", "(?:;|%(?:25)*+3[bB])"
# What is written for these grows at each level. Not possessive, because the value itself may go on with the same characters.
_GROWING = {"%": "%(?:25)*", "&": f"{_AMPERSAND}(?:amp{_SEMICOLON})*"}


def pattern_of(text: str) -> str:
    """A regular expression, for `str` or, in UTF-8, for `bytes`. What it finds in JSON can be replaced, and it stays JSON,
    unless the end of an escape begins the text, such as the `n` of a newline before `ever` for the text `never`."""
    found = []
    for token in _TOKENS.finditer(text):
        slashes, rest = len(token[1]), token[2]
        if not rest and slashes:
            found.append(_last_slashes(slashes))
        elif rest:
            before = _slashes(slashes, first=not found) if slashes else ""
            found.append(before + _written(rest, first=not found, after_slash=bool(slashes)))
    return "".join(found)


def _slashes(count: int, first: bool) -> str:
    """Backslashes before something, at least so many: each level doubles them, and adds those of what follows."""
    if first:
        return rf"(?:(?<!{_SLASH}){_SLASH}{{{count},}}+|(?<!5[cC])(?:{_ESCAPED_SLASH}){{{count},}}+)"
    return rf"{_ANY_SLASH}{{{count},}}+"


def _last_slashes(count: int) -> str:
    """Backslashes at the end: an odd one belongs to what follows, such as an escaped quote."""
    return rf"(?:{_SLASH}{{{count}}}(?!{_SLASH})|(?:{_SLASH}{_SLASH}){{{count},}}+|{_SLASH}{{{count}}}|(?:{_ESCAPED_SLASH}){{{count},}}+)"


def _written(rest: str, first: bool, after_slash: bool) -> str:
    if PLAIN_RUN.fullmatch(rest):
        return re.escape(rest)
    raw = [_GROWING.get(rest, re.escape(rest))]
    if rest not in _GROWING:
        raw.append("".join(map(_in_url, rest.encode())))
    if rest == " ":
        raw += [r"\+", _in_url(ord("+"))]
    if rest in _ENTITIES or not rest.isascii():
        raw.append(_in_html(rest))
    always, escaped = "|".join(raw), "|".join(_in_json_or_repr(rest))
    if after_slash:  # theirs are among those before
        return f"(?:{always}|{escaped})" if escaped else f"(?:{always})"
    slashes = _slashes(1, first)
    return f"(?:{slashes}(?:{always}|{escaped})|{always})" if escaped else f"(?:{slashes})?+(?:{always})"


def _in_json_or_repr(character: str) -> list[str]:
    """After the backslashes. Printable ASCII stays as it is, but some JSON writers escape what HTML would read."""
    code = ord(character)
    if 32 <= code < 127 and character not in _ENTITIES:
        return []
    found = [_LETTERS[character]] if character in _LETTERS else []
    if code < 256:
        found.append(f"x{_hex(f'{code:02x}')}")
    if code > 127:
        found.append(f"{_ANY_SLASH}++".join(f"x{_hex(f'{byte:02x}')}" for byte in character.encode()))
    units = character.encode("utf-16-be").hex()
    found.append(f"{_ANY_SLASH}++".join(f"u{_hex(units[at : at + 4])}" for at in range(0, len(units), 4)))
    return [*found, f"U{_hex(f'{code:08x}')}"] if code > 0xFFFF else found


def _in_html(character: str) -> str:
    code, name = ord(character), _ENTITIES.get(character)
    number = f"{_NUMBER_SIGN}(?:0*{code}|[xX]0*{_hex(f'{code:x}')})"
    return f"{_AMPERSAND}(?:amp{_SEMICOLON})*+{f'(?:{name}|{number})' if name else number}{_SEMICOLON}"


def _in_url(byte: int) -> str:
    return f"%(?:25)*+{_hex(f'{byte:02x}')}"


def _hex(digits: str) -> str:
    """These hexadecimal digits in either case."""
    return "".join(f"[{digit.lower()}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)
