"""The leader's heart: looks at what waits and who is there, decides, sends, and records what comes of it.

Everything here happens on one event loop. What must not be lost goes through the `Writer`, and the next step of a run follows its
commit:

    submit ----put Accept----> WAITING ----put Lease----> LEASING ---committed: send---> LEASED
                                 ^                                                        |  result, loss, time-out
                                 |            put Requeue                                 v
                              DELAYED <------------------------------------------------ ENDING ---put Finish---> OVER

Accept and Lease of a run that finds a free worker travel in one transaction. The command leaves after the commit, so that attempt
numbers survive this process. A result is acknowledged to the worker after the commit of `Finish`. Callbacks of the writer come in the
order of `put`; each checks that the run is still where it was, because a cancel or a loss may have come between.

Who may move a run: its worker's result, while it is LEASED and that worker has it; a loss of that worker; a cancel; a timer. Whoever
comes first sets ENDING, and the others find that.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import msgspec

from gen_orchestrator.domain import retries, runs
from gen_orchestrator.domain.losses import Loss
from gen_orchestrator.domain.retries import Again, GiveUp
from gen_orchestrator.domain.routing import Choice
from gen_orchestrator.domain.runs import Ending, Run, RunState
from gen_orchestrator.scheduling import endings
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.heard import checked_result
from gen_orchestrator.scheduling.intake import AdmissionError, Intake, Submitted
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.lanes import Lanes
from gen_orchestrator.scheduling.metering import Meter
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.open_runs import OpenRuns
from gen_orchestrator.scheduling.overdue import Overdue
from gen_orchestrator.scheduling.placing import Placing
from gen_orchestrator.scheduling.pool import Pool, Worker
from gen_orchestrator.scheduling.recorder import Recorder
from gen_orchestrator.scheduling.run_events import RunEvents
from gen_orchestrator.scheduling.trace import Trace
from gen_orchestrator.store.base import EventChunk, StoreError
from gen_orchestrator.store.ops import DONE, Lease, RequestCancel, Result
from gen_orchestrator.store.writer import Writer
from gen_worker.clock import Clock
from gen_worker.log import Log
from gen_worker.wire.holds import Hold
from gen_worker.wire.messages import Event, RunResult

Files = Callable[[Run], tuple[str, str]]  # base URL and token of the file API for a run
_encode = msgspec.json.Encoder().encode


class Dispatcher:
    """Of one leader. `files` says where a run saves its files. `on_over` hears of each run that has ended, and `on_starved` that a run
    found no free worker; `on_delivery` is told when a webhook delivery has come into the store."""

    def __init__(
        self,
        writer: Writer,
        pool: Pool,
        clock: Clock,
        random: Random,
        log: Log,
        files: Files,
        fitness: Fitness,
        *,
        on_over: Callable[[OpenRun], None] = lambda open_run: None,
        on_starved: Callable[[], None] = lambda: None,
        on_delivery: Callable[[], None] = lambda: None,
        trace: Trace | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.open = OpenRuns()
        self._writer = writer
        self._intake = Intake(writer, self)
        self._recorder = Recorder(writer, self._over, self._back, on_delivery, self.open.forget)
        self._events = RunEvents(self._recorder, clock)
        self._overdue = Overdue(self._recorder, fitness, clock, log, self._detach, self.pump)
        self._pool = pool
        self._clock = clock
        self._meter = meter or Meter(clock)
        self._random = random
        self._log = log
        self._files = files
        self._fitness = fitness
        self._loop = asyncio.get_running_loop()
        self.lanes = Lanes()
        self._on_over = on_over
        self.trace = trace or Trace()
        self._placing = Placing(pool, self.lanes, self.open, self._lease, on_starved, self.trace)

    # ---- callers

    def let_go(self) -> None:
        """This program ends: callers who wait are answered with their runs as they are, and find them again after the next start."""
        for open_run in self.open.values():
            open_run.let_go()

    async def submit(self, run: Run, lane: Lane, *, volatile: bool = False) -> Submitted:
        """Accept a run: returns after the commit. The same idempotency key or id gives the run that is there already.

        A `volatile` run is not written before it is over: somebody waits for it, who knows that a crash loses it.

        `AdmissionError` when too much waits, `StoreError` when it cannot be written.
        """
        there = self.open.same_as(run)
        if there is not None:
            if there.accepted is not None:  # its commit is under way: nobody may be told of the run before
                first = await asyncio.shield(there.accepted)
                return Submitted(first.open, first.run, False)
            return Submitted(there, there.run, False)
        if refused := self.lanes.refusal(lane, run):
            raise AdmissionError(refused)
        open_run = OpenRun(run, lane)
        if volatile:
            open_run.volatile = True
            self._enter(open_run)
            self.pump(lane)
            return Submitted(open_run, run, True)
        accepted: asyncio.Future[Submitted] = self._loop.create_future()
        open_run.accepted = accepted
        self._intake.accept(open_run, accepted)
        self._enter(open_run)
        self.pump(lane)
        return await asyncio.shield(accepted)

    def shadow(self, run: Run, lane: Lane) -> OpenRun | None:
        """Run this for nobody, if a worker is free now that no other run waits for; None where none is.

        It is never written, so that a restart forgets it, and no list of runs has it. It is tried once, and gives way to every run that
        finds no free worker: then it ends as canceled, as it does where its worker goes for reasons of ours.
        """
        if len(lane.queue) or not self._pool.has_room(lane.release_id, lane.function):
            return None
        open_run = OpenRun(run, lane)
        open_run.volatile = open_run.is_shadow = True
        self._enter(open_run)
        self.pump(lane)
        if open_run.phase is Phase.WAITING:
            self.withdraw(open_run)
            return None
        return open_run

    async def keep(self, open_run: OpenRun) -> None:
        """Nobody waits for this volatile run any more: write it as it stands. Returns after the commit, or raises `StoreError`."""
        if open_run.volatile and open_run.phase is not Phase.OVER:
            written: asyncio.Future[None] = self._loop.create_future()
            self._recorder.keep(open_run, written)
            await written

    async def cancel(self, run_id: str) -> OpenRun | None:
        """Note that the caller does not want this run any more; None when it is over or unknown. Returns after the commit."""
        open_run = self.open.get(run_id)
        if open_run is None or open_run.phase is Phase.OVER:
            return None
        if open_run.phase in (Phase.WAITING, Phase.DELAYED):
            kept_free = self._placing.let_free(open_run)
            self._leave(open_run)
            self._recorder.finish(open_run, endings.canceled(self._clock.unix_s()))
            if kept_free:
                self.pump_release(open_run.lane.release_id)
            return open_run
        if not open_run.cancel_requested:
            recorded: asyncio.Future[None] = self._loop.create_future()

            def written(result: Result) -> None:
                if result is DONE:
                    open_run.cancel_requested = True
                    open_run.run = runs.request_cancel(open_run.run) or open_run.run
                    self._overdue.interrupt(open_run)
                if not recorded.done():
                    recorded.set_result(None)

            def trouble(exc: StoreError) -> None:
                if not recorded.done():
                    recorded.set_exception(exc)

            if open_run.volatile:
                written(DONE)
            else:
                self._writer.put(RequestCancel(run_id), written, trouble)
            await recorded
        return open_run

    def restore(self, run: Run, lane: Lane, events: Sequence[EventChunk] = ()) -> OpenRun:
        """A run that an earlier leader accepted, and the events of it that the store has."""
        open_run = OpenRun(run, lane)
        self._enter(open_run, queued=run.state is RunState.QUEUED)
        if run.state is RunState.LEASED:
            open_run.phase = Phase.LEASED
        open_run.feed.resume(run.attempt, events)
        return open_run

    def take_over(self, there: Run, lane: Lane) -> OpenRun:
        """The store has an open run that this leader does not know: written when the write seemed to fail. Nobody was given it."""
        open_run = self.restore(there, lane)
        if there.state is RunState.LEASED:
            self._after(open_run, Again(0.0, executed=False))
        return open_run

    def worker_lost(self, worker: Worker, *, ours: bool) -> None:
        """A worker is gone, as far as anybody can know; `ours`: by our own doing. Its runs go on elsewhere (`domain/losses`)."""
        loss = Loss.OURS if ours else worker.loss()  # of all of them, before the first goes
        for open_run in list(worker.runs.values()):
            self.lost(open_run, worker.worker_id, loss)

    def lost(self, open_run: OpenRun, worker_id: str, loss: Loss) -> None:
        """The worker of a run is gone."""
        if open_run.phase not in (Phase.LEASED, Phase.LEASING):
            return
        self._detach(open_run)
        self._log.warning("run.worker_lost", run_id=open_run.id, worker_id=worker_id, attempt=open_run.run.attempt, why=loss.value)
        if open_run.phase is Phase.LEASING:
            open_run.phase = Phase.ENDING  # its lease is on its way to the store; the callback sees to it
            return
        self._after(open_run, retries.after_loss(open_run.run, worker_id, loss))

    def dropped(self, open_run: OpenRun) -> None:
        """The worker is there, and has not had this run for as long as a lease: its command was lost."""
        if open_run.phase is Phase.LEASED:
            self._log.warning("run.command_lost", run_id=open_run.id, worker_id=open_run.run.worker_id)
            self._detach(open_run)
            self._after(open_run, Again(0.0, executed=False))

    # ---- workers

    def on_event(self, worker: Worker, event: Event, hold: Hold) -> None:
        """Something that a run says."""
        open_run = worker.runs.get(event.run_id)
        if open_run is not None:
            self._events.take(open_run, event, worker.instance_id, hold)

    def on_result(self, worker: Worker, result: RunResult, hold: Hold) -> None:
        """A worker's one result of a run. What nobody waits for, a result of an earlier attempt, is dropped."""
        open_run = worker.runs.get(result.run_id)
        if open_run is None or open_run.phase is not Phase.LEASED or result.attempt not in (0, open_run.run.attempt):
            worker.zombies.discard(result.run_id)
            self._log.info("run.stale_result", run_id=result.run_id, worker_id=worker.worker_id)
            return
        result = checked_result(result)
        lane = open_run.lane
        now_s = self._clock.now_s()
        lane.ended(now_s - open_run.began_s, now_s)
        self.trace.ended(open_run, now_s, succeeded=result.success)
        self._detach(open_run)
        self._fitness.ended(worker.worker_id, lane.release_id, "" if result.success else result.error_type)
        at = self._clock.unix_s()
        if open_run.gapped:
            open_run.gapped = False
            self._after(open_run, Again(0.0, executed=False), hold)
        elif result.success:
            self._recorder.finish(open_run, Ending(state=RunState.SUCCEEDED, at=at, output=result.output, metrics=open_run.metrics), hold)
        elif open_run.cancel_requested or result.error_type == "canceled":
            self._recorder.finish(open_run, endings.canceled(at), hold)
        else:
            self._after(open_run, retries.after_failure(open_run.run, endings.error_of(result), self._random), hold)
        self.pump_release(lane.release_id)  # its place is free for any function that the worker has

    def repeat(self, open_run: OpenRun) -> None:
        """Send the command of a run once more to the worker that has it, or had it."""
        if open_run.phase is Phase.LEASED and open_run.worker is not None and open_run.worker.link is not None:
            open_run.worker.link.start(open_run.command(*self._files(open_run.run)))

    def adopt(self, worker: Worker, open_run: OpenRun) -> None:
        """A worker that registered has this run already, from an earlier leader or an earlier stream."""
        now_s = self._clock.now_s()
        open_run.worker = worker
        self._meter.adopted(open_run, now_s)
        open_run.expected_end_s = now_s + open_run.lane.run_s
        open_run.lane.running += 1
        worker.assign(open_run, now_s)
        worker.given += 1  # what else it ran before we led is not known: it does not count as fresh
        self._overdue.watch(open_run)
        if open_run.cancel_requested:
            self._overdue.interrupt(open_run)

    # ---- decisions

    def pump(self, *lanes: Lane) -> None:
        """Give waiting runs to workers, as many as fit now; of all lanes where none is named."""
        now_s = self._clock.now_s()
        for lane in lanes or self.lanes.all():
            if lane.release_id in self._fitness.paused:
                continue
            self._placing.place(lane, now_s)

    def pump_release(self, release_id: str) -> None:
        """The same for all functions of a release, the one whose head has waited longest first."""
        if lanes := self.lanes.waiting_in(release_id, self._clock.now_s()):
            self.pump(*lanes)

    # ---- steps of one run

    def _enter(self, open_run: OpenRun, *, queued: bool = True) -> None:
        self.open.enter(open_run)
        if queued:
            self._queue(open_run)

    def _queue(self, open_run: OpenRun, *, front: bool = False) -> None:
        run, now_s = open_run.run, self._clock.now_s()
        left_s = run.not_before - self._clock.unix_s()
        if left_s > 0:
            open_run.phase = Phase.DELAYED
            open_run.set_timer(self._loop.call_later(left_s, self._due, open_run))
            return
        open_run.phase, open_run.waits_since_s = Phase.WAITING, now_s
        self.lanes.push(open_run, now_s - max(0.0, self._clock.unix_s() - run.created_at), front=front)
        if run.expires_at and not run.executions:
            open_run.set_timer(self._loop.call_later(max(0.0, run.expires_at - self._clock.unix_s()), self._expire, open_run))

    def _due(self, open_run: OpenRun) -> None:
        if open_run.phase is Phase.DELAYED:
            open_run.set_timer(None)
            self._queue(open_run, front=True)
            self.pump(open_run.lane)

    def _expire(self, open_run: OpenRun) -> None:
        if open_run.phase is not Phase.WAITING:
            return
        self._leave(open_run)
        waited_s = self._clock.unix_s() - open_run.run.created_at
        self._recorder.finish(open_run, endings.expired(waited_s, self._clock.unix_s()))

    def _leave(self, open_run: OpenRun) -> None:
        self.lanes.remove(open_run)
        open_run.set_timer(None)

    def _back(self, open_run: OpenRun) -> None:
        open_run.feed.status_changed()
        if open_run.cancel_requested:
            self._recorder.finish(open_run, endings.canceled(self._clock.unix_s()))
            return
        self._queue(open_run, front=True)
        self.pump(open_run.lane)

    def _lease(self, open_run: OpenRun, worker: Worker, choice: Choice, now_s: float) -> None:
        open_run.set_timer(None)
        self._meter.given(open_run, worker, now_s)
        open_run.phase = Phase.LEASING
        open_run.worker = worker
        open_run.expected_end_s = now_s + open_run.lane.run_s
        open_run.lane.running += 1
        worker.assign(open_run, now_s)
        routing = _encode({"reason": choice.reason, "considered": choice.considered})
        op = Lease(open_run.id, open_run.run.attempt + 1, worker.worker_id, self._clock.unix_s(), routing)
        if open_run.volatile:
            self._leased(open_run, worker, op, DONE)
        else:
            self._writer.put(op, lambda result: self._leased(open_run, worker, op, result))

    def withdraw(self, open_run: OpenRun) -> None:
        """It is none of ours."""
        if open_run.phase is Phase.WAITING:
            self._leave(open_run)
        else:
            self._detach(open_run)
        self.open.forget(open_run)
        open_run.phase = Phase.OVER

    def _leased(self, open_run: OpenRun, worker: Worker, op: Lease, result: Result) -> None:
        if open_run.phase is Phase.OVER:
            return  # it was never accepted
        there: Run | None = getattr(result, "run", None)
        if result is DONE:
            there = runs.lease(open_run.run, attempt=op.attempt, worker_id=op.worker_id, at=op.at, routing=op.routing)
        assert there is not None
        if there.is_final:
            self._detach(open_run)
            self._over(open_run, there)
            return
        open_run.run = there
        if there.state is not RunState.LEASED:  # a cancel was first
            self._detach(open_run)
            self._recorder.finish(open_run, endings.canceled(self._clock.unix_s()))
            return
        gone = open_run.phase is Phase.ENDING or worker.link is None  # the worker was lost while this was being written
        open_run.phase = Phase.LEASED
        open_run.started = open_run.gapped = False
        open_run.stuck = open_run.metrics = b""
        if open_run.cancel_requested or gone or there.worker_id != worker.worker_id:
            self._detach(open_run)
            self._after(open_run, Again(0.0, executed=False))
        else:
            assert worker.link is not None
            worker.link.start(open_run.command(*self._files(there)))
            self._overdue.watch(open_run)

    def _after(self, open_run: OpenRun, what: Again | GiveUp, hold: Hold | None = None) -> None:
        at = self._clock.unix_s()
        if open_run.cancel_requested:
            self._recorder.finish(open_run, endings.canceled(at), hold)
        elif open_run.is_shadow and isinstance(what, Again):  # it is tried once; a worker that we ended is none of its doing
            self._recorder.finish(open_run, endings.worker_lost(at) if what.lost and what.suspicion else endings.canceled(at), hold)
        elif isinstance(what, GiveUp):
            self._recorder.finish(open_run, Ending(state=RunState.FAILED, at=at, error=what.error, metrics=open_run.metrics), hold)
        else:
            self._recorder.requeue(open_run, what, at + what.delay_s if what.delay_s else 0.0, hold)

    def _over(self, open_run: OpenRun, run: Run) -> None:
        if open_run.volatile:  # such a run is found here until it is written
            self.open.ended(run)
        else:
            self.open.forget(open_run)
        open_run.end(run)
        self._on_over(open_run)

    def _detach(self, open_run: OpenRun) -> None:
        worker = open_run.worker
        if worker is not None:
            self._meter.ended(open_run, worker)
            open_run.worker = None
            open_run.lane.running -= 1
            worker.release(open_run)
        open_run.set_timer(None)
