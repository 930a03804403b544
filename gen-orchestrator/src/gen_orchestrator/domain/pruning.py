"""Which releases may go because newer ones are there. Pure."""

from collections.abc import Collection, Sequence

import msgspec

MAX_KEEP = 1_000_000


class Aged(msgspec.Struct, frozen=True):
    """A release, and what counts of it here. `place` is its owner and endpoint."""

    release_id: str
    place: tuple[str, str]
    created_at: float


def to_prune(releases: Sequence[Aged], kept: Collection[str], keep: int) -> list[str]:
    """Of each endpoint all but the `keep` newest and those in `kept`, oldest first. What is in `kept` takes none of the `keep` places."""
    found: list[Aged] = []
    places: dict[tuple[str, str], int] = {}
    for each in sorted(releases, key=lambda each: (each.created_at, each.release_id), reverse=True):
        if each.release_id in kept:
            continue
        places[each.place] = places.get(each.place, 0) + 1
        if places[each.place] > keep:
            found.append(each)
    return [each.release_id for each in reversed(found)]
