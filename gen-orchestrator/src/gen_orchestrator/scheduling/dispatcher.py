"""The heart of the leader: looks at the waiting runs and the available workers, decides which run goes where, sends the
commands, and records the results.

Everything here happens on one event loop. Changes that must not be lost go through the `Writer`, and the next step of a
run follows its commit:

    submit ----put Accept----> WAITING ----put Lease----> LEASING ---committed: send---> LEASED
                                 ^                                                        |  result, loss, time-out
                                 |            put Requeue                                 v
                              DELAYED <------------------------------------------------ ENDING ---put Finish---> OVER

If a run finds a free worker, its Accept and Lease share one transaction. The command is sent after the commit, so that
attempt numbers survive this process. A result is acknowledged to the worker after the commit of `Finish`. The writer's
callbacks come in the order of `put`. Each checks that the run is still in the expected state, because a cancel or a
loss may have come between.

A run is moved by the result of its worker (while it is LEASED and that worker has it), by a loss of that worker, by a
cancel, or by a timer. The first of these sets ENDING, and the others then see that.

The steps are separate modules: `intake` accepts, `waiting_runs` has WAITING and DELAYED, `placing` chooses, `leasing`
leases, `overdue` has the timers of LEASED, `recorder` writes the results of ENDING.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from random import Random

from gen_orchestrator.domain import retries, runs
from gen_orchestrator.domain.losses import Loss
from gen_orchestrator.domain.retries import Again
from gen_orchestrator.domain.runs import Ending, Run, RunState
from gen_orchestrator.scheduling import endings
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.heard import checked_result
from gen_orchestrator.scheduling.intake import Acceptance, AdmissionError, Intake, ReleaseGoneError, Submitted
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.lanes import Lanes
from gen_orchestrator.scheduling.leasing import Files, Leasing
from gen_orchestrator.scheduling.metering import Meter
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.open_runs import OpenRuns
from gen_orchestrator.scheduling.overdue import Overdue
from gen_orchestrator.scheduling.placing import Placing
from gen_orchestrator.scheduling.pool import Pool, Worker
from gen_orchestrator.scheduling.recorder import Recorder
from gen_orchestrator.scheduling.run_events import RunEvents
from gen_orchestrator.scheduling.sessions import Sessions
from gen_orchestrator.scheduling.trace import Trace
from gen_orchestrator.scheduling.waiting_runs import WaitingRuns
from gen_orchestrator.store.base import EventChunk, StoreError
from gen_orchestrator.store.ops import DONE, RequestCancel, Result
from gen_orchestrator.store.writer import Writer
from gen_worker.clock import Clock, SteadyCalendar
from gen_worker.log import Log
from gen_worker.wire.holds import Hold
from gen_worker.wire.messages import CloseRealtime, Event, RunResult


class Dispatcher:
    """One for each leader. `files` says where a run saves its files. `on_over` is called for each ended run,
    `on_starved` when a run found no free worker, `on_delivery` when a webhook delivery was stored. `gone`: releases
    that get no more runs. `calendar` is the clock for deliveries. `event_bytes`: of the events of one run; 0: no limit.
    """

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
        gone: Collection[str] = frozenset(),
        calendar: SteadyCalendar | None = None,
        event_bytes: int = 0,
    ) -> None:
        self._gone = gone
        self.open = OpenRuns()
        self._writer = writer
        self._intake = Intake(writer, self)
        self.lanes = Lanes()
        self._recorder = Recorder(writer, clock, calendar or SteadyCalendar(clock), self._over, self._back, on_delivery, self.open.forget)
        self._events = RunEvents(self._recorder, clock, event_bytes, lambda open_run: self._flooded(open_run, event_bytes))
        self._waiting = WaitingRuns(self.lanes, self._recorder, clock, self.pump)
        self._leasing = Leasing(writer, self._recorder, meter or Meter(clock), clock, files, self._over, self._watch)
        self._overdue = Overdue(self._recorder, fitness, clock, log, self._leasing.detach, self.pump)
        self.sessions = Sessions(self._recorder, self._overdue, clock, log, self._cancel_waiting, self._leasing.detach)
        self._pool = pool
        self._clock = clock
        self._random = random
        self._log = log
        self._fitness = fitness
        self._on_over = on_over
        self.trace = trace or Trace()
        self._placing = Placing(pool, self.lanes, self.open, self._leasing.lease, on_starved, self.trace)

    # ---- called for callers

    def let_go(self) -> None:
        """This program ends: waiting callers get their runs as they are, and find them again after the next start."""
        for open_run in self.open.values():
            open_run.let_go()

    async def submit(self, run: Run, lane: Lane, *, volatile: bool = False) -> Submitted:
        """Accept a run; returns after the commit. The same idempotency key or id returns the existing run.

        A `volatile` run is not stored before it is over: its caller waits for it, and knows that a crash loses it.

        `AdmissionError` when too much is waiting, `ReleaseGoneError` when its release is deleted, `StoreError` when it
        cannot be stored.
        """
        there = self.open.same_as(run)
        if there is not None:
            if there.accepted is not None:  # its commit is in progress: nobody may be told about the run before
                first = await there.accepted.wait()
                return Submitted(first.open, first.run, False)
            return Submitted(there, there.run, False)
        if run.release_id in self._gone:
            raise ReleaseGoneError(f"release {run.release_id} was deleted")
        if refused := self.lanes.refusal(lane, run):
            raise AdmissionError(refused)
        self._intake.check()
        open_run = OpenRun(run, lane)
        if volatile:
            open_run.volatile = True
            self._enter(open_run)
            self.pump(lane)
            return Submitted(open_run, run, True)
        accepted = open_run.accepted = Acceptance()
        answer = accepted.wait()
        self._intake.accept(open_run, accepted)
        self._enter(open_run)
        self.pump(lane)
        return await answer

    def shadow(self, run: Run, lane: Lane) -> OpenRun | None:
        """Start a shadow run if a worker is free now that no other run waits for; None when there is none.

        It is never stored, so a restart forgets it, and no list of runs contains it. It is tried once, and gives way to
        every run that finds no free worker: then it ends as canceled. It also ends as canceled when its worker is ended
        by us.
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
        """Nobody waits for this volatile run any more: store it as it is. Returns after the commit, or raises `StoreError`."""
        if open_run.volatile and open_run.phase is not Phase.OVER:
            written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._recorder.keep(open_run, written)
            await written

    async def cancel(self, run_id: str) -> OpenRun | None:
        """Record that the caller no longer wants this run; None when it is over or unknown. Returns after the commit."""
        open_run = self.open.get(run_id)
        if open_run is None or open_run.phase is Phase.OVER:
            return None
        if open_run.phase in (Phase.WAITING, Phase.DELAYED):
            self._cancel_waiting(open_run)
            return open_run
        if not open_run.cancel_requested:
            recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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
                self._overdue.interrupt(open_run)  # at once: a slow store must not keep a worker busy with a cancelled run
                self._writer.put(RequestCancel(run_id), written, trouble)
            await recorded
        return open_run

    def _cancel_waiting(self, open_run: OpenRun) -> None:
        kept_free = self._placing.let_free(open_run)
        self._waiting.take_out(open_run)
        self._recorder.cancel(open_run)
        if kept_free:
            self.pump_release(open_run.lane.release_id)

    def restore(self, run: Run, lane: Lane, events: Sequence[EventChunk] = ()) -> OpenRun:
        """Take up a run that an earlier leader accepted, with its stored events."""
        open_run = OpenRun(run, lane)
        if open_run.session is not None:  # its client was connected to that leader
            self._enter(open_run, queued=False)
            self._recorder.finish(open_run, endings.session_lost(self._clock.unix_s()))
            return open_run
        self._enter(open_run, queued=run.state is RunState.QUEUED)
        if run.state is RunState.LEASED:
            open_run.phase = Phase.LEASED
        open_run.feed.resume(run.attempt, events)
        return open_run

    def take_over(self, there: Run, lane: Lane) -> OpenRun:
        """The store has an open run that this leader does not know: its write had seemed to fail. No worker was given it."""
        open_run = self.restore(there, lane)
        if there.state is RunState.LEASED and open_run.session is None:
            self._recorder.settle(open_run, Again(0.0, executed=False))
        return open_run

    def worker_lost(self, worker: Worker, *, ours: bool) -> None:
        """A worker is gone, as far as we can know; `ours`: because of us. Its runs continue elsewhere (`domain/losses`)."""
        loss = Loss.OURS if ours else worker.loss()  # for all of them, before the first is removed
        for open_run in list(worker.runs.values()):
            self.lost(open_run, worker.worker_id, loss)

    def lost(self, open_run: OpenRun, worker_id: str, loss: Loss) -> None:
        """The worker of a run is gone."""
        if open_run.phase not in (Phase.LEASED, Phase.LEASING):
            return
        self._leasing.detach(open_run)
        self._log.warning("run.worker_lost", run_id=open_run.id, worker_id=worker_id, attempt=open_run.run.attempt, why=loss.value)
        if open_run.phase is Phase.LEASING:
            open_run.phase = Phase.ENDING  # its lease is being written to the store; the callback handles it
            return
        self._recorder.settle(open_run, retries.after_loss(open_run.run, worker_id, loss))

    def dropped(self, open_run: OpenRun) -> None:
        """The worker is connected, but has not had this run for the time of a lease: its command was lost."""
        if open_run.phase is Phase.LEASED:
            self._log.warning("run.command_lost", run_id=open_run.id, worker_id=open_run.run.worker_id)
            self._leasing.detach(open_run)
            self._recorder.settle(open_run, Again(0.0, executed=False))

    # ---- called for workers

    def on_event(self, worker: Worker, event: Event, hold: Hold) -> None:
        """A run reported something."""
        open_run = worker.runs.get(event.run_id)
        if open_run is not None:
            self._events.take(open_run, event, worker.instance_id, hold)

    def _flooded(self, open_run: OpenRun, most_bytes: int) -> None:
        if open_run.ends_as is None:
            self._log.warning("run.flooded", run_id=open_run.id, bytes=open_run.feed.heard_bytes)
            self._overdue.end(open_run, endings.flooded(most_bytes, self._clock.unix_s()))

    def on_result(self, worker: Worker, result: RunResult, hold: Hold) -> None:
        """A worker's one result of a run. A result that nobody waits for, such as one of an earlier attempt, is dropped."""
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
        self._leasing.detach(open_run)
        self._fitness.ended(worker.worker_id, lane.release_id, "" if result.success else result.error_type)
        at = self._clock.unix_s()
        if open_run.ends_as is not None:
            self._recorder.finish(open_run, open_run.ends_as, hold)
        elif open_run.gapped:
            open_run.gapped = False
            self._recorder.settle(open_run, Again(0.0, executed=False), hold)
        elif result.success:
            self._recorder.finish(open_run, Ending(state=RunState.SUCCEEDED, at=at, output=result.output, metrics=open_run.metrics), hold)
        elif open_run.cancel_requested or result.error_type == "canceled":
            self._recorder.cancel(open_run, hold)
        else:
            self._recorder.settle(open_run, retries.after_failure(open_run.run, endings.error_of(result), self._random), hold)
        self.pump_release(lane.release_id)  # its slot is free for any function of the worker

    def on_session_end(self, worker: Worker, message: CloseRealtime, hold: Hold) -> None:
        """A worker's last message about a realtime session: the result of its run."""
        self.on_result(worker, self.sessions.result_of(worker, message), hold)

    def adopt(self, worker: Worker, open_run: OpenRun) -> None:
        """A worker that registered already has this run, from an earlier leader or an earlier stream."""
        self._leasing.adopt(open_run, worker)
        self._overdue.watch(open_run)
        if open_run.cancel_requested:
            self._overdue.interrupt(open_run)

    def repeat(self, open_run: OpenRun) -> None:
        """Send the command of a run once more to its worker."""
        self._leasing.repeat(open_run)

    # ---- decisions

    def pump(self, *lanes: Lane) -> None:
        """Give waiting runs to workers, as many as fit now; of these lanes, or of all if none is named."""
        now_s = self._clock.now_s()
        for lane in lanes or self.lanes.all():
            if lane.release_id in self._fitness.paused:
                continue
            self._placing.place(lane, now_s)

    def pump_release(self, release_id: str) -> None:
        """The same for all functions of a release; the one whose head has waited longest comes first."""
        if lanes := self.lanes.waiting_in(release_id, self._clock.now_s()):
            self.pump(*lanes)

    # ---- steps of one run

    def _enter(self, open_run: OpenRun, *, queued: bool = True) -> None:
        self.open.enter(open_run)
        self._waiting.see(open_run)
        if queued:
            self._waiting.put(open_run)

    def _back(self, open_run: OpenRun) -> None:
        open_run.feed.status_changed()
        if open_run.cancel_requested:
            self._recorder.cancel(open_run)
            return
        self._waiting.put(open_run, front=True)
        self.pump(open_run.lane)

    def withdraw(self, open_run: OpenRun) -> None:
        """The run was not accepted: forget it."""
        if open_run.phase is Phase.WAITING:
            self._waiting.take_out(open_run)
        else:
            self._leasing.detach(open_run)
        self.open.forget(open_run)
        open_run.phase = Phase.OVER

    def _watch(self, open_run: OpenRun) -> None:
        self._overdue.watch(open_run)
        self.sessions.begin(open_run)

    def _over(self, open_run: OpenRun, run: Run) -> None:
        if open_run.volatile:  # until it is stored, such a run is found here
            self.open.ended(run)
        else:
            self.open.forget(open_run)
        open_run.end(run)
        self.sessions.over(open_run, run)
        self._on_over(open_run)
