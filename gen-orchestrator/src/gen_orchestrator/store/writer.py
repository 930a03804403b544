"""A writer thread: each round takes all waiting operations, commits them in one transaction, and reports to the event
loop.

While a commit waits for the disk, the next batch collects. A busy leader tells the thread at the end of a turn of the
loop, so that all operations of the turn go into one batch. One whose last batch was small tells it at once: the thread
then wakes up while the turn goes on, which a lone caller feels.

    put (loop) --at once, or at the end of the turn--> Line --> writer thread: apply, commit --> one call to the loop --> each callback

Admission of runs bounds the line: every operation here belongs to an admitted run. `Line` says what happens when a
batch fails. After `DeposedError` nothing is written any more.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

from gen_orchestrator.store.base import DeposedError, RunStore, StoreError, StoreFullError, StoreUnavailableError
from gen_orchestrator.store.line import Entry, Line, OnTrouble, OnWritten
from gen_orchestrator.store.ops import Op, Result

MAX_BATCH = 2000
RETRY_S = 0.5
SLOW_S = 2.0
SMALL_BATCH = 4  # operations: up to two runs, each accepted and leased


class Writer:
    """Owns the store's writing thread. `put` and the callbacks run on the loop."""

    def __init__(self, store: RunStore, epoch: int, on_deposed: Callable[[], None]) -> None:
        self._store = store
        self._epoch = epoch
        self._on_deposed = on_deposed
        self._loop = asyncio.get_running_loop()
        self._line = Line()
        self._since_s = 0.0  # when the oldest unwritten batch was taken; 0 if there is none
        self._refusal: StoreError | None = None  # why the last batch was not written
        self._last_batch = 0  # how many operations it had
        self._told = False  # the thread will be told of the operations that this turn adds
        self._news = threading.Condition()
        self._closed = False
        self._deposed: DeposedError | None = None
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Operations that are not in a batch yet."""
        return len(self._line)

    @property
    def stalled_s(self) -> float:
        """For how many seconds the store has accepted nothing, because it is slow or reports errors."""
        since_s = self._since_s
        return time.monotonic() - since_s if since_s else 0.0

    def trouble(self, after_s: float = SLOW_S) -> StoreError | None:
        """Why nothing has been written for this many seconds; None if something has."""
        stalled_s, refusal = self.stalled_s, self._refusal
        if stalled_s <= after_s:
            return None
        if isinstance(refusal, StoreFullError):
            return StoreFullError(str(refusal))
        return StoreUnavailableError(f"the store has written nothing for {stalled_s:.0f} s")

    def put(self, op: Op, on_written: OnWritten | None = None, on_trouble: OnTrouble | None = None, *, optional: bool = False) -> None:
        """Write this after everything that was put before it."""
        with self._news:
            self._line.put(op, on_written, on_trouble, optional=optional)
            if self._last_batch <= SMALL_BATCH:
                self._news.notify()
                return
        if not self._told:
            self._told = True
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._told = False
        with self._news:
            self._news.notify()

    async def close(self) -> None:
        """Write what waits, then end the thread. What the store refuses now is dropped."""
        with self._news:
            self._closed = True
            self._news.notify()
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        while True:
            with self._news:
                while not len(self._line) and not self._closed:
                    self._news.wait()
                batch = self._line.take(MAX_BATCH)
                if batch and not self._since_s:
                    self._since_s = time.monotonic()
            if not batch:
                return
            self._last_batch = len(batch)
            results = self._apply(batch)
            self._refusal = results if isinstance(results, StoreError) else None
            with self._news:
                calls = self._line.settle(batch, results)
                if not isinstance(results, StoreError) or not len(self._line):
                    self._since_s = 0.0
            if calls:
                self._post(lambda calls=calls: _call(calls))  # type: ignore[misc]
            if isinstance(results, StoreError):
                with self._news:
                    if self._closed:
                        return
                    if self._deposed is None:
                        self._news.wait(RETRY_S)

    def _apply(self, batch: Sequence[Entry]) -> list[Result] | StoreError:
        if self._deposed is not None:
            return self._deposed
        try:
            return self._store.apply(self._epoch, [entry.op for entry in batch])
        except DeposedError as exc:
            self._deposed = exc
            self._post(self._on_deposed)
            return exc
        except StoreError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - the top of the thread: nobody may wait for ever
            return StoreError(f"the store failed: {type(exc).__name__}: {exc}")

    def _post(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            self._closed = True


def _call(calls: Sequence[Callable[[], None]]) -> None:
    """Each callback belongs to another run: one that raises must not keep the others from being told."""
    for call in calls:
        try:
            call()
        except Exception as exc:  # noqa: BLE001 - the boundary
            asyncio.get_running_loop().call_exception_handler({"message": "a callback after a write has failed", "exception": exc})
