"""Why and when a run must stop: cancelled by somebody, or out of time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gen_worker.errors import CanceledError, DeadlineError, WorkerError
from gen_worker.texts import class_name

T = TypeVar("T")


class CancelToken:
    """Belongs to one run and to the loop. The first reason stands; callbacks hear it once."""

    def __init__(self) -> None:
        self.reason: WorkerError | None = None
        self._callbacks: list[Callable[[WorkerError], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self, reason: WorkerError | None = None) -> None:
        """Stop the run; without a reason it counts as cancelled by the caller."""
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
        """Call `callback(reason)` when the run must stop, at once if it already must."""
        if self.reason is not None:
            callback(self.reason)
        else:
            self._callbacks.append(callback)

    def expire_after(self, timeout_ms: int) -> None:
        """Stop the run with `DeadlineError` in `timeout_ms`, counted from now."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(timeout_ms / 1000, self.cancel, DeadlineError(f"timed out after {timeout_ms} ms"))

    def close(self) -> None:
        """The run is over: no timer, no callback."""
        if self._timer is not None:
            self._timer.cancel()
        self._callbacks.clear()

    def check(self) -> None:
        """Raise the reason if there is one."""
        if self.reason is not None:
            raise self.reason

    async def race(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, unless the run must stop first: then `work` is cancelled and the reason raised."""
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
            work.close()  # it was never begun if the task was cancelled before its first step


async def _contained(work: Coroutine[Any, Any, T]) -> T:
    """A task that raises SystemExit or KeyboardInterrupt ends the event loop it runs on, and with it the process."""
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as exc:
        raise RuntimeError(f"{class_name(exc)} was raised by what the run was waiting for") from exc
