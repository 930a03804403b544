"""Threads that run authors' sync functions."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from itertools import takewhile
from typing import Any, TypeVar

import msgspec

from gen_worker.errors import ResourceError
from gen_worker.execution.mailbox import Mailbox
from gen_worker.log import Log
from gen_worker.texts import repr_of

T = TypeVar("T")
FIRST_THREADS = 2
MANY_SUBMITTED = 1024
GROW_AFTER_S = 0.01
GROW_WHEN_BUSY_AFTER_S = 0.1
BUSY_SHARE = 0.8  # share of one processor
REPORT_AFTER_S = 1.0  # a function that checks its cancel flag returns well within this


class LeftThread(msgspec.Struct, frozen=True):
    """A thread whose run has ended while the author's code goes on."""

    run_id: str
    function: str
    seconds: float


class RunThreads:
    """Named daemon threads for sync functions, reused.

    At most `max_threads` work at once; further jobs wait in order. The first two threads start at once. More are
    started when a job has waited for 10 ms, or for 100 ms while this process keeps a processor busy: quick functions
    are served faster by few threads than by many that pass the interpreter around. A thread that its run has left does
    not count, so functions that ignore cancellation cannot block others. Only the loop calls these methods.
    """

    def __init__(self, mailbox: Mailbox, log: Log, max_threads: int = 256) -> None:
        self.mailbox = mailbox
        self._log = log
        self._max = max_threads
        self._jobs: queue.SimpleQueue[tuple[str, Callable[[], Any], ThreadJob, Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._count = 0
        self._free = 0  # a negative number: this many jobs wait for a thread
        self._submitted: deque[float] = deque()  # when each job was submitted; the last ones are those that wait
        self._growing = False
        self._left: dict[ThreadJob, tuple[str, str, float]] = {}

    def start(self, name: str, job: Callable[[], T], on_end: Callable[[T | None], None]) -> "ThreadJob":
        """Run `job` in a thread that is called `name` meanwhile, in a context of its own: neither context variables nor
        the decimal precision of one job are visible to another. `on_end` is called on the loop with its result; with
        None if it raises, which no job does. `ResourceError` when the system cannot start a thread for it.
        """
        handle = ThreadJob(self)
        working = self._count - len(self._left)
        if self._free > 0:
            self._free -= 1
        elif working < FIRST_THREADS and self._add_thread():
            pass
        elif working > 0:
            self._free -= 1
            self._grow_soon()
        else:
            raise ResourceError("the system cannot start another thread for this run")
        self._submitted.append(time.monotonic())
        if len(self._submitted) >= MANY_SUBMITTED:
            self._forget_taken()
        self._jobs.put((name, job, handle, on_end))
        return handle

    @property
    def busy(self) -> int:
        """How many jobs run or wait for a thread. Callable from any thread."""
        return self._count - self._free

    def left(self) -> list[LeftThread]:
        """Threads that outlive their runs, oldest first."""
        now_s = time.monotonic()
        found = [LeftThread(run_id, function, round(now_s - since_s, 3)) for run_id, function, since_s in self._left.values()]
        return sorted(found, key=lambda thread: -thread.seconds)

    def close(self) -> None:
        """Let idle threads end. Busy ones are daemons and end with the process."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _add_thread(self) -> bool:
        try:
            threading.Thread(target=self._work, name="run-idle", daemon=True).start()
        except (RuntimeError, MemoryError) as exc:  # the system's limit of threads or memory
            self._log.warning("run.no_thread", threads=self._count, error=repr_of(exc))
            return False
        self._count += 1
        return True

    def _grow_soon(self) -> None:
        if not self._growing:
            self._growing = True
            self.mailbox.loop.call_later(GROW_AFTER_S, self._grow, time.monotonic(), time.process_time())

    def _grow(self, since_s: float, cpu_since_s: float) -> None:
        """Start threads for jobs that have waited too long."""
        self._growing = False
        now_s = time.monotonic()
        busy = time.process_time() - cpu_since_s > BUSY_SHARE * (now_s - since_s)
        before_s = now_s - (GROW_WHEN_BUSY_AFTER_S if busy else GROW_AFTER_S)
        self._forget_taken()
        late = sum(1 for _ in takewhile(lambda at_s: at_s <= before_s, self._submitted))
        room = self._max - (self._count - len(self._left))
        for _ in range(min(late, -self._free, room)):
            if not self._add_thread():
                break
            self._free += 1
        if self._free < 0:
            self._grow_soon()

    def _forget_taken(self) -> None:
        for _ in range(len(self._submitted) - self._jobs.qsize()):
            self._submitted.popleft()

    def _work(self) -> None:
        thread = threading.current_thread()
        result: Any
        while (taken := self._jobs.get()) is not None:
            thread.name, job, handle, on_end = taken
            try:
                result = Context().run(job)
            except BaseException as exc:  # noqa: BLE001 - a bug of ours: the thread goes on, and the run ends
                self._log.error("run.thread_broken", error=repr_of(exc))
                result = None
            thread.name = "run-idle"
            self.mailbox.post(self._returned, handle, on_end, result)
            del taken, job, handle, on_end, result  # otherwise the last run's payload and model would live as long as the thread is idle

    def _returned(self, handle: "ThreadJob", on_end: Callable[[Any], None], result: Any) -> None:
        self._free += 1
        handle.running = False
        found = self._left.pop(handle, None)
        try:
            on_end(result)
        finally:
            if found is not None:
                run_id, function, since_s = found
                seconds = round(time.monotonic() - since_s, 3)
                if seconds >= REPORT_AFTER_S:
                    self._log.warning("run.thread_returned", run_id=run_id, function=function, seconds_after_its_run=seconds)


class ThreadJob:
    """One job given to the threads."""

    def __init__(self, threads: RunThreads) -> None:
        self._threads = threads
        self.running = True

    def leave(self, run_id: str, function: str) -> None:
        """The run is over. If the author's code still runs, its thread is listed and logged until it returns."""
        if not self.running:
            return
        threads = self._threads
        threads._left[self] = (run_id, function, time.monotonic())
        threads.mailbox.loop.call_later(REPORT_AFTER_S, self._report, run_id, function)

    def _report(self, run_id: str, function: str) -> None:
        if self.running:
            self._threads._log.warning(
                "run.thread_left",
                run_id=run_id,
                function=function,
                hint="the function is still running after its run ended; check ctx.is_canceled()",
            )
