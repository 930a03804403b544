"""Why and when a run must stop: it was cancelled, or its time is up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gen_worker.errors import CanceledError, DeadlineError, WorkerError
from gen_worker.texts import class_name

T = TypeVar("T")


class CancelToken:
    """Belongs to one run, on the loop. The first reason counts; callbacks are called once with it."""

    def __init__(self) -> None:
        self.reason: WorkerError | None = None
        self._callbacks: list[Callable[[WorkerError], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self, reason: WorkerError | None = None) -> None:
        """Stop the run. Without a reason it counts as cancelled by the caller."""
        if self.reason is not None:
            return
        self.reason = reason or CanceledError("canceled")
        callbacks, self._callbacks = self._callbacks, []
        broken: Exception | None = None
        for callback in callbacks:
            try:
                callback(self.reason)
            except Exception as exc:  # noqa: BLE001 - raised below: one that fails must not keep the reason from the others
                broken = exc
        if broken is not None:
            raise broken

    def on_cancel(self, callback: Callable[[WorkerError], None]) -> None:
        """Call `callback(reason)` when the run must stop; immediately if it already must."""
        if self.reason is not None:
            callback(self.reason)
        else:
            self._callbacks.append(callback)

    def expire_after(self, timeout_ms: int) -> None:
        """Stop the run with `DeadlineError` after `timeout_ms` from now."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(timeout_ms / 1000, self.cancel, DeadlineError(f"timed out after {timeout_ms} ms"))

    def close(self) -> None:
        """The run is over: cancel the timer and drop the callbacks."""
        if self._timer is not None:
            self._timer.cancel()
        self._callbacks.clear()

    def check(self) -> None:
        """Raise the reason if the run must stop."""
        if self.reason is not None:
            raise self.reason

    async def race(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`. If the run must stop first, `work` is cancelled and the reason is raised."""
        task = asyncio.ensure_future(_contained(work))

        def stop(reason: WorkerError) -> None:
            task.cancel()

        self.on_cancel(stop)
        try:
            return await task
        except asyncio.CancelledError:
            self.check()
            raise
        finally:
            work.close()  # its coroutine was never started if the task was cancelled before its first step


async def _contained(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` so that SystemExit and KeyboardInterrupt cannot leave the task: they would end the event loop and
    with it the process.
    """
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as exc:
        raise RuntimeError(f"{class_name(exc)} was raised by what the run was waiting for") from exc
