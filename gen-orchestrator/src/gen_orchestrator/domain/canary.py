"""A canary: a share of a tag's runs goes to a candidate release, until the candidate is promoted or found worse. Pure.

run accepted --takes_part(its id)--> the candidate, or the tag's release; for good
run over     --verdict(last runs of both)--> the candidate stays, or is dropped with a reason
"""

import hashlib
import statistics
from collections.abc import Sequence

import msgspec

from gen_orchestrator.domain.runs import Run, RunState

WINDOW = 50  # latest runs of each side that are compared
MIN_RUNS = 10  # of the candidate, before a verdict
MAX_MORE_FAILURES = 0.1  # how much higher the candidate's share of failed runs may be
MAX_SLOWDOWN = 1.5  # limit for the candidate's median duration, as a multiple of the other median
MIN_SLOWDOWN_S = 0.05  # smaller differences are noise


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A release that gets `percent` of a tag's runs. `since` is unix seconds."""

    owner: str
    endpoint: str
    function: str
    tag: str
    release_id: str
    percent: float
    since: float


class Ended(msgspec.Struct, frozen=True):
    """The compared facts of a finished run: whether it failed, and its duration from first lease to end."""

    failed: bool
    seconds: float


def takes_part(run_id: str, percent: float, what: bytes = b"canary") -> bool:
    """Whether a run goes to the candidate. The answer depends on the id only, and a larger percentage includes all runs
    of a smaller one. `what` makes different shares independent of each other.
    """
    digest = hashlib.blake2b(run_id.encode(), digest_size=8, person=what).digest()
    return int.from_bytes(digest, "big") / (1 << 64) < percent / 100


def ended(run: Run) -> Ended | None:
    """The compared facts of a run; None for a canceled one, which says nothing about its release."""
    if run.state is RunState.CANCELED:
        return None
    return Ended(run.state is not RunState.SUCCEEDED, max(0.0, run.finished_at - run.started_at) if run.started_at else 0.0)


def verdict(candidate: Sequence[Ended], tag: Sequence[Ended]) -> str:
    """Why the candidate is worse than the tag's release, judged by the latest runs of both; empty while it is not
    worse, or too little is known.
    """
    if len(candidate) < MIN_RUNS:
        return ""
    mine, other = _failures(candidate), _failures(tag)
    if mine > other + MAX_MORE_FAILURES:
        return f"{mine:.0%} of its last {len(candidate)} runs failed, and {other:.0%} of the tag's release"
    mine_s, other_s = ([each.seconds for each in side if not each.failed] for side in (candidate, tag))
    if len(mine_s) < MIN_RUNS or len(other_s) < MIN_RUNS:
        return ""
    slow, usual = statistics.median(mine_s), statistics.median(other_s)
    if slow > usual * MAX_SLOWDOWN and slow > usual + MIN_SLOWDOWN_S:
        return f"its last runs took {slow:.3f} s in the median, and {usual:.3f} s those of the tag's release"
    return ""


def _failures(runs: Sequence[Ended]) -> float:
    return sum(each.failed for each in runs) / len(runs) if runs else 0.0
