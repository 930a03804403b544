"""Runs in memory: status, events, cancel. Bounded in number and in bytes."""

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Literal

import msgspec

from gen_worker import events
from gen_worker.authoring.assets import Asset
from gen_worker.errors import ResourceError
from gen_worker.events import RunEvent
from gen_worker.execution.admission import Admission
from gen_worker.execution.cancellation import CancelToken
from gen_worker.outcome import Outcome

MAX_FINISHED_RUNS = 256
MAX_KEPT_BYTES = 64 << 20
MAX_RUN_EVENTS = 10_000
MAX_RUN_BYTES = 8 << 20
MAX_QUEUED = 1000
EVENT_OVERHEAD_BYTES = 64
STRUCT_BYTES = 192  # of an event of ours: a handful of short fields
READER_AHEAD_EVENTS = 1024
READER_AHEAD_BYTES = 256 << 10

Status = Literal["queued", "running", "succeeded", "failed", "canceled"]


# Seeded by the system, since asking it for each id costs as much as an echo run.
_random = random.Random(random.SystemRandom().getrandbits(256))  # noqa: S311 - ids, not secrets


class Reader:
    """Follows one run's events. While the slowest reader is far behind, the run's stream is paused."""

    def __init__(self, run: "DevRun", after: int) -> None:
        self._run = run
        self._see(after)
        self._news = asyncio.Event()
        run.readers.add(self)

    async def next(self, timeout_s: float) -> tuple[int, list[RunEvent]] | None:
        """Events not yet seen and the number of the first, as they come; none when the run is over, None without news for `timeout_s`."""
        while True:
            self._news.clear()
            first_seq, unseen = self._run.log_after(self.seen)
            if unseen or self._run.finished:
                return first_seq, unseen
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return None

    def took(self, first_seq: int, taken: list[RunEvent]) -> None:
        """The client has been given these events."""
        self._see(first_seq + len(taken) - 1)
        self._run.reader_moved()

    def _see(self, seq: int) -> None:
        # Counted back from the end: what came before a resumed reader, or was dropped unread, is nothing that it lags behind.
        self.seen = seq
        self.seen_bytes = self._run.total_bytes - sum(map(_size_of, self._run.log_after(seq)[1]))

    def wake(self) -> None:
        self._news.set()

    def close(self) -> None:
        self._run.readers.discard(self)
        self._run.reader_moved()


class DevRun:
    """One run and all that is kept of it. It is the run's event sink, too."""

    def __init__(self, run_id: str, function: str) -> None:
        self.run_id = run_id
        self.function = function
        self.status: Status = "queued"
        self.created_s = time.time()
        self.started_s: float | None = None
        self.finished_s: float | None = None
        self.progress: msgspec.Raw | None = None
        self.outcome: Outcome | None = None
        self.files: list[Asset] = []
        self.token = CancelToken()
        self.readers: set[Reader] = set()
        self.size_bytes = 0
        self.total_bytes = 0
        self._log: deque[RunEvent] = deque()
        self._dropped = 0
        self._on_ready: Callable[[], None] | None = None
        self._end: asyncio.Event | None = None

    @property
    def finished(self) -> bool:
        return self.outcome is not None

    @property
    def last_seq(self) -> int:
        return self._dropped + len(self._log)

    @property
    def ready(self) -> bool:
        """Whether more output may come: nobody who reads is far behind."""
        for reader in self.readers:
            if self.last_seq - reader.seen > READER_AHEAD_EVENTS or self.total_bytes - reader.seen_bytes > READER_AHEAD_BYTES:
                return False
        return True

    def emit(self, event: RunEvent) -> None:
        """Append an event. A full log loses its oldest where somebody reads along; a run that nobody reads is stopped."""
        self.emit_all([event])

    def emit_all(self, batch: list[RunEvent]) -> None:
        """Append several events, and wake readers once."""
        size_bytes = sum(map(_size_of, batch))
        self.size_bytes += size_bytes
        self.total_bytes += size_bytes
        self._log.extend(batch)
        for event in batch:
            if event.event_type == events.PROGRESS:
                self.progress = event.payload
        if len(self._log) > MAX_RUN_EVENTS or self.size_bytes > MAX_RUN_BYTES:
            self._overflow()
        for reader in self.readers:
            reader.wake()

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._on_ready = callback
        self.reader_moved()

    def reader_moved(self) -> None:
        """A reader took entries, or left: the stream may go on."""
        if self._on_ready is not None and (self.ready or self.finished):
            callback, self._on_ready = self._on_ready, None
            callback()

    def start(self) -> None:
        self.status = "running"
        self.started_s = time.time()

    def finish(self, outcome: Outcome) -> None:
        """The run is over; this never changes again."""
        self.outcome = outcome
        self.finished_s = time.time()
        self.status = "succeeded" if outcome.success else "canceled" if outcome.error_type == "canceled" else "failed"
        self.size_bytes += len(outcome.output)
        for reader in self.readers:
            reader.wake()
        if self._end is not None:
            self._end.set()

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait for the end; False when it did not come in time."""
        if self.finished:
            return True
        if self._end is None:
            self._end = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await self._end.wait()
        except TimeoutError:
            return False
        return True

    def log_after(self, seq: int) -> tuple[int, list[RunEvent]]:
        """Kept events numbered above `seq`, and the number of the first of them. Numbers start at 1 and have no gaps."""
        skip = max(0, seq - self._dropped)
        return self._dropped + skip + 1, list(self._log) if skip == 0 else list(islice(self._log, skip, None))

    def _overflow(self) -> None:
        if not self.readers:
            self.token.cancel(
                ResourceError(
                    f"the function produced more than {MAX_RUN_EVENTS} events or {MAX_RUN_BYTES >> 20} MiB that nobody was reading; "
                    "read along with Accept: text/event-stream"
                )
            )
        while len(self._log) > 1 and (len(self._log) > MAX_RUN_EVENTS or self.size_bytes > MAX_RUN_BYTES):
            self.size_bytes -= _size_of(self._log.popleft())
            self._dropped += 1


class RunBook:
    """All runs that are known, newest last; admits them to slots in order of arrival."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._runs: OrderedDict[str, DevRun] = OrderedDict()
        self._finished: deque[DevRun] = deque()
        self._kept_bytes = 0
        self._waiting: deque[tuple[asyncio.Future[None], str, int | None]] = deque()

    @property
    def active(self) -> int:
        return self._admission.active

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def create(self, function: str, run_id: str | None) -> DevRun | None:
        """A new run; None when a run of that id is still going on. A finished one is forgotten in favour of the new."""
        run_id = run_id or f"{_random.getrandbits(96):024x}"
        old = self._runs.get(run_id)
        if old is not None and not old.finished:
            return None
        run = DevRun(run_id, function)
        self._runs[run_id] = run
        self._runs.move_to_end(run_id)
        return run

    def get(self, run_id: str) -> DevRun | None:
        return self._runs.get(run_id)

    def newest_first(self) -> Iterator[DevRun]:
        return reversed(self._runs.values())

    def admit_now(self, function: str, limit: int | None) -> bool:
        """Take a slot if there is one and nobody waits for it."""
        return not self._waiting and self._admission.take(function, limit) is None

    async def admit(self, run: DevRun, limit: int | None) -> None:
        """Wait for a slot; raises why the run had to stop before it got one."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        run.token.on_cancel(lambda reason: None if place.done() else place.set_exception(reason))
        self._waiting.append((place, run.function, limit))
        self._serve_waiting()
        await place

    def leave(self, function: str) -> None:
        """Give a slot back, to whoever waits longest and may have it."""
        self._admission.give(function)
        if self._waiting:
            self._serve_waiting()

    def finished(self, run: DevRun) -> None:
        """Keep a finished run for a while, and forget the oldest beyond the bounds."""
        self._finished.append(run)
        self._kept_bytes += run.size_bytes
        while len(self._finished) > MAX_FINISHED_RUNS or (self._kept_bytes > MAX_KEPT_BYTES and len(self._finished) > 1):
            oldest = self._finished.popleft()
            self._kept_bytes -= oldest.size_bytes
            if self._runs.get(oldest.run_id) is oldest:
                del self._runs[oldest.run_id]

    def _serve_waiting(self) -> None:
        still: deque[tuple[asyncio.Future[None], str, int | None]] = deque()
        for place, function, limit in self._waiting:
            if place.done():
                continue
            if self._admission.take(function, limit) is None:
                place.set_result(None)
            else:
                still.append((place, function, limit))
        self._waiting = still


def _size_of(event: RunEvent) -> int:
    payload: Any = event.payload
    return EVENT_OVERHEAD_BYTES + len(memoryview(payload)) if type(payload) is msgspec.Raw else STRUCT_BYTES
