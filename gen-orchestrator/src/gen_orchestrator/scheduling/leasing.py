"""Assigns runs to workers: gives a run to a worker, sends the command after the commit, and takes the run back.

    lease --put Lease--> LEASING --committed--> LEASED: the command is sent
                                 --the store has the run's end--> over
                                 --canceled meanwhile-----------> ENDING
                                 --the worker left meanwhile----> ENDING, and back to the queue

A run counts against its worker and its lane from `lease` or `adopt` to `detach`, whatever its result.
"""

from collections.abc import Callable

import msgspec

from gen_orchestrator.domain import runs
from gen_orchestrator.domain.retries import Again
from gen_orchestrator.domain.routing import Choice
from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.scheduling.metering import Meter
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.pool import Worker
from gen_orchestrator.scheduling.recorder import Recorder
from gen_orchestrator.store.ops import DONE, Lease, Result
from gen_orchestrator.store.writer import Writer
from gen_worker.clock import Clock

Files = Callable[[Run], tuple[str, str]]  # base URL and token of the file API for a run
_encode = msgspec.json.Encoder().encode


class Leasing:
    """One for each leader. `over` is called when the store already has the end of a run, `sent` when a run was sent to a worker."""

    def __init__(
        self,
        writer: Writer,
        recorder: Recorder,
        meter: Meter,
        clock: Clock,
        files: Files,
        over: Callable[[OpenRun, Run], None],
        sent: Callable[[OpenRun], None],
    ) -> None:
        self._writer = writer
        self._recorder = recorder
        self._meter = meter
        self._clock = clock
        self._files = files
        self._over = over
        self._sent = sent

    def lease(self, open_run: OpenRun, worker: Worker, choice: Choice, now_s: float) -> None:
        """Give a waiting run to the chosen worker."""
        open_run.set_timer(None)
        self._meter.given(open_run, worker, now_s)
        open_run.phase = Phase.LEASING
        self._attach(open_run, worker, now_s)
        routing = _encode({"reason": choice.reason, "considered": choice.considered})
        op = Lease(open_run.id, open_run.run.attempt + 1, worker.worker_id, self._clock.unix_s(), routing)
        if open_run.volatile:
            self._leased(open_run, worker, op, DONE)
        else:
            self._writer.put(op, lambda result: self._leased(open_run, worker, op, result))

    def adopt(self, open_run: OpenRun, worker: Worker) -> None:
        """A worker already has this run, from an earlier leader or an earlier stream."""
        now_s = self._clock.now_s()
        self._meter.adopted(open_run, now_s)
        self._attach(open_run, worker, now_s)
        worker.given += 1  # its runs before our leadership are unknown, so it does not count as fresh

    def detach(self, open_run: OpenRun) -> None:
        """Its worker no longer has it; does nothing when no worker has it."""
        worker = open_run.worker
        if worker is not None:
            self._meter.ended(open_run, worker)
            open_run.worker = None
            open_run.lane.running -= 1
            worker.release(open_run)
            if open_run.session is not None:
                open_run.session.detach()
        open_run.set_timer(None)

    def repeat(self, open_run: OpenRun) -> None:
        """Send the command of a run once more to its worker."""
        if open_run.phase is Phase.LEASED and open_run.worker is not None:
            self._send(open_run, open_run.worker)

    def _attach(self, open_run: OpenRun, worker: Worker, now_s: float) -> None:
        open_run.worker = worker
        open_run.expected_end_s = now_s + open_run.lane.run_s
        open_run.lane.running += 1
        worker.assign(open_run, now_s)

    def _leased(self, open_run: OpenRun, worker: Worker, op: Lease, result: Result) -> None:
        if open_run.phase is Phase.OVER:
            return  # it was never accepted
        there: Run | None = getattr(result, "run", None)
        if result is DONE:
            there = runs.lease(open_run.run, attempt=op.attempt, worker_id=op.worker_id, at=op.at, routing=op.routing)
        assert there is not None
        if there.is_final:
            self.detach(open_run)
            self._over(open_run, there)
            return
        open_run.run = there
        if there.state is not RunState.LEASED:  # a cancel came first
            self.detach(open_run)
            self._recorder.cancel(open_run)
            return
        gone = open_run.phase is Phase.ENDING or worker.link is None  # the worker was lost while this was being written
        open_run.phase = Phase.LEASED
        open_run.started = open_run.gapped = False
        open_run.stuck = open_run.metrics = b""
        if open_run.cancel_requested or gone or there.worker_id != worker.worker_id:
            self.detach(open_run)
            self._recorder.settle(open_run, Again(0.0, executed=False))
        else:
            self._send(open_run, worker)
            self._sent(open_run)

    def _send(self, open_run: OpenRun, worker: Worker) -> None:
        if worker.link is None:
            return
        if open_run.session is not None:
            worker.link.send(open_run.opening(*self._files(open_run.run)))
        else:
            worker.link.start(open_run.command(*self._files(open_run.run)))
