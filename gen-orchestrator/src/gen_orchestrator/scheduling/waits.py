"""What a queued run waits for, in words: for its caller, `cozyctl runs get --why`, and whoever is asked why nothing happens."""

from collections.abc import Callable

import msgspec

from gen_orchestrator.domain.losses import is_kept_apart
from gen_orchestrator.domain.routing import WAITS_ALONE, WAITS_FOR_HOT, Candidate, choose, choose_alone
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.pool import Pool, Worker
from gen_worker.clock import Clock

MAX_LAST_LINES = 2000


class Wait(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Stands as `routing` in a run that is queued. `reason` is for programs: `retry_later`, `no_worker`, `worker_crashed`, `busy`,
    `waits_for_hot`, `waits_alone`, `starting`. `last_lines`: what the release's last crashed worker wrote at its end."""

    reason: str
    detail: str
    queue_depth: int = 0
    last_lines: str = ""
    considered: tuple[Candidate, ...] = ()


class Waits:
    """Explains queued runs. `crash_of` gives the last lines of a release's workers while they crash at their start, else an empty text."""

    def __init__(self, pool: Pool, clock: Clock, crash_of: Callable[[str], str]) -> None:
        self._pool = pool
        self._clock = clock
        self._crash_of = crash_of

    def of(self, open_run: OpenRun) -> Wait | None:
        """Why this run is queued; None for one that is not."""
        lane, depth = open_run.lane, len(open_run.lane.queue)
        if open_run.phase is Phase.DELAYED:
            left_s = max(0.0, open_run.run.not_before - self._clock.unix_s())
            return Wait(reason="retry_later", detail=f"attempt {open_run.run.attempt} failed; it is tried again in {left_s:.1f} s")
        if open_run.phase is not Phase.WAITING:
            return None
        now_s = self._clock.now_s()
        present = self._pool.of_release(lane.release_id)
        fit = [worker for worker in present if worker.takes(lane.function, open_run.id)]
        pick = choose_alone if is_kept_apart(open_run.run) else choose
        choice = pick(lane.need(open_run.run.payload), [worker.view(now_s) for worker in fit])
        if fit:
            if choice.reason == WAITS_ALONE:
                lost = open_run.run.lost_workers
                detail = f"{lost} workers were lost while they ran this: it waits for one to itself, that no other run is lost with it"
                return Wait(reason=WAITS_ALONE, detail=detail, queue_depth=depth, considered=choice.considered)
            if choice.reason == WAITS_FOR_HOT:
                first = choice.considered[0]
                detail = (
                    f"worker {first.worker_id} has its models and is free in about {first.wait_s:.1f} s, sooner than another loads them"
                )
                return Wait(reason=WAITS_FOR_HOT, detail=detail, queue_depth=depth, considered=choice.considered)
            if choice.reason != "busy":
                return Wait(reason="starting", detail="a worker is free; the run is next", queue_depth=depth, considered=choice.considered)
        if any(worker.link is not None and not worker.draining for worker in present):
            detail = f"all {len(present)} workers of release {lane.release_id} are busy; {depth} runs of {lane.function} wait"
            return Wait(reason="busy", detail=detail, queue_depth=depth, considered=choice.considered)
        if lines := self._crash_of(lane.release_id):
            detail = f"release {lane.release_id} has no worker: the last one crashed, or could not be started; the last lines say more"
            return Wait(reason="worker_crashed", detail=detail, queue_depth=depth, last_lines=lines[-MAX_LAST_LINES:])
        return Wait(reason="no_worker", detail=_nobody(lane.release_id, present), queue_depth=depth)


def _nobody(release_id: str, present: list[Worker]) -> str:
    if not present:
        return f"release {release_id} has no worker; one is started where this platform can, see: cozyctl ps"
    states = ", ".join(f"{worker.worker_id} is {worker.state}" for worker in present[:5])
    return f"no worker of release {release_id} takes runs now: {states}"
