"""Parses the Range header (RFC 9110, 14.1 and 14.2). Starlette and simple parsers differ from it: `bytes=--1` is invalid and must
be ignored, while `bytes=0-0,99-` asks for one part that exists.
"""

import re
from collections.abc import Iterable

Span = tuple[int, int]  # start and end in bytes; the end is not included

MAX_RANGES = 100
_SPEC = re.compile(r"(\d{0,40})-(\d{0,40})", re.ASCII)


def requested_spans(header: str, size_bytes: int) -> tuple[Span, ...] | None:
    """The parts of a file of `size_bytes` that the header asks for, sorted, without overlaps.

    None: answer with the whole file, because the header is invalid, has another unit, or names too many parts. Empty: no
    part is inside the file (416). Parts outside are left out when others are inside.
    """
    unit, _, text = header.partition("=")
    specs = [spec for each in text.split(",") if (spec := each.strip(" \t"))]  # a list may have empty elements (5.6.1)
    if unit.lower() != "bytes" or not 0 < len(specs) <= MAX_RANGES:
        return None
    found: list[Span] = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-":
            return None
        first, last = match.groups()
        if not first:  # the last bytes; of an empty file that is all of it
            start, end = max(0, size_bytes - int(last)), size_bytes
            if size_bytes == 0 and int(last):
                return None
        else:
            start, end = int(first), int(last) + 1 if last else max(size_bytes, int(first) + 1)
            if end <= start:
                return None
        if start < size_bytes:
            found.append((start, min(end, size_bytes)))
    return tuple(_joined(found))


def _joined(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined
