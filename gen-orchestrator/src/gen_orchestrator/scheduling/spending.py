"""Tracks what keys with budgets have used, in the leader's memory. Keys without budgets are not tracked.

    first request of a key --read from the store, open runs from memory--> counted here, run by run
    its budgets change, or its day or month is over --> read again at the next request

Checking a budget and adding the run to the open ones is one step of the event loop, so concurrent requests cannot use
the same remainder. While a key is being read, its requests wait, so that no run is counted twice or missed. Only the
leader accepts runs, and the store refuses writes of a deposed leader, so the next leader reads exactly the accepted
runs.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Protocol

from gen_orchestrator.domain.budgets import (
    RATE_UNITS,
    Budgets,
    Exhausted,
    RateWindow,
    Spent,
    calendar_window,
    exhausted,
    parse_gpu_seconds,
    parse_rate,
)
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.scheduling.intake import AdmissionError, Submitted
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.open_runs import OpenRuns
from gen_orchestrator.store.base import RunStore, StoreError, StoreUnavailableError, UsageStore
from gen_worker.clock import Clock

SETTLED_S = 600.0  # much longer than from the end of a run to the report of it here


class SpendingStore(RunStore, UsageStore, Protocol):
    """What is read about keys."""


class ExhaustedError(Exception):
    """A budget of the run's key has no room for it."""

    def __init__(self, found: Exhausted) -> None:
        super().__init__(found.detail)
        self.exhausted = found


class KeySpending:
    """For one key, since it was read."""

    def __init__(self, budgets: Budgets, unix_s: float) -> None:
        """`unix_s` is in the day or month whose GPU seconds are counted."""
        self.budgets = budgets
        self.rate: RateWindow | None = None
        self.gpu_ms = 0
        unit = parse_gpu_seconds(budgets.gpu_seconds)[1] if budgets.gpu_seconds else ""
        self.begin_s, self.end_s = calendar_window(unit, unix_s) if unit else (float("-inf"), float("inf"))

    def holds(self, budgets: Budgets, unix_s: float) -> bool:
        """Whether this is still valid for these budgets at this time. A clock that was set back leads to an earlier
        day, which must be read.
        """
        return self.budgets == budgets and self.begin_s <= unix_s < self.end_s

    def ended(self, run: Run) -> None:
        """One of its runs has ended."""
        if self.begin_s <= run.finished_at < self.end_s:
            self.gpu_ms += run.gpu_ms


class Accepting(Protocol):
    """Accepts runs: the dispatcher."""

    open: OpenRuns

    def submit(self, run: Run, lane: Lane, *, volatile: bool = False) -> Coroutine[None, None, Submitted]: ...


class Spending:
    """One for each leader. `budgets_of`: the budgets of an invoker, None when it has none."""

    def __init__(self, budgets_of: Callable[[str], Budgets | None], store: SpendingStore, dispatcher: Accepting, clock: Clock) -> None:
        self._budgets_of = budgets_of
        self._store = store
        self._dispatcher = dispatcher
        self._open = dispatcher.open
        self._clock = clock
        self._known: dict[str, KeySpending] = {}
        self._reading: dict[str, asyncio.Task[KeySpending]] = {}
        self._unread: dict[str, KeySpending] = {}  # being read

    def ended(self, run: Run) -> None:
        """A run has ended. For a key that was not requested yet, the store will tell."""
        for place in (self._known, self._unread):
            if (spending := place.get(run.invoker_id)) is not None:
                spending.ended(run)

    def submit(self, run: Run, lane: Lane, *, volatile: bool = False) -> Coroutine[None, None, Submitted]:
        """Accept a run like `Dispatcher.submit`, or raise `ExhaustedError`."""
        budgets = self._budgets_of(run.invoker_id) if run.invoker_id else None
        if budgets is None:
            return self._dispatcher.submit(run, lane, volatile=volatile)
        return self._submit_within(budgets, run, lane, volatile=volatile)

    async def spent(self, invoker_id: str, budgets: Budgets) -> Spent:
        """What this key has used so far; `StoreError` when it cannot be read."""
        return self._spent(invoker_id, await self._of(invoker_id, budgets))

    async def _submit_within(self, budgets: Budgets, run: Run, lane: Lane, *, volatile: bool) -> Submitted:
        known = await self._of(run.invoker_id, budgets)
        if self._refusal(run, known) is not None and not await self._is_there(run):
            known = await self._of(run.invoker_id, budgets)
            if (refused := self._refusal(run, known)) is not None:
                raise ExhaustedError(refused)
        # Nothing is awaited between the last check and the run's entry among the open ones, so nobody else can get this room.
        charged_s = self._clock.now_s()
        if known.rate is not None:
            known.rate.add(charged_s)
        try:
            submitted = await self._dispatcher.submit(run, lane, volatile=volatile)
        except AdmissionError:
            _take_back(known, charged_s)
            raise
        except StoreError as exc:
            if not (isinstance(exc, StoreUnavailableError) and exc.unknown):  # otherwise it may be stored, so it counts
                _take_back(known, charged_s)
            raise
        if not submitted.is_new:
            _take_back(known, charged_s)
        return submitted

    def _refusal(self, run: Run, known: KeySpending) -> Exhausted | None:
        """The budget that has no room for this run now. A run that is already open is not checked."""
        there = self._dispatcher.open.same_as(run)
        return None if there is not None else exhausted(known.budgets, self._spent(run.invoker_id, known))

    def _spent(self, invoker_id: str, known: KeySpending) -> Spent:
        now_s, rate = self._clock.now_s(), known.rate
        return Spent(
            runs=rate.used(now_s) if rate is not None else 0,
            runs_free_in_s=rate.free_in_s(now_s) if rate is not None else 0.0,
            open_runs=self._open.count_of(invoker_id),
            gpu_s=known.gpu_ms / 1000,
            gpu_free_in_s=max(0.0, known.end_s - self._clock.unix_s()),
        )

    async def _of(self, invoker_id: str, budgets: Budgets) -> KeySpending:
        """What is known about this key; read first if nothing is known."""
        while (known := self._known.get(invoker_id)) is None or not known.holds(budgets, self._clock.unix_s()):
            reading = self._reading.get(invoker_id)
            if reading is None:
                reading = self._reading[invoker_id] = asyncio.create_task(self._read(invoker_id, budgets), name="spending")
                reading.add_done_callback(lambda task: self._read_done(invoker_id, task))
            await asyncio.shield(reading)  # a caller that leaves must not take it from the others
            budgets = self._budgets_of(invoker_id) or budgets
        return known

    async def _is_there(self, run: Run) -> bool:
        """Whether the store has a run with this id or key: requesting that one again uses nothing."""

        def look() -> bool:
            if run.idempotency_key and self._store.by_key(run.owner, run.idempotency_key) is not None:
                return True
            return self._store.get(run.id) is not None

        return await asyncio.to_thread(look)

    async def _read(self, invoker_id: str, budgets: Budgets) -> KeySpending:
        unix_s, now_s = self._clock.unix_s(), self._clock.now_s()
        found = self._unread[invoker_id] = KeySpending(budgets, unix_s)
        accepted = {run.id: run.created_at for run in self._open.runs_of(invoker_id)}
        if budgets.gpu_seconds:
            # Open runs are reported when they end. Runs that ended a while ago are in the store and do not change.
            still_open = set(accepted)
            before_ms, each = await asyncio.to_thread(self._store.gpu_ms_since, invoker_id, max(0.0, found.begin_s), unix_s - SETTLED_S)
            found.gpu_ms += before_ms + sum(gpu_ms for run_id, gpu_ms in each.items() if run_id not in still_open)
        if budgets.rate:
            runs, unit = parse_rate(budgets.rate)
            window_s = float(RATE_UNITS[unit])
            accepted |= await asyncio.to_thread(self._store.accepted_since, invoker_id, unix_s - window_s, runs)
            # A time in the future was recorded before the clock was set back: it counts as now.
            ages = (unix_s - at for at in accepted.values())
            found.rate = RateWindow(runs, window_s, (now_s - max(0.0, age) for age in ages if age < window_s))
        return found

    def _read_done(self, invoker_id: str, task: "asyncio.Task[KeySpending]") -> None:
        del self._reading[invoker_id]
        self._unread.pop(invoker_id, None)
        if not task.cancelled() and task.exception() is None:
            self._known[invoker_id] = task.result()


def _take_back(known: KeySpending, charged_s: float) -> None:
    """The run already existed, or was not accepted."""
    if known.rate is not None:
        known.rate.take_back(charged_s)
