"""All lanes of a leader, and how many runs of each owner wait in them."""

from gen_orchestrator.domain.admission import Load, Refusal, refusal
from gen_orchestrator.domain.queue import Waiting
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.open_run import OpenRun


class Lanes:
    """Queues by release and function. Every run enters and leaves through here, so that the counts are correct."""

    def __init__(self) -> None:
        self._lanes: dict[str, dict[str, Lane]] = {}
        self._owned: dict[str, list[int]] = {}  # owner -> waiting runs and payload bytes

    def lane(self, release_id: str, function: str, settings: FunctionSettings) -> Lane:
        """The lane of a function of a release, created on first use."""
        of_release = self._lanes.setdefault(release_id, {})
        lane = of_release.get(function)
        if lane is None:
            lane = of_release[function] = Lane(release_id, function, settings)
        return lane

    def all(self) -> list[Lane]:
        return [lane for of_release in self._lanes.values() for lane in of_release.values()]

    def waiting_in(self, release_id: str, now_s: float) -> list[Lane]:
        """Lanes of a release with waiting runs; the one whose head has waited longest comes first."""
        lanes = self._lanes.get(release_id)
        if not lanes:
            return []
        heads = [(head.since_s, lane.function, lane) for lane in lanes.values() if (head := lane.queue.peek(now_s)) is not None]
        return [lane for _, _, lane in sorted(heads, key=lambda head: head[:2])]

    def refusal(self, lane: Lane, run: Run) -> Refusal | None:
        """Why one more run may not enter; None when it may."""
        count, size_bytes = self._owned.get(run.owner, (0, 0))
        start_timeout_s = run.expires_at - run.created_at if run.expires_at else 0.0
        load = Load(len(lane.queue), count, size_bytes, lane.ends_per_s, lane.settings.queue_max)
        return refusal(load, len(run.payload), start_timeout_s)

    def push(self, open_run: OpenRun, since_s: float, *, front: bool = False) -> None:
        """Add a waiting run."""
        run, lane = open_run.run, open_run.lane
        owned = self._owned.setdefault(run.owner, [0, 0])
        owned[0] += 1
        owned[1] += len(run.payload)
        lane.queue.push(Waiting(run.id, run.owner, run.priority, since_s, lane.run_s or 1.0), front=front)

    def take(self, open_run: OpenRun, item: Waiting) -> None:
        """It is this run's turn: remove it."""
        open_run.lane.queue.take(item)
        self._count_out(open_run.run)

    def remove(self, open_run: OpenRun) -> None:
        """It no longer waits."""
        if open_run.lane.queue.remove(open_run.id):
            self._count_out(open_run.run)

    def _count_out(self, run: Run) -> None:
        owned = self._owned[run.owner]
        owned[0] -= 1
        owned[1] -= len(run.payload)
        if owned[0] == 0:
            del self._owned[run.owner]
