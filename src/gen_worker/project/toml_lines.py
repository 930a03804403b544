"""Finds the lines of keys in a TOML file, for messages. The parser keeps no positions; an approximate line is good enough."""

import re
from pathlib import Path

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_KEY = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=")


def line_of_key(path: Path, *keys: str) -> int | None:
    """The line of a key in the file, such as `models, sd15`; None when it has none or the file cannot be read."""
    try:
        return key_lines(path.read_text(encoding="utf-8")).get(keys)
    except (OSError, UnicodeDecodeError):
        return None


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Each key, with the tables it is in, and its line."""
    lines: dict[tuple[str, ...], int] = {}
    above: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.fullmatch(line):
            above = _parts(header[1])
            lines.setdefault(above, number)
        elif key := _KEY.match(line):
            lines.setdefault(above + _parts(key[1]), number)
    return lines


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.]+", dotted))
