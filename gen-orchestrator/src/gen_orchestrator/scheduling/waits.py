"""Explains in words what a queued run waits for: for its caller and for `cozyctl runs get --why`."""

from collections.abc import Callable

import msgspec

from gen_orchestrator.domain.losses import is_kept_apart
from gen_orchestrator.domain.routing import WAITS_ALONE, WAITS_FOR_HOT, Candidate, choose, choose_alone
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.pool import Pool, Worker
from gen_worker.clock import Clock
from gen_worker.texts import counted

MAX_LAST_LINES = 2000
MAX_ERROR_CHARS = 300


class Wait(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The `routing` of a queued run. `reason` is for programs: `retry_later`, `no_worker`, `worker_crashed`, `busy`,
    `waits_for_hot`, `waits_alone`, `starting`. `retry_in_s`: when the next attempt begins, for `retry_later`.
    `last_lines`: the last output of the release's crashed worker.
    """

    reason: str
    detail: str
    retry_in_s: float = 0.0
    queue_depth: int = 0
    last_lines: str = ""
    considered: tuple[Candidate, ...] = ()


class Waits:
    """Explains queued runs. `crash_of` returns the last lines of a release's workers while they crash at their start,
    otherwise an empty text.
    """

    def __init__(self, pool: Pool, clock: Clock, crash_of: Callable[[str], str]) -> None:
        self._pool = pool
        self._clock = clock
        self._crash_of = crash_of

    def of(self, open_run: OpenRun) -> Wait | None:
        """Why this run is queued; None when it is not."""
        lane, depth = open_run.lane, len(open_run.lane.queue)
        if open_run.phase is Phase.DELAYED:
            return self._retry(open_run)
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
                losses = counted(lost, "worker was", "workers were")
                detail = f"{losses} lost while running this: it waits for a worker of its own, so that no other run is lost with it"
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
            busy = "the only worker is" if len(present) == 1 else f"all {len(present)} workers are"
            detail = f"{busy} busy; {counted(depth, 'run')} of {lane.function} (release {lane.release_id}) in the queue"
            return Wait(reason="busy", detail=detail, queue_depth=depth, considered=choice.considered)
        if lines := self._crash_of(lane.release_id):
            detail = f"release {lane.release_id} has no worker: the last one crashed, or could not be started; the last lines say more"
            return Wait(reason="worker_crashed", detail=detail, queue_depth=depth, last_lines=lines[-MAX_LAST_LINES:])
        return Wait(reason="no_worker", detail=_nobody(lane.release_id, present), queue_depth=depth)

    def _retry(self, open_run: OpenRun) -> Wait:
        run, error = open_run.run, open_run.failed_by
        # From the timer: `not_before` is wall-clock time, and the clock may have been set since.
        left_s = max(0.0, open_run.timer.when() - self._clock.now_s()) if open_run.timer is not None else 0.0
        after = f" ({error.code}: {error.message[:MAX_ERROR_CHARS]})" if error is not None else ""
        tries = run.executions - run.lost_workers  # lost workers do not count as tries of the run
        detail = f"attempt {tries} of {run.max_attempts} failed{after}; the next one begins in {left_s:.1f} s"
        return Wait(reason="retry_later", detail=detail, retry_in_s=round(left_s, 1))


def _nobody(release_id: str, present: list[Worker]) -> str:
    if not present:
        return f"release {release_id} has no worker; the platform starts one if it can, see: cozyctl ps"
    states = ", ".join(f"{worker.worker_id} is {worker.state}" for worker in present[:5])
    return f"no worker of release {release_id} takes runs now: {states}"
