"""Writes final states, requeues and events of runs, in order.

The end of a run is never dropped: the writer keeps it in line until the store has it. Only a deposed leader stops: its
successor decides. A worker's message is acknowledged (`Hold`) when it is written.

A batch that seemed to fail may have been written. So a refused operation is no error: the state in the store is
adopted, whoever wrote it.
"""

import asyncio
from collections.abc import Callable

import msgspec

from gen_orchestrator.domain import runs
from gen_orchestrator.domain.retries import Again, GiveUp
from gen_orchestrator.domain.runs import Ending, Run, RunState
from gen_orchestrator.domain.webhooks import ENDED, STARTED, delivery_at
from gen_orchestrator.scheduling import endings
from gen_orchestrator.scheduling.feed import encode_entries
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.store.base import StoreError
from gen_orchestrator.store.ops import DONE, Accept, AddDelivery, AppendEvents, Finish, Requeue, Result
from gen_orchestrator.store.writer import Writer
from gen_worker.clock import Clock, SteadyCalendar
from gen_worker.wire.holds import Hold


class Recorder:
    """`over` and `back` are called when a run has ended, or waits again; `on_delivery` when a webhook delivery exists.
    All after the commit.

    A volatile run changes in memory only, and is stored in one piece when it is over: its end is reported before the
    commit, and if the store has no room it is not kept. `forget` is called when that is settled.
    """

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        calendar: SteadyCalendar,
        over: Callable[[OpenRun, Run], None],
        back: Callable[[OpenRun], None],
        on_delivery: Callable[[], None],
        forget: Callable[[OpenRun], None],
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._calendar = calendar
        self._over = over
        self._back = back
        self._on_delivery = on_delivery
        self._forget = forget

    def finish(self, open_run: OpenRun, ending: Ending, hold: Hold | None = None) -> None:
        """End a run."""
        open_run.phase = Phase.ENDING
        open_run.set_timer(None)
        self._append(open_run)
        ending = msgspec.structs.replace(ending, warnings=open_run.warnings or ending.warnings, used=open_run.take_used())
        if open_run.session is not None:
            open_run.session.reason = open_run.session.reason or endings.session_reason(ending)
            metrics = endings.with_session(ending.metrics or open_run.metrics, open_run.session.facts)
            ending = msgspec.structs.replace(ending, metrics=metrics)
        if open_run.volatile:
            self._end_volatile(open_run, ending)
            return
        delivery = delivery_at(ENDED, open_run.id, open_run.run.webhook, ending.at, self._calendar.unix_s())
        op = Finish(open_run.id, open_run.run.attempt, ending, delivery)
        self._put(open_run, op, hold, lambda: runs.finish(open_run.run, attempt=op.attempt, ending=op.ending))

    def cancel(self, open_run: OpenRun, hold: Hold | None = None) -> None:
        """End a run that its caller has cancelled."""
        at, session = self._clock.unix_s(), open_run.session
        is_ours = session is not None and session.reason and not open_run.cancel_requested
        self.finish(open_run, endings.session_ended(session.reason, at) if session is not None and is_ours else endings.canceled(at), hold)

    def settle(self, open_run: OpenRun, what: Again | GiveUp, hold: Hold | None = None) -> None:
        """An attempt has failed or had no effect: the run returns to the queue, or ends."""
        at = self._clock.unix_s()
        if open_run.ends_as is not None:
            self.finish(open_run, open_run.ends_as, hold)
        elif open_run.cancel_requested:
            self.cancel(open_run, hold)
        elif isinstance(what, GiveUp):
            self.finish(open_run, Ending(state=RunState.FAILED, at=at, error=what.error, metrics=open_run.metrics), hold)
        elif open_run.session is not None and open_run.started:  # frames were lost with its worker or its stream
            self.finish(open_run, endings.session_lost(at), hold)
        elif open_run.is_shadow:  # it is tried once; if we ended its worker, that is not its fault
            self.finish(open_run, endings.worker_lost(at) if what.lost and what.suspicion else endings.canceled(at), hold)
        else:
            self._requeue(open_run, what, at + what.delay_s if what.delay_s else 0.0, hold)

    def _requeue(self, open_run: OpenRun, again: Again, not_before: float, hold: Hold | None) -> None:
        open_run.phase = Phase.ENDING
        open_run.failed_by = again.error or open_run.failed_by
        self._append(open_run)
        op = Requeue(open_run.id, open_run.run.attempt, not_before, again.executed, again.lost, again.suspicion, open_run.take_used())

        def moved() -> Run | None:
            return runs.requeue(
                open_run.run,
                attempt=op.attempt,
                not_before=op.not_before,
                executed=op.executed,
                lost=op.lost,
                suspicion=op.suspicion,
                used=op.used,
            )

        if open_run.volatile:
            open_run.run = moved() or open_run.run
            self._back(open_run)
            return
        self._put(open_run, op, hold, moved)

    def started(self, open_run: OpenRun, at: float) -> None:
        """Its worker has begun a run: its webhook may want to know. A retry is not reported again."""
        delivery = delivery_at(STARTED, open_run.id, open_run.run.webhook, at, self._calendar.unix_s())
        if delivery is not None:
            self._writer.put(AddDelivery(delivery), lambda _: self._on_delivery())

    def keep(self, open_run: OpenRun, written: "asyncio.Future[None]") -> None:
        """Store a volatile run as it is; from now on it is an ordinary one."""
        open_run.volatile = False
        open_run.feed.unsaved = [entry for entry in open_run.feed.after((0, 0)) if entry.attempt == open_run.run.attempt]

        def done(result: Result) -> None:
            if not written.done():
                written.set_result(None)

        def trouble(exc: StoreError) -> None:  # it stays in line
            if not written.done():
                written.set_exception(exc)

        self._writer.put(Accept(open_run.run), done, trouble)
        self._append(open_run)

    def _end_volatile(self, open_run: OpenRun, ending: Ending) -> None:
        run = runs.finish(open_run.run, attempt=open_run.run.attempt, ending=ending)
        assert run is not None, "nobody else ends a run of this memory"
        entries = [entry for entry in open_run.feed.after((0, 0)) if entry.attempt == run.attempt]
        self._over(open_run, run)
        if open_run.is_shadow:
            self._forget(open_run)
            return
        self._writer.put(Accept(run), lambda _: self._forget(open_run), lambda _: self._forget(open_run), optional=True)
        if entries:
            self._writer.put(AppendEvents(run.id, run.attempt, entries[0].seq, entries[-1].seq, encode_entries(entries)))

    def save_events(self, open_run: OpenRun) -> None:
        """Store the run's new events, unless a write is in progress: then they go with the next write."""
        if not open_run.flushing:
            self._append(open_run)

    def _append(self, open_run: OpenRun) -> None:
        if open_run.volatile:
            open_run.feed.unsaved.clear()
            return
        attempt = open_run.run.attempt
        entries = open_run.feed.take_unsaved(attempt)
        if not entries:
            return
        holds, open_run.holds = open_run.holds, []
        open_run.flushing = True
        op = AppendEvents(open_run.id, attempt, entries[0].seq, entries[-1].seq, encode_entries(entries), *open_run.feed.source)

        def written(result: Result) -> None:
            for hold in holds:
                hold.release()
            open_run.flushing = False
            if open_run.phase is Phase.LEASED:
                self._append(open_run)

        self._writer.put(op, written)

    def _put(self, open_run: OpenRun, op: Finish | Requeue, hold: Hold | None, moved: Callable[[], Run | None]) -> None:
        held = hold.take() if hold is not None else None

        def written(result: Result) -> None:
            if held is not None:
                held.release()
            if isinstance(op, Finish) and op.delivery is not None:
                self._on_delivery()
            if open_run.phase is Phase.OVER:
                return
            there = moved() if result is DONE else getattr(result, "run", None)
            if there is None:  # the run itself was never accepted
                return
            if there.is_final:
                self._over(open_run, there)
            elif there.state is RunState.QUEUED and isinstance(op, Requeue):
                open_run.run = there
                self._back(open_run)
            else:  # the store is ahead of this picture: use the attempt that it has
                open_run.run = there
                self._put(open_run, msgspec.structs.replace(op, attempt=there.attempt), None, moved)

        self._writer.put(op, written)
