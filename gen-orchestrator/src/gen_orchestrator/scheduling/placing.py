"""Decides which waiting runs of a lane go to which workers now: reads the pool, chooses (`domain/routing`), and keeps
workers free for isolated runs (`domain/losses`). The dispatcher then leases the chosen runs.

A run that waits for a particular worker is skipped, so that others need not wait behind it. If a run must be alone and
all workers are busy, the worker that will finish first is kept free for it; this happens with only one worker of a
release at a time, so that other runs continue.
"""

from collections.abc import Callable

import msgspec

from gen_orchestrator.domain.losses import is_kept_apart
from gen_orchestrator.domain.queue import Waiting
from gen_orchestrator.domain.routing import WAITS_ALONE, WAITS_FOR_HOT, Choice, Need, WorkerView, choose, choose_alone
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.lanes import Lanes
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.pool import Pool, Worker
from gen_orchestrator.scheduling.trace import Trace

MAX_PASSED_OVER = 32  # runs of a lane that wait for a particular worker while later ones are considered
Lease = Callable[[OpenRun, Worker, Choice, float], None]


class Placing:
    """One for each leader. `lease` is called for each choice, `starved` when a run finds no free worker."""

    def __init__(
        self, pool: Pool, lanes: Lanes, open_runs: dict[str, OpenRun], lease: Lease, starved: Callable[[], None], trace: Trace
    ) -> None:
        self._pool = pool
        self._lanes = lanes
        self._open = open_runs
        self._lease = lease
        self._starved = starved
        self._trace = trace

    def place(self, lane: Lane, now_s: float) -> None:
        """Give waiting runs of this lane to workers, as many as fit now."""
        for kept in self._pool.of_release(lane.release_id):
            if kept.kept_for and not kept.runs:
                self._give_what_it_was_kept_for(kept, lane, now_s)
        passed_over: list[Waiting] = []
        expected: dict[str, int] = {}
        while (item := lane.queue.peek(now_s)) is not None:
            open_run = self._open[item.run_id]
            need = lane.need(open_run.run.payload)
            choice, views = self._choose(open_run, need, expected, now_s)
            worker = self._pool.get(choice.worker_id) if choice.worker_id else None
            if worker is not None:
                self._lanes.take(open_run, item)
                self._trace.given(open_run, need, views, choice, now_s)
                self._give(open_run, worker, need, choice, now_s)
                continue
            if choice.reason in (WAITS_FOR_HOT, WAITS_ALONE) and len(passed_over) < MAX_PASSED_OVER:
                first = choice.considered[0].worker_id
                if choice.reason == WAITS_FOR_HOT:
                    expected[first] = expected.get(first, 0) + 1
                else:
                    self._keep_free(open_run, first)
                lane.queue.remove(item.run_id)
                passed_over.append(item)
                continue
            if choice.reason in ("no_worker", "busy") and not open_run.is_shadow:
                self._send_shadows_away(lane)
                self._starved()
            break
        for item in reversed(passed_over):
            lane.queue.push(item, front=True)

    def let_free(self, open_run: OpenRun) -> bool:
        """This run no longer waits for a worker; returns whether one was kept free for it."""
        found = False
        if is_kept_apart(open_run.run):
            for worker in self._pool.of_release(open_run.lane.release_id):
                if worker.kept_for == open_run.id and open_run.id not in worker.runs:
                    worker.kept_for = ""
                    found = True
        return found

    def _send_shadows_away(self, lane: Lane) -> None:
        for worker in self._pool.of_release(lane.release_id):
            for open_run in worker.runs.values():
                is_told = open_run.id in worker.memory.interrupted
                if open_run.is_shadow and open_run.is_sent and not is_told:  # one that does not stop is not worth killing its worker
                    worker.interrupt(open_run.id)

    def _choose(self, open_run: OpenRun, need: Need, expected: dict[str, int], now_s: float) -> tuple[Choice, list[WorkerView]]:
        lane = open_run.lane
        views = [worker.view(now_s) for worker in self._pool.of_release(lane.release_id) if worker.takes(lane.function, open_run.id)]
        if is_kept_apart(open_run.run):
            return choose_alone(need, views), views
        if expected:
            views = [msgspec.structs.replace(view, expected=expected.get(view.worker_id, 0)) for view in views]
        return choose(need, views), views

    def _give_what_it_was_kept_for(self, worker: Worker, lane: Lane, now_s: float) -> None:
        """The worker is free now: the run it was kept for goes first, wherever that run is in the queue."""
        open_run = self._open.get(worker.kept_for)
        if open_run is None or open_run.phase is not Phase.WAITING:
            worker.kept_for = ""
        elif open_run.lane is lane and worker.takes(lane.function, open_run.id):
            need = lane.need(open_run.run.payload)
            self._lanes.remove(open_run)
            views = [worker.view(now_s)]
            choice = choose_alone(need, views)
            self._trace.given(open_run, need, views, choice, now_s)
            self._give(open_run, worker, need, choice, now_s)

    def _give(self, open_run: OpenRun, worker: Worker, need: Need, choice: Choice, now_s: float) -> None:
        self.let_free(open_run)
        if need.models:
            model_s = next((found.model_s for found in choice.considered if found.worker_id == worker.worker_id), 0.0)
            worker.expect(need.models, model_s, now_s)
        self._lease(open_run, worker, choice, now_s)

    def _keep_free(self, open_run: OpenRun, worker_id: str) -> None:
        workers = self._pool.of_release(open_run.lane.release_id)
        worker = self._pool.get(worker_id)
        if worker is not None and not any(other.waits_for_its_run for other in workers):
            worker.kept_for = open_run.id
