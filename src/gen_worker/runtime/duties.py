"""Tasks of the worker, isolated from each other: a failure in one is reported for that task and ends nothing else.

A task of an `asyncio.TaskGroup` that fails ends the whole group, which here is the worker with all its runs. So every
task whose work depends on a value from a tenant, a peer or a file is started by `Duties.start`. Only the connection and
the registration watchdog are tasks of the group itself: their failures are meant to end the worker.
"""

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from gen_worker.errors import FatalError
from gen_worker.log import Log
from gen_worker.texts import class_name

MAX_TRACEBACK = 4000
Answer = Callable[[Exception], None]


class Duties:
    """Starts tasks of the worker. `answer` is called with the exception of a task that should have succeeded, and
    reports it to whoever asked.
    """

    def __init__(self, tasks: asyncio.TaskGroup, log: Log) -> None:
        self._tasks = tasks
        self._log = log
        self._open: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str, answer: Answer) -> None:
        """Run `work` in a task called `name`."""
        task = self._tasks.create_task(self._bounded(work, name, answer), name=name)
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda done: work.close())  # for a task that was cancelled before its first step

    def close(self) -> None:
        """The worker ends: cancel the remaining tasks, such as a download that nobody needs any more."""
        for task in self._open:
            task.cancel()

    def attempt(self, work: Callable[[], None], name: str, answer: Answer) -> None:
        """Run `work` now. It may raise anything."""
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - the boundary
            self._failed(exc, name, answer)

    async def _bounded(self, work: Coroutine[Any, Any, None], name: str, answer: Answer) -> None:
        try:
            await work
        except BaseException as exc:
            task = asyncio.current_task()
            if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the worker ends; a CancelledError that nobody asked for is a failure like any other
            self._failed(exc, name, answer)

    def _failed(self, exc: BaseException, name: str, answer: Answer) -> None:
        try:
            answer(exc if isinstance(exc, Exception) else FatalError(class_name(exc)))
        except Exception as broken:  # noqa: BLE001 - the boundary of the boundary
            self._log.error("worker.answer_failed", task=name, error=class_name(broken))
        trace = "".join(traceback.format_tb(exc.__traceback__))[-MAX_TRACEBACK:]  # frames only: the exception's text may be unprintable
        self._log.error("worker.task_failed", task=name[:200], error=class_name(exc), traceback=trace)
