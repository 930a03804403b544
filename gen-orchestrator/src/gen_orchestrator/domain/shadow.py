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
WINDOW = 500  # last durations of each side
SLOWER = 10  # a run on the other release may take so many times the seconds of the first,
SPARE_S = 300.0  # and so many more, in which a model may be loaded


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """A release that gets copies of `percent` of a tag's runs. `against` is the release at which the tag points meanwhile. `runs`: it ends
    after so many comparisons, 0 for no end. `ended_at` is 0 while it goes on; `why` says what ended it. Times are in seconds of Unix time.
    `tally` is the JSON of a `Tally`."""

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
    """A run of the tag whose copy gave something else: why the copy failed, or where its output differs. Seconds from lease to end."""

    run_id: str
    error: str = ""
    differences: tuple[Difference, ...] = ()
    tag_s: float = 0.0
    release_s: float = 0.0


class Tally(msgspec.Struct):
    """What came of the copies. `tag_s` and `release_s` are the last durations of the first runs and of their copies, in pairs.
    `by_digest`: images that could only be compared by their digests."""

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
        """Whether every copy gave the same, and there was one."""
        return self.equal > 0 and not self.different and not self.failed

    def count(self, run_id: str, error: str, apart: Sequence[Difference], tag_s: float, release_s: float) -> None:
        """Take in one copy that has ended. Of examples the first are kept: they are from the same time as the notice of a failing gate."""
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
    """Whether a run is copied. Independent of whether it goes to a canary."""
    return canary.takes_part(run_id, percent, b"shadow")


def limit_s(took_s: float, timeout_s: float) -> float:
    """How long a copy may take whose first run took `took_s`. `timeout_s`: the function's own limit, 0 for none."""
    generous_s = took_s * SLOWER + SPARE_S
    return min(timeout_s, generous_s) if timeout_s else generous_s


def percentile(seconds: Sequence[float], percent: float) -> float | None:
    """By nearest rank; None of nothing."""
    if not seconds:
        return None
    return sorted(seconds)[max(0, math.ceil(len(seconds) * percent / 100) - 1)]
