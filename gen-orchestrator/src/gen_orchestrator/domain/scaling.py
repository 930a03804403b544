"""How many workers a release should have: from the waiting runs and the idle time, within the author's limits. Pure."""

import msgspec

DEFAULT_IDLE_S = 600.0
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0
STABLE_S = 30.0  # a worker that lived this long did not crash at its start


class ScalingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`[scaling]` of cozy.toml: the minimum, the maximum, and how long an idle worker is kept. Without `max`: one for
    each GPU, or one.
    """

    min: int = 0
    max: int | None = None
    idle_s: float = DEFAULT_IDLE_S

    def most(self, gpus: int) -> int:
        """The maximum on a machine with this many GPUs."""
        return self.max if self.max is not None else max(self.min, gpus, 1)


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """The current demand for a release. `slots`: runs that one worker takes at once; `quiet_s`: seconds since its last
    run.

    `tightest`: workers needed by the function with the most runs relative to what one worker takes of it. `apart`:
    workers that single runs occupy or wait for (see `losses`), so that other runs need not wait for their end.
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
    """The number of workers to have. It may grow by more than one at a time, because a burst may need many."""
    most = limits.most(demand.gpus)
    work = demand.queued + demand.running
    if work:
        others = max(0, work - demand.apart)
        enough = max(demand.apart - (-others // max(1, demand.slots)), demand.tightest)
        # Reduce only after a quiet period: a worker should not stop and start again between two runs of a caller.
        return max(limits.min, min(most, max(enough, demand.workers)))
    if demand.quiet_s < limits.idle_s:
        return max(limits.min, min(most, demand.workers))
    return limits.min


def backoff_s(crashes: int) -> float:
    """Seconds to wait before restarting a worker that ended at once, for the n-th time in a row."""
    return 0.0 if crashes == 0 else min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (min(crashes, 64) - 1))
