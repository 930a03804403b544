"""The event loop of all async functions, in a thread of its own: blocking code there does not block the worker.

Authors' code can stop this loop, block it, close it, raise SystemExit in it or cancel each other's tasks. Whatever it
does, each task reports its end once, and the next task finds a running loop:

- stopped, or left by an exception: the thread continues with the same loop;
- closed: its tasks are told, and the next task gets a new loop;
- blocked while one of its tasks should end: the next task gets a new loop, and so do tasks that have not begun. The
  blocked loop goes on by itself and ends with its last task.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

from gen_worker.event_loop import new_event_loop
from gen_worker.execution.mailbox import Mailbox
from gen_worker.execution.stuck import task_stacks
from gen_worker.log import Log
from gen_worker.texts import repr_of

T = TypeVar("T")
CLOSE_S = 1.0
BLOCKED_AFTER_S = 3.0  # a loop that has not handled a cancel within this time counts as blocked and is abandoned


class TenantLoop:
    """Starts tasks of authors. Only the worker's loop calls this."""

    def __init__(self, mailbox: Mailbox, log: Log) -> None:
        self._mailbox = mailbox
        self._log = log
        self._thread: _LoopThread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, started on first use."""
        return self._running().loop

    @property
    def busy(self) -> int:
        """How many tasks have not ended. Callable from any thread."""
        thread = self._thread
        return len(thread.tasks) if thread is not None else 0

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, T]], on_end: Callable[[T | None], None]) -> "TenantTask[T]":
        """Run `work()` as a task. `on_end` is called once on the worker's loop, with its result; with None when there
        is none, because the task was cancelled before its first step or its loop is gone.
        """
        task = TenantTask(self, name, work, on_end)
        task.submit(self._running())
        return task

    def close(self) -> None:
        if self._thread is not None:
            self._thread.close()
            self._thread.wait()
            self._thread = None

    def blocked(self, thread: "_LoopThread", name: str) -> None:
        """A task did not react to its cancel: later tasks get another loop."""
        if self._thread is not thread:
            return
        self._log.warning(
            "run.async_loop_left",
            task=name,
            seconds=BLOCKED_AFTER_S,
            hint="an async function blocks the event loop; call blocking code by asyncio.to_thread, or make the function a plain def",
        )
        self._thread = None
        thread.left = True
        for task in list(thread.tasks):
            task.move(self._running())
        thread.end_if_idle()

    def _running(self) -> "_LoopThread":
        thread = self._thread
        if thread is None or thread.loop.is_closed():
            thread = self._thread = _LoopThread(self._mailbox, self._log)
        return thread


class _LoopThread:
    """One loop and its thread."""

    def __init__(self, mailbox: Mailbox, log: Log) -> None:
        self.mailbox = mailbox
        self.loop = new_event_loop()
        self.tasks: set[TenantTask[Any]] = set()  # changed by the worker's loop only
        self.left = False
        self._log = log
        self._closing = False
        self._runner = threading.Thread(target=self._work, name="run-async", daemon=True)
        self._runner.start()

    def close(self) -> None:
        self._closing = True
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:  # an author has closed it
            return

    def wait(self) -> None:
        """Wait briefly until its loop is closed. A loop that an author's code blocks is left to end with the process."""
        if not self.tasks:
            self._runner.join(CLOSE_S)

    def end_if_idle(self) -> None:
        if self.left and not self.tasks:
            self.close()

    def _work(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        while not self._closing:
            try:
                loop.run_forever()
                error = "an async function called loop.stop()"
            except BaseException as exc:  # noqa: BLE001 - asyncio re-raises a tenant task's SystemExit here; others must go on
                error = repr_of(exc)
            if loop.is_closed():
                self.mailbox.post(self._gone)
                error = "an async function closed the event loop"
            if not self._closing:
                self._log.error("run.async_loop_interrupted", error=error)
            if loop.is_closed():
                return
        self._end()

    def _end(self) -> None:
        """Cancel its remaining tasks, and close the loop when they have ended. The thread is a daemon, so a task that
        ignores its cancel does not delay the exit.
        """
        loop = self.loop
        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
        except BaseException as exc:  # noqa: BLE001 - the last of the authors' code
            self._log.warning("run.async_loop_not_closed", error=repr_of(exc))

    def _gone(self) -> None:
        for task in list(self.tasks):
            task.settle(None)


class TenantTask(Generic[T]):
    """One coroutine of an author's. Methods with an underscore run on the tenant's loop, the others on the worker's."""

    def __init__(
        self, owner: TenantLoop, name: str, work: Callable[[], Coroutine[Any, Any, T]], on_end: Callable[[T | None], None]
    ) -> None:
        self._owner = owner
        self._name = name
        self._work = work
        self._on_end: Callable[[T | None], None] | None = on_end
        self._unbegun = [None]  # whoever takes this item begins the task: two loops may try when one was blocked
        self._task: asyncio.Task[Any] | None = None
        self._heard = False
        self._thread: _LoopThread | None = None

    def submit(self, thread: _LoopThread) -> None:
        """Begin it on this loop."""
        self._thread = thread
        thread.tasks.add(self)
        try:
            thread.loop.call_soon_threadsafe(self._begin, thread, context=Context())
        except RuntimeError:  # an author closed the loop after we had asked for it
            thread.mailbox.post(self.settle, None)

    def move(self, thread: _LoopThread) -> None:
        """Begin it on another loop, if it has not begun yet."""
        if self._unbegun and self._thread is not None:
            self._thread.tasks.discard(self)
            self.submit(thread)

    def stacks(self) -> list[str]:
        """Python stacks of its code at this moment."""
        return task_stacks(self._task)

    def cancel(self) -> None:
        """Cancel it, even before its first step."""
        thread = self._thread
        if self._on_end is None or thread is None:
            return
        self._heard = False
        try:
            thread.loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:  # its loop is gone: `settle` will be called
            return
        thread.mailbox.loop.call_later(BLOCKED_AFTER_S, self._look, thread)

    def settle(self, result: T | None) -> None:
        """It has ended."""
        on_end, self._on_end = self._on_end, None
        thread = self._thread
        if thread is not None:
            thread.tasks.discard(self)
            thread.end_if_idle()
        if on_end is not None:
            on_end(result)

    def _look(self, thread: _LoopThread) -> None:
        if not self._heard and self._on_end is not None:
            self._owner.blocked(thread, self._name)

    def _take(self) -> bool:
        """Whether the caller may begin the task, or keep it from beginning: only the first caller, on whichever loop."""
        try:
            self._unbegun.pop()
        except IndexError:
            return False
        return True

    def _begin(self, thread: _LoopThread) -> None:
        if not self._unbegun:
            return
        first = self._first(thread)
        try:
            # A context of its own: a variable set by one run is not visible to another.
            task = thread.loop.create_task(first, name=self._name, context=Context())
            task.add_done_callback(self._done)
        except BaseException:  # noqa: BLE001 - an author's task factory may raise anything
            first.close()
            if self._take():
                thread.mailbox.post(self.settle, None)

    async def _first(self, thread: _LoopThread) -> T | None:
        # Taken in the task's first step: the loop may be blocked after the task was created, and the task then moves to another loop.
        if not self._take():
            return None
        self._thread = thread
        self._task = asyncio.current_task()
        return await self._work()

    def _done(self, task: "asyncio.Task[T | None]") -> None:
        if task is not self._task and not self._take():
            return  # it has begun on another loop
        try:
            result = None if task.cancelled() else task.result()
        except BaseException:  # noqa: BLE001 - `work` does not raise; whatever came of an author's hand must not be lost here
            result = None
        assert self._thread is not None
        self._thread.mailbox.post(self.settle, result)

    def _cancel(self) -> None:
        self._heard = True
        if self._task is not None:
            self._task.cancel()
        elif self._take() and self._thread is not None:
            self._thread.mailbox.post(self.settle, None)
