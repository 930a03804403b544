"""The demand for each release: waiting and running runs, idle time, and whether a worker is kept ready."""

from collections.abc import Sequence

import msgspec

from gen_orchestrator.domain.scaling import Demand, ScalingLimits
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.pool import Worker
from gen_worker.clock import Clock


class Demands:
    """For all releases. `gpus`: the number of devices that workers are spread over."""

    def __init__(self, clock: Clock, gpus: int) -> None:
        self._clock = clock
        self._gpus = gpus
        self._ready: set[str] = set()
        self._busy_s: dict[str, float] = {}  # when a run was last there
        self._slots: dict[str, int] = {}  # how many runs its workers took at once, as last seen

    def keep_ready(self, release_id: str) -> bool:
        """Keep one worker ready before the first run comes; False when that is already so."""
        if release_id in self._ready:
            return False
        self._ready.add(release_id)
        return self.wake(release_id)

    def wake(self, release_id: str) -> bool:
        """Treat the release as if it had a run now; False for a release that is not kept ready."""
        if release_id not in self._ready:
            return False
        self._busy_s[release_id] = self._clock.now_s()
        return True

    def let_go(self, release_id: str, limits: ScalingLimits | None, linger_s: float) -> None:
        """Stop keeping it ready. With `linger_s`, a release that was kept ready keeps its workers for that time even if no run comes."""
        if linger_s and limits is not None:
            if release_id in self._ready:
                self._busy_s[release_id] = self._clock.now_s() - max(0.0, limits.idle_s - linger_s)
        else:
            self._busy_s.pop(release_id, None)
        self._ready.discard(release_id)

    def limits_of(self, release_id: str, limits: ScalingLimits) -> ScalingLimits:
        """The author's limits, without a minimum for a release that no tag points at."""
        return limits if release_id in self._ready else msgspec.structs.replace(limits, min=0)

    def demand(self, release_id: str, limits: ScalingLimits, lanes: Sequence[Lane], workers: Sequence[Worker], have: int) -> Demand:
        """The current demand of a release. `workers` have joined; `have` counts those that may get runs, including
        those that are starting.
        """
        now_s = self._clock.now_s()
        queued, running = sum(len(lane.queue) for lane in lanes), sum(lane.running for lane in lanes)
        if queued or running:
            self._busy_s[release_id] = now_s
        if workers:
            self._slots[release_id] = max(worker.slots for worker in workers)
        quiet_s = now_s - self._busy_s.get(release_id, float("-inf"))
        first = 1 if release_id in self._ready and have == 0 and quiet_s < limits.idle_s else 0
        return Demand(
            queued=max(queued, first),
            running=running,
            workers=have,
            slots=self._slots.get(release_id, 1),
            quiet_s=quiet_s,
            tightest=max((_workers_for(lane, workers) for lane in lanes), default=0),
            apart=sum(1 for worker in workers if worker.kept_for),
            gpus=self._gpus,
        )


def _workers_for(lane: Lane, workers: Sequence[Worker]) -> int:
    """How many workers a function needs for its runs, according to the limit that workers have for it."""
    limit = max((worker.resources.function_concurrency.get(lane.function, 0) for worker in workers), default=0)
    return -(-(len(lane.queue) + lane.running) // limit) if limit else 0
