"""Parses header values by their grammars: Accept (RFC 9110, 12.5.1), Prefer (RFC 7240), media types, entity tags,
integers.

Values are compared by the grammar's parts, never by substring, and ignoring case where the grammar does. Nothing here
raises: an invalid value counts as absent.
"""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache

import msgspec

_PARTS = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')  # a comma inside a quoted string is no separator
_PARAMETERS = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+')
_QUALITY = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)
_ENTITY_TAG = re.compile(r'(W/)?("[^"]*")')
MAX_PREFERRED_WAIT_S = 3600
PREFERRED_WAIT_S = 60  # for `wait` without a number


class MediaRange(msgspec.Struct, frozen=True, gc=False):
    """One part of Accept: `image/*;q=0.5`. Lower case."""

    kind: str
    quality: float


@lru_cache(256)
def parse_accept(header: str) -> tuple[MediaRange, ...]:
    """The accepted media ranges, best first; equal ones in the order sent. Ranges with `q=0` are left out, because they are unwanted."""
    found = []
    for part in _PARTS.findall(header):
        kind, *parameters = [text.strip() for text in _PARAMETERS.findall(part)] or [""]
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "q":
                quality = float(value.strip()) if _QUALITY.fullmatch(value.strip()) else 0.0
        if quality > 0 and "/" in kind:
            found.append(MediaRange(kind.lower(), quality))
    return tuple(sorted(found, key=lambda each: -each.quality))


def preferred(header: str, offered: tuple[str, ...]) -> str | None:
    """Which of the `offered` media types the header names first; None when it names none, or a range that matches all
    comes before.

    `*/*` and `application/*` name no type: they leave the choice to us.
    """
    for accepted in parse_accept(header):
        if accepted.kind in offered:
            return accepted.kind
        if accepted.kind in ("*/*", "application/*"):
            return None
    return None


def asks_for(header: str, media_type: str) -> bool:
    """Whether the header accepts this type, or its family (`image/*`), at least as much as JSON."""
    best = {accepted.kind: accepted.quality for accepted in reversed(parse_accept(header))}
    wanted = max(best.get(media_type.lower(), 0.0), best.get(f"{media_type.lower().partition('/')[0]}/*", 0.0))
    return wanted > 0 and wanted >= best.get("application/json", 0.0)


@lru_cache(256)
def media_type(content_type: str) -> str:
    """The media type of a Content-Type, without parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(256)
def parse_prefer(header: str) -> tuple[bool, int | None]:
    """Whether to answer `respond-async`, and how many seconds to `wait`. The first value of a repeated name counts.

    Both together mean: wait that long, then answer 202 (RFC 7240, 4.3). `wait` without a number is a minute.
    """
    seen: dict[str, str] = {}
    for part in _PARTS.findall(header):
        name, _, value = part.partition(";")[0].partition("=")
        seen.setdefault(name.strip().lower(), value.strip().strip('"').strip())
    wait_s = PREFERRED_WAIT_S if seen.get("wait") == "" else whole_number(seen.get("wait", ""))
    return "respond-async" in seen, None if wait_s is None else min(wait_s, MAX_PREFERRED_WAIT_S)


def matches_etag(if_none_match: str, etag: str) -> bool:
    """Whether the header's list contains `etag`, weak or strong; `*` matches all."""
    if if_none_match.strip() == "*":
        return True
    return etag.removeprefix("W/") in [tag for _, tag in _ENTITY_TAG.findall(if_none_match)]


def matches_etag_strongly(if_match: str, etag: str) -> bool:
    """Whether the header's list contains exactly `etag`; a weak tag equals nothing (RFC 9110, 13.1.1). `*` matches all."""
    return if_match.strip() == "*" or ("", etag) in _ENTITY_TAG.findall(if_match)


def accepts_coding(accept_encoding: str, coding: str) -> bool:
    """Whether the client names this content coding and does not refuse it by `q=0` (RFC 9110, 12.5.3). `*` names none."""
    for part in _PARTS.findall(accept_encoding):
        name, *parameters = [text.strip().lower() for text in part.split(";")]
        if name == coding:
            return not any(re.fullmatch(r"q\s*=\s*0(\.0{0,3})?", parameter) for parameter in parameters)
    return False


def http_date(text: str) -> float | None:
    """The Unix time of an HTTP date (RFC 9110, 5.6.7); None when it is invalid."""
    try:
        found = parsedate_to_datetime(text)
        return found.replace(tzinfo=found.tzinfo or UTC).timestamp()  # a date without a zone, as in asctime's form, is UTC
    except (ValueError, IndexError, TypeError, OverflowError):  # Python accepts more forms than HTTP, and each fails in its own way
        return None


def whole_number(text: str) -> int | None:
    """The number in one to nine ASCII digits; else None. (`isdigit` alone would accept `²`, which is no number.)"""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
