"""On which lines of a TOML file its keys stand, so that messages can say so. The parser keeps no positions; near is good enough."""

import re
from pathlib import Path

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_KEY = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=")


def line_of_key(path: Path, *keys: str) -> int | None:
    """On which line of the file a key stands, such as `models, sd15`; None where it does not, or the file cannot be read."""
    try:
        return key_lines(path.read_text(encoding="utf-8")).get(keys)
    except (OSError, UnicodeDecodeError):
        return None


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Key, with the tables it is in, and its line."""
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
