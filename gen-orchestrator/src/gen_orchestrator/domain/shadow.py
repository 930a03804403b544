"""Shadow runs: repeat a share of a tag's runs on another release and compare the results. Pure.

    run of the tag succeeded --takes_part(its id)--> is there room now?  --yes--> the same payload on the other release
                                                      |                            equal | different | failed
                                                      +--no: dropped; nobody waits for room

Stored data is bounded: counts, the last durations of both sides, and a few examples.
"""

import math
from collections.abc import Sequence

import msgspec

from gen_orchestrator.domain import canary
from gen_orchestrator.domain.comparison import Difference, clipped

MAX_EXAMPLES = 10
MAX_EXAMPLE_DIFFERENCES = 5
MAX_ERROR_CHARACTERS = 500
WINDOW = 500  # latest durations of each side
SLOWER = 10  # limit for a shadow run: this many times the original run's seconds,
SPARE_S = 300.0  # plus this many, in which a model may be loaded


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """A release that gets copies of `percent` of a tag's runs. `against` is the release that the tag points at
    meanwhile. `runs`: it ends after this many comparisons, 0 for never. `ended_at` is 0 while it is active; `why` says
    what ended it. Times are unix seconds. `tally` is the JSON of a `Tally`.
    """

    owner: str
    endpoint: str
    function: str
    tag: str
    release_id: str
    against: str
    percent: float
    tolerance: float
    runs: int
    since: float
    ended_at: float = 0.0
    why: str = ""
    tally: bytes = b""

    @property
    def place(self) -> tuple[str, str, str, str]:
        return self.owner, self.endpoint, self.function, self.tag


class Example(msgspec.Struct, frozen=True):
    """A run whose shadow run had another result: why the shadow run failed, or where its output differs. Seconds from lease to end."""

    run_id: str
    error: str = ""
    differences: tuple[Difference, ...] = ()
    tag_s: float = 0.0
    release_s: float = 0.0


class Tally(msgspec.Struct):
    """The results of shadow runs. `tag_s` and `release_s` are the latest durations of the original runs and their
    shadow runs, in pairs. `by_digest`: images that could only be compared by their digests.
    """

    equal: int = 0
    different: int = 0
    failed: int = 0
    dropped: int = 0
    by_digest: int = 0
    tag_s: list[float] = []
    release_s: list[float] = []
    examples: list[Example] = []

    @property
    def compared(self) -> int:
        return self.equal + self.different + self.failed

    @property
    def passed(self) -> bool:
        """Whether there was a shadow run, and all of them had the same result."""
        return self.equal > 0 and not self.different and not self.failed

    def count(self, run_id: str, error: str, apart: Sequence[Difference], tag_s: float, release_s: float) -> None:
        """Add a finished shadow run. The first examples are kept, because they are from the time when a failing gate was noticed."""
        if error:
            self.failed += 1
        else:
            self.tag_s = [*self.tag_s, tag_s][-WINDOW:]
            self.release_s = [*self.release_s, release_s][-WINDOW:]
            if apart:
                self.different += 1
            else:
                self.equal += 1
        if (error or apart) and len(self.examples) < MAX_EXAMPLES:
            places = tuple(clipped(each) for each in apart[:MAX_EXAMPLE_DIFFERENCES])
            self.examples = [*self.examples, Example(run_id, error[:MAX_ERROR_CHARACTERS], places, tag_s, release_s)]


def takes_part(run_id: str, percent: float) -> bool:
    """Whether a run gets a shadow run. Independent of whether it goes to a canary."""
    return canary.takes_part(run_id, percent, b"shadow")


def limit_s(took_s: float, timeout_s: float) -> float:
    """Time limit in seconds for a shadow run whose original took `took_s`. `timeout_s`: the function's own limit, 0 for none."""
    generous_s = took_s * SLOWER + SPARE_S
    return min(timeout_s, generous_s) if timeout_s else generous_s


def percentile(seconds: Sequence[float], percent: float) -> float | None:
    """By nearest rank; None for an empty list."""
    if not seconds:
        return None
    return sorted(seconds)[max(0, math.ceil(len(seconds) * percent / 100) - 1)]
