"""How many workers a release should have: from the waiting runs and the idle time, within the author's limits. Pure."""

import msgspec

DEFAULT_IDLE_S = 600.0
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0
STABLE_S = 30.0  # a worker that lived so long has not crashed at its start


class ScalingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`[scaling]` of cozy.toml: at least, at most, and how long an idle worker is kept. Without `max`: one a GPU, or one."""

    min: int = 0
    max: int | None = None
    idle_s: float = DEFAULT_IDLE_S

    def most(self, gpus: int) -> int:
        """The upper bound on a machine with so many GPUs."""
        return self.max if self.max is not None else max(self.min, gpus, 1)


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """A release now. `slots`: runs that one worker takes at once; `quiet_s`: for how long no run has been there.

    `tightest`: how many workers the function needs that has the most runs for what one worker takes of it. `apart`: workers that a run has,
    or waits for, to itself (see `losses`); others need not wait until it ends.
    """

    queued: int
    running: int
    workers: int
    slots: int
    quiet_s: float
    tightest: int = 0
    apart: int = 0
    gpus: int = 0


def wanted_workers(demand: Demand, limits: ScalingLimits) -> int:
    """The number of workers to have. One more at a time is no rule here: a burst may ask for many."""
    most = limits.most(demand.gpus)
    work = demand.queued + demand.running
    if work:
        others = max(0, work - demand.apart)
        enough = max(demand.apart - (-others // max(1, demand.slots)), demand.tightest)
        # Fewer only once it is quiet: between two runs of a caller a worker should not go and come back.
        return max(limits.min, min(most, max(enough, demand.workers)))
    if demand.quiet_s < limits.idle_s:
        return max(limits.min, min(most, demand.workers))
    return limits.min


def backoff_s(crashes: int) -> float:
    """How long to wait before a worker is started again that ended at once, for the n-th time in a row."""
    return 0.0 if crashes == 0 else min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (min(crashes, 64) - 1))
