"""The events of one run: numbered, bounded, resumable, and sealed at the run's end.

    append ... append   seal            after the seal
    1 2 3 4 5 6 ... n   -> one JSON     append is refused, `last_seq` and what a reader gets never change

Laws that readers rely on: numbers start at 1 and have no gaps; a number is used once; the event that ends a stream
(`done`) has the number `last_seq + 1`, so it is numbered only after the seal. Otherwise a late event could get its
number, and a reader that resumes would miss one of the two.

During the run, events are kept as they came. The seal encodes them into one JSON text: it is what the run's answer
shows, its size is exact, and the garbage collector does not have to walk it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import msgspec

from gen_worker.events import RunEvent

EVENT_OVERHEAD_BYTES = 64
STRUCT_BYTES = 192  # for one of our events: a handful of short fields
READER_AHEAD_EVENTS = 1024
READER_AHEAD_BYTES = 256 << 10


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """An event in the runner contract's form; fields in sorted order."""

    event_type: str
    payload: Any
    run_id: str


class _Kept(msgspec.Struct, frozen=True, gc=False):
    event_type: str
    payload: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[_Kept]).decode


class EventLog:
    """Lives on the loop. A full log drops its oldest events."""

    __slots__ = ("_dropped", "_events", "_on_ready", "_sealed", "max_bytes", "max_events", "readers", "run_id", "size_bytes", "total_bytes")

    def __init__(self, run_id: str, *, max_events: int, max_bytes: int) -> None:
        self.run_id = run_id
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.readers: set[Reader] = set()
        self.size_bytes = 0  # of the kept events
        self.total_bytes = 0  # of all events so far
        self._events: deque[RunEvent] = deque()
        self._dropped = 0
        self._sealed: tuple[bytes, int] | None = None
        self._on_ready: Callable[[], None] | None = None

    @property
    def sealed(self) -> bool:
        return self._sealed is not None

    @property
    def last_seq(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._dropped + (len(self._events) if self._sealed is None else self._sealed[1])

    @property
    def ready(self) -> bool:
        """Whether more output may come: no reader is far behind."""
        for reader in self.readers:
            if self.last_seq - reader.seen > READER_AHEAD_EVENTS or self.total_bytes - reader.seen_bytes > READER_AHEAD_BYTES:
                return False
        return True

    def append(self, batch: list[RunEvent]) -> int:
        """Add events, and wake readers once. Returns how many of the oldest were dropped for it. A sealed log accepts nothing."""
        if self._sealed is not None:
            return 0
        size_bytes = sum([_size_of(event) if type(event.payload) is msgspec.Raw else STRUCT_BYTES for event in batch])
        self.size_bytes += size_bytes
        self.total_bytes += size_bytes
        events = self._events
        events.extend(batch)
        lost = 0
        while len(events) > 1 and (len(events) > self.max_events or self.size_bytes > self.max_bytes):
            self.size_bytes -= _size_of(events.popleft())
            lost += 1
        self._dropped += lost
        if self.readers:
            self._wake_readers()
        return lost

    def seal(self, text: bytes | None = None) -> None:
        """The run is over: nothing is added any more. From now on `size_bytes` is exact. `text`: all events as JSON, if already made."""
        if self._sealed is not None:
            return
        if text is None:
            text = _encode_all(self._events, self.run_id)
        self._sealed = (text, len(self._events))
        self._events = _NONE
        self.size_bytes = len(text)
        self._wake_readers()
        self.reader_moved()

    def as_json(self) -> bytes:
        """All kept events: a JSON list of `{"event_type", "payload", "run_id"}`."""
        return _encode_all(self._events, self.run_id) if self._sealed is None else self._sealed[0]

    def json_with(self, ending: list[RunEvent]) -> bytes:
        """What `as_json` will return once these events end it. From any thread, while nobody appends."""
        return _encode_all([*self._events, *ending], self.run_id)

    def after(self, seq: int) -> tuple[int, list[RunEvent]]:
        """Kept events numbered above `seq`, and the number of the first of them."""
        skip = max(0, seq - self._dropped)
        first_seq = self._dropped + skip + 1
        if first_seq > self.last_seq:
            return first_seq, []
        if self._sealed is not None:
            return first_seq, [RunEvent(kept.event_type, kept.payload) for kept in _decode(self._sealed[0])[skip:]]
        return first_seq, list(self._events) if skip == 0 else list(islice(self._events, skip, None))

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call back once, when `ready` or sealed; immediately if it already is."""
        self._on_ready = callback
        self.reader_moved()

    def reader_moved(self) -> None:
        """A reader took events, or left: the run may continue."""
        if self._on_ready is not None and (self._sealed is not None or self.ready):
            callback, self._on_ready = self._on_ready, None
            callback()

    def _wake_readers(self) -> None:
        for reader in self.readers:
            reader.wake()


class Reader:
    """Follows a log from a given number. While the slowest reader is far behind, the log is not `ready`."""

    def __init__(self, log: EventLog, after: int) -> None:
        self._log = log
        self._see(after)
        self._news = asyncio.Event()
        log.readers.add(self)

    async def next(self, timeout_s: float) -> tuple[int, list[RunEvent]] | None:
        """New events and the number of the first, as they come; an empty list at the end; None when nothing comes within `timeout_s`."""
        while True:
            self._news.clear()
            first_seq, unseen = self._log.after(self.seen)
            if unseen or self._log.sealed:
                return first_seq, unseen
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return None

    def took(self, first_seq: int, taken: list[RunEvent]) -> None:
        """These events were sent to the client."""
        self._see(first_seq + len(taken) - 1)
        self._log.reader_moved()

    def wake(self) -> None:
        self._news.set()

    def close(self) -> None:
        self._log.readers.discard(self)
        self._log.reader_moved()

    def _see(self, seq: int) -> None:
        # Counted back from the end: events before a resumed reader's position, or dropped unread, are no backlog of this reader.
        self.seen = seq
        self.seen_bytes = self._log.total_bytes - (0 if self._log.sealed else sum(map(_size_of, self._log.after(seq)[1])))


_NONE: deque[RunEvent] = deque(maxlen=0)


def _encode_all(events: Iterable[RunEvent], run_id: str) -> bytes:
    entries = [_Entry(event.event_type, event.payload, run_id) for event in events]
    try:
        return _encode(entries)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # One event that cannot be encoded must cost neither the others nor the seal.
        return b"[%b]" % b",".join(map(_encode_one, entries))


def _encode_one(entry: _Entry) -> bytes:
    try:
        return _encode(entry)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        shown = f"{type(exc).__name__}: {exc}".encode("ascii", "replace").decode()
        return _encode(_Entry("event.unencodable", {"event_type": ascii(entry.event_type), "error": shown}, entry.run_id))


def _size_of(event: RunEvent) -> int:
    payload: Any = event.payload
    return EVENT_OVERHEAD_BYTES + len(memoryview(payload)) if type(payload) is msgspec.Raw else STRUCT_BYTES
