"""One run seen by a loopback scheduler: its events, its deltas, its one result."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from gen_worker.events import OUTPUT_DELTA
from gen_worker.wire.holds import Hold
from gen_worker.wire.messages import Event, RunCommand, RunResult


class RunFailedError(Exception):
    """A run ended without success; `result` is the worker's result."""

    def __init__(self, result: RunResult) -> None:
        super().__init__(f"{result.error_type}: {result.error_message or result.safe_message}")
        self.result = result


class LoopbackRun:
    """One run as the scheduler sees it."""

    def __init__(self, command: RunCommand, cancel: Callable[[], None]) -> None:
        self.run_id = command.run_id
        self.command = command
        self.events: list[Event] = []
        self.results: list[RunResult] = []  # more than one would be a fault
        self.cancel = cancel  # asks the worker to stop the run
        self._holds: deque[Hold] = deque()  # of events that the reader of `deltas` has not seen
        self._waiters: set[asyncio.Future[None]] = set()
        self._news: asyncio.Event | None = None
        self._read = 0
        self._holds_from: int | None = None  # number of events when the reader started

    async def result(self, timeout_s: float = 30) -> RunResult:
        """The run's result; `TimeoutError` when it does not come."""
        if not self.results:
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()
            self._waiters.add(waiter)
            timer = loop.call_later(timeout_s, _set_unless_done, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiters.discard(waiter)
        if not self.results:
            raise TimeoutError(f"run {self.run_id!r} of {self.command.function!r} has no result after {timeout_s} s")
        return self.results[0]

    async def output(self, timeout_s: float = 30) -> Any:
        """The decoded output; `RunFailedError` when the run failed."""
        result = await self.result(timeout_s)
        if not result.success:
            raise RunFailedError(result)
        return msgspec.msgpack.decode(result.output) if result.output else None

    async def deltas(self) -> AsyncIterator[Any]:
        """Decoded deltas as they come. A slow reader pauses the worker's stream. `RunFailedError` at the end of a failed run."""
        self._holds_from = len(self.events)
        news = self._news = asyncio.Event()
        try:
            while True:
                news.clear()
                while self._read < len(self.events):
                    event = self.events[self._read]
                    self._read += 1
                    if self._read > self._holds_from:
                        self._holds.popleft().release()
                    if event.event_type == OUTPUT_DELTA:
                        yield msgspec.json.decode(event.payload)
                if self.results:
                    if not self.results[0].success:
                        raise RunFailedError(self.results[0])
                    return
                await news.wait()
        finally:  # also when the reader leaves early
            self._holds_from = None
            while self._holds:
                self._holds.popleft().release()

    def of_type(self, event_type: str) -> list[Any]:
        """Decoded payloads of the events of one type."""
        return [msgspec.json.decode(event.payload) for event in self.events if event.event_type == event_type]

    def add(self, event: Event, hold: Hold) -> None:
        """An event of this run has arrived. If someone reads the deltas, it is acknowledged once it was read."""
        self.events.append(event)
        if self._holds_from is not None:
            self._holds.append(hold.take())
        if self._news is not None:
            self._news.set()

    def end(self, result: RunResult) -> None:
        """Its result has arrived."""
        self.results.append(result)
        for waiter in self._waiters:
            _set_unless_done(waiter)
        if self._news is not None:
            self._news.set()


def _set_unless_done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
