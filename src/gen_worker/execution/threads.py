"""Threads that run authors' code, and the way back to the event loop."""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import msgspec

from gen_worker.log import Log

Post = tuple[Callable[..., None], tuple[Any, ...]]
Job = Callable[[], Post]  # returns what is to be called on the loop
FIRST_THREADS = 2
MANY_SUBMITTED = 1024
GROW_AFTER_S = 0.01
GROW_WHEN_BUSY_AFTER_S = 0.1
BUSY_SHARE = 0.8  # of one processor
REPORT_AFTER_S = 1.0  # a function that looks at its cancel flag returns well within this


class Mailbox:
    """Calls from any thread to the loop, in order. Many posts share one wake-up of the loop, which is what costs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # kept: asking for the running loop is a system call on Python 3.11
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._scheduled = False

    def post(self, call: Callable[..., None], *args: Any) -> None:
        """Have `call(*args)` run on the loop; dropped when the loop is closed."""
        self._calls.append((call, args))
        if not self._scheduled:
            self._scheduled = True
            try:
                self.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop has closed: nobody is left to tell
                self._calls.clear()

    def _drain(self) -> None:
        # Cleared first: a post that comes while we drain schedules one drain too many, never one too few.
        self._scheduled = False
        calls = self._calls
        try:
            while calls:
                call, args = calls.popleft()
                call(*args)
        finally:
            if calls and not self._scheduled:  # one call failed; the others are owed all the same
                self._scheduled = True
                self.loop.call_soon(self._drain)


class LeftThread(msgspec.Struct, frozen=True):
    """A thread whose run has ended while the author's code goes on."""

    run_id: str
    function: str
    seconds: float


class RunThreads:
    """Named daemon threads for sync functions, reused.

    At most `max_threads` work at once, the rest wait in order. Beyond the first two, threads are started for jobs that have waited
    for 10 ms, or for 100 ms while this process keeps a processor busy: quick functions are served faster by few threads than by many
    that pass the interpreter around. A thread that its run has left does not count, so that functions which ignore cancellation cannot
    block others. Only the loop calls these methods.
    """

    def __init__(self, mailbox: Mailbox, log: Log, max_threads: int = 256) -> None:
        self.mailbox = mailbox
        self._log = log
        self._max = max_threads
        self._jobs: queue.SimpleQueue[tuple[str, Job, ThreadJob] | None] = queue.SimpleQueue()
        self._count = 0
        self._free = 0  # negative: so many jobs wait for a thread
        self._submitted: deque[float] = deque()  # when; the last ones are those that wait
        self._growing = False
        self._left: dict[ThreadJob, tuple[str, str, float]] = {}

    def start(self, name: str, job: Job) -> "ThreadJob":
        """Run `job` in a thread called `name` while it lasts."""
        handle = ThreadJob(self)
        if self._free > 0:
            self._free -= 1
        elif self._count - len(self._left) < FIRST_THREADS:
            self._add_thread()
        else:
            self._free -= 1
            self._grow_soon()
        self._submitted.append(time.monotonic())
        if len(self._submitted) >= MANY_SUBMITTED:
            self._forget_taken()
        self._jobs.put((name, job, handle))
        return handle

    def left(self) -> list[LeftThread]:
        """Threads that outlive their runs, longest first."""
        now_s = time.monotonic()
        found = [LeftThread(run_id, function, round(now_s - since_s, 3)) for run_id, function, since_s in self._left.values()]
        return sorted(found, key=lambda thread: -thread.seconds)

    def close(self) -> None:
        """Let idle threads end; busy ones are daemons and end with the process."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _add_thread(self) -> None:
        self._count += 1
        threading.Thread(target=self._work, name="run-idle", daemon=True).start()

    def _grow_soon(self) -> None:
        if not self._growing:
            self._growing = True
            self.mailbox.loop.call_later(GROW_AFTER_S, self._grow, time.monotonic(), time.process_time())

    def _grow(self, since_s: float, cpu_since_s: float) -> None:
        """Start threads for the jobs that have waited too long."""
        self._growing = False
        now_s = time.monotonic()
        busy = time.process_time() - cpu_since_s > BUSY_SHARE * (now_s - since_s)
        before_s = now_s - (GROW_WHEN_BUSY_AFTER_S if busy else GROW_AFTER_S)
        self._forget_taken()
        late = sum(1 for _ in takewhile(lambda at_s: at_s <= before_s, self._submitted))
        room = self._max - (self._count - len(self._left))
        for _ in range(min(late, -self._free, room)):
            self._free += 1
            self._add_thread()
        if self._free < 0:
            self._grow_soon()

    def _forget_taken(self) -> None:
        for _ in range(len(self._submitted) - self._jobs.qsize()):
            self._submitted.popleft()

    def _work(self) -> None:
        thread = threading.current_thread()
        while (taken := self._jobs.get()) is not None:
            thread.name, job, handle = taken
            call, args = job()
            thread.name = "run-idle"
            self.mailbox.post(self._returned, handle, call, args)
            del taken, job, handle, call, args  # or the last run's payload and model would live as long as the thread is idle

    def _returned(self, handle: "ThreadJob", call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._free += 1
        handle.running = False
        found = self._left.pop(handle, None)
        if found is not None:
            run_id, function, since_s = found
            seconds = round(time.monotonic() - since_s, 3)
            if seconds >= REPORT_AFTER_S:
                self._log.warning("run.thread_returned", run_id=run_id, function=function, seconds_after_its_run=seconds)
        call(*args)


class ThreadJob:
    """One job given to the threads."""

    def __init__(self, threads: RunThreads) -> None:
        self._threads = threads
        self.running = True

    def leave(self, run_id: str, function: str) -> None:
        """The run is over; if the author's code is not, its thread is listed, and logged, until it returns."""
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
                hint="the function goes on after its run ended; look at ctx.is_canceled()",
            )


class TenantLoop:
    """One event loop in a thread of its own for all async functions: what blocks there does not block the worker."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, started on first use."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._run, args=(self._loop,), name="run-async", daemon=True).start()
        return self._loop

    def close(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while self._loop is loop:
            try:
                loop.run_forever()
                return
            except BaseException as exc:  # noqa: BLE001 - asyncio re-raises a tenant task's SystemExit here; others must go on
                self._log.error("run.async_loop_interrupted", error=repr(exc))
