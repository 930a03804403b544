"""Which releases may be deleted because newer ones exist. Pure."""

from collections.abc import Collection, Sequence

import msgspec

MAX_KEEP = 1_000_000


class Aged(msgspec.Struct, frozen=True):
    """A release with the facts needed here. `place` is its owner and endpoint."""

    release_id: str
    place: tuple[str, str]
    created_at: float


def to_prune(releases: Sequence[Aged], kept: Collection[str], keep: int) -> list[str]:
    """For each endpoint, all but the `keep` newest releases and those in `kept`, oldest first. Releases in `kept` do
    not count towards `keep`.
    """
    found: list[Aged] = []
    places: dict[tuple[str, str], int] = {}
    for each in sorted(releases, key=lambda each: (each.created_at, each.release_id), reverse=True):
        if each.release_id in kept:
            continue
        places[each.place] = places.get(each.place, 0) + 1
        if places[each.place] > keep:
            found.append(each)
    return [each.release_id for each in reversed(found)]
