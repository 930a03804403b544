"""One thread that writes what has gathered: each round takes all that waits, commits it in one transaction, and says so on the loop.

While a commit waits for the disk the next batch gathers, so that a busy leader writes large batches and an idle one writes at once.

    put (loop) --> waiting list --> writer thread: apply, commit --> one call to the loop --> each operation's callback

The list is bounded by whoever admits runs; every operation here belongs to a run that was admitted. A callback gets `Done` or
`Refused`, or the exception that ended its batch. After `DeposedError` nothing is written any more.
"""

import asyncio
import threading
from collections.abc import Callable

from gen_orchestrator.store.base import DeposedError, RunStore, StoreError
from gen_orchestrator.store.ops import Op, Result

MAX_BATCH = 2000

OnWritten = Callable[[Result | StoreError], None]


class Writer:
    """Owns the store's writing thread. `put` and the callbacks run on the loop."""

    def __init__(self, store: RunStore, epoch: int, on_deposed: Callable[[], None]) -> None:
        self._store = store
        self._epoch = epoch
        self._on_deposed = on_deposed
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Op, OnWritten | None]] = []
        self._news = threading.Condition()
        self._closed = False
        self._failed: StoreError | None = None
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Operations that are not yet taken into a batch."""
        return len(self._waiting)

    def put(self, op: Op, on_written: OnWritten | None = None) -> None:
        """Write this after all that was put before it."""
        with self._news:
            self._waiting.append((op, on_written))
            self._news.notify()

    async def put_and_wait(self, op: Op) -> Result:
        """Write, and say whether it happened; `StoreError` when it could not be written."""
        done: asyncio.Future[Result] = self._loop.create_future()

        def written(result: Result | StoreError) -> None:
            if done.done():
                return
            if isinstance(result, StoreError):
                done.set_exception(result)
            else:
                done.set_result(result)

        self.put(op, written)
        return await done

    async def close(self) -> None:
        """Write what waits, then end the thread."""
        with self._news:
            self._closed = True
            self._news.notify()
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        while True:
            with self._news:
                while not self._waiting and not self._closed:
                    self._news.wait()
                if not self._waiting:
                    return
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            results: list[Result] | StoreError
            try:
                if self._failed is not None:
                    raise self._failed
                results = self._store.apply(self._epoch, [op for op, _ in batch])
            except StoreError as exc:
                if isinstance(exc, DeposedError) and self._failed is None:
                    self._failed = exc
                    self._post(self._on_deposed)
                results = exc
            except Exception as exc:  # noqa: BLE001 - the top of the thread: nobody may wait for ever
                results = StoreError(f"the store failed: {type(exc).__name__}: {exc}")
            self._post(lambda batch=batch, results=results: _tell(batch, results))  # type: ignore[misc]

    def _post(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            self._closed = True


def _tell(batch: list[tuple[Op, OnWritten | None]], results: list[Result] | StoreError) -> None:
    for index, (_, on_written) in enumerate(batch):
        if on_written is not None:
            on_written(results if isinstance(results, StoreError) else results[index])
