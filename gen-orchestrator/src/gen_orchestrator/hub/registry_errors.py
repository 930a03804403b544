"""Errors of the registry."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from gen_orchestrator.store.base import Release, Tag
from gen_worker.names import TAG_RULE, did_you_mean


class NotFoundError(LookupError):
    """No such owner, endpoint, function, tag or release, or one that is damaged; the message names the nearest."""


class TagNameError(ValueError):
    """An invalid tag name."""

    def __init__(self, tag: str) -> None:
        super().__init__(f"tag {tag[:64]!r}: {TAG_RULE}")


class TagMovedError(Exception):
    """Someone else moved the tag first; `now` is where it points."""

    def __init__(self, now: Tag | None) -> None:
        super().__init__(f"the tag has moved; it points at {now.release_id if now else 'nothing'} now")
        self.now = now


class InUseError(Exception):
    """This release cannot be deleted now; `uses` lists what needs it, as text for people."""

    def __init__(self, release_id: str, uses: list[str]) -> None:
        super().__init__(f"release {release_id} is in use: {_told(uses)}")
        self.uses = uses


def _told(uses: list[str]) -> str:
    return "; ".join(uses[:5]) + (f"; and {len(uses) - 5} more" if len(uses) > 5 else "")


def when(unix_s: float) -> str:
    """A time for people."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("on %Y-%m-%d at %H:%M UTC")


def not_served(owner: str, endpoint: str, served: Sequence[tuple[str, str]], releases: Sequence[Release]) -> str:
    """Why no tag of an endpoint points anywhere. `served`: owner and endpoint of each that has tags; `releases`: its
    own, newest first.
    """
    if releases:
        text = f"{owner}/{endpoint} is out of service: none of its functions has a tag."
        return f"{text} Serve its newest release with: cozyctl promote {releases[0].release_id}"
    owners = {known for known, _ in served}
    if owner not in owners:
        return f"no owner {owner[:64]!r}.{did_you_mean(owner, owners)}"
    endpoints = [name for known, name in served if known == owner]
    return f"{owner} has no endpoint {endpoint[:64]!r}.{did_you_mean(endpoint, endpoints)} Endpoints: {some_of(endpoints)}"


def some_of(names: Iterable[str]) -> str:
    """The first dozen by name, as text for people."""
    listed = sorted(names)
    return ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "") or "none"
