"""Writes the ends, the returns and the events of runs, and keeps at it until the store has them.

The end of a run is never dropped: while the store does not answer, or has no room, the operation is put again every half second. Only
a leader that was deposed stops: its successor decides. What a worker said is acknowledged (`Hold`) when it is written.
"""

import asyncio
from collections.abc import Callable

from gen_orchestrator.domain import runs
from gen_orchestrator.domain.retries import Again
from gen_orchestrator.domain.runs import Ending, Run
from gen_orchestrator.scheduling.feed import encode_entries
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.store.base import DeposedError, StoreError
from gen_orchestrator.store.ops import DONE, AppendEvents, Finish, Op, Requeue, Result
from gen_orchestrator.store.writer import Writer
from gen_worker.wire.holds import Hold

STORE_RETRY_S = 0.5


class Recorder:
    """`over` and `back` are told when a run has ended, or waits again; both after the commit."""

    def __init__(self, writer: Writer, over: Callable[[OpenRun, Run], None], back: Callable[[OpenRun], None]) -> None:
        self._writer = writer
        self._over = over
        self._back = back
        self._loop = asyncio.get_running_loop()

    def finish(self, open_run: OpenRun, ending: Ending, hold: Hold | None = None) -> None:
        """End a run."""
        open_run.phase = Phase.ENDING
        open_run.set_timer(None)
        self._append(open_run)
        op = Finish(open_run.id, open_run.run.attempt, ending)

        def happened() -> None:
            if open_run.phase is not Phase.OVER:
                moved = runs.finish(open_run.run, attempt=op.attempt, ending=op.ending)
                assert moved is not None
                self._over(open_run, moved)

        self._put(open_run, op, hold, happened)

    def requeue(self, open_run: OpenRun, again: Again, not_before: float, hold: Hold | None = None) -> None:
        """Take a run back from its worker, to be tried again."""
        open_run.phase = Phase.ENDING
        self._append(open_run)
        op = Requeue(open_run.id, open_run.run.attempt, not_before, again.executed, again.lost)

        def happened() -> None:
            if open_run.phase is Phase.ENDING:
                moved = runs.requeue(open_run.run, attempt=op.attempt, not_before=op.not_before, executed=op.executed, lost=op.lost)
                assert moved is not None
                open_run.run = moved
                self._back(open_run)

        self._put(open_run, op, hold, happened)

    def save_events(self, open_run: OpenRun) -> None:
        """Write what the run has said, unless that is under way: then what gathers meanwhile goes with the next write."""
        if not open_run.flushing:
            self._append(open_run)

    def _append(self, open_run: OpenRun) -> None:
        attempt = open_run.run.attempt
        entries = open_run.feed.take_unsaved(attempt)
        if not entries:
            return
        holds, open_run.holds = open_run.holds, []
        open_run.flushing = True
        op = AppendEvents(open_run.id, attempt, entries[0].seq, entries[-1].seq, encode_entries(entries))

        def written(result: Result | StoreError) -> None:
            if self._try_again(result, op, written):
                return
            for hold in holds:
                hold.release()
            open_run.flushing = False
            if open_run.phase is Phase.LEASED:
                self._append(open_run)

        self._writer.put(op, written)

    def _put(self, open_run: OpenRun, op: Op, hold: Hold | None, happened: Callable[[], None]) -> None:
        held = hold.take() if hold is not None else None

        def written(result: Result | StoreError) -> None:
            if self._try_again(result, op, written) or isinstance(result, StoreError):
                return
            if held is not None:
                held.release()
            if result is DONE:
                happened()
                return
            there: Run | None = getattr(result, "run", None)
            if there is not None and there.is_final and open_run.phase is not Phase.OVER:
                self._over(open_run, there)  # somebody was first; that stands

        self._writer.put(op, written)

    def _try_again(self, result: Result | StoreError, op: Op, written: Callable[[Result | StoreError], None]) -> bool:
        if isinstance(result, StoreError) and not isinstance(result, DeposedError):
            self._loop.call_later(STORE_RETRY_S, self._writer.put, op, written)
            return True
        return False
