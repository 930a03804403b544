"""The events of one run for its readers, as they come: numbered per attempt, with a position from which a reader can
resume.

    attempt 1:  1-1  1-2  1-3          the worker was lost
    attempt 2:  2-1  2-2 ... 2-n       a reader gets `restart` before 2-1; events of two attempts are never mixed
    sealed:     the reader gets `done`

Laws: within an attempt the numbers are 1 to n without gap or repeat; nothing comes after the seal. Numbered events are
what the run reports (progress, output, log, metric, custom, error). A change of status has no number: it describes the
current state, and a reader that resumes gets it again.

The feed is bounded. Events that it drops are still in the store until they are deleted there; a reader whose position
is no longer stored gets `snapshot` first.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from itertools import islice, takewhile

import msgspec

from gen_orchestrator.store.base import EventChunk

MAX_EVENTS = 10_000
MAX_BYTES = 8 << 20
OVERHEAD_BYTES = 96


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event: `name` as in the stream, `type` as sent by the worker, `data` as JSON."""

    attempt: int
    seq: int
    name: str
    type: str
    data: msgspec.Raw


class Feed:
    """One for each run. Lives on the loop."""

    __slots__ = (
        "_bytes",
        "_entries",
        "_waiters",
        "cut",
        "dropped",
        "heard_bytes",
        "progress",
        "sealed",
        "seqs",
        "source",
        "status_changes",
        "unsaved",
    )

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._waiters: list[asyncio.Future[None]] = []
        self.cut = False  # this program ends: readers resume elsewhere, or later
        self.dropped = False  # the oldest events are no longer in memory
        self.heard_bytes = 0  # of all events of all attempts, also of those that are only in the store
        self.progress: msgspec.Raw | None = None
        self.sealed = False
        self.seqs: dict[int, int] = {}  # attempt -> its last number
        self.source = ("", 0)  # the worker process that sent the last event, and its number for it
        self.status_changes = 0
        self.unsaved: list[Entry] = []  # not yet passed to the store

    def resume(self, attempt: int, stored: Sequence[EventChunk]) -> None:
        """Continue where an earlier leader stopped: its events of this attempt are stored."""
        mine = [chunk for chunk in stored if chunk.attempt == attempt]
        last = mine[-1] if mine else EventChunk(attempt, 0, 0, b"")
        self.dropped = True
        self.heard_bytes = sum(len(chunk.events) for chunk in stored)
        self.seqs[attempt] = last.last_seq
        self.source = (last.instance_id, last.wire_seq)

    def append(self, attempt: int, name: str, kind: str, data: bytes, source: tuple[str, int] = ("", 0)) -> Entry | None:
        """Number an event; None once the feed is sealed, and for an event that `source` (process, its number) has sent before."""
        if self.sealed or (source[1] and source[0] == self.source[0] and source[1] <= self.source[1]):
            return None
        self.source = source
        seq = self.seqs.get(attempt, 0) + 1
        self.seqs[attempt] = seq
        entry = Entry(attempt, seq, name, kind, msgspec.Raw(data))
        if name == "progress":
            self.progress = entry.data
        self._entries.append(entry)
        self._bytes += len(data) + OVERHEAD_BYTES
        self.heard_bytes += len(data) + OVERHEAD_BYTES
        while len(self._entries) > MAX_EVENTS or (self._bytes > MAX_BYTES and len(self._entries) > 1):
            self._bytes -= len(memoryview(self._entries.popleft().data)) + OVERHEAD_BYTES
            self.dropped = True
        self.unsaved.append(entry)
        self._wake()
        return entry

    def status_changed(self) -> None:
        """The run's status has changed: readers look again."""
        self.status_changes += 1
        self._wake()

    def seal(self) -> None:
        """The run is over."""
        self.sealed = True
        self._wake()

    def let_go(self) -> None:
        """Nothing more can be told here: this program ends."""
        self.cut = True
        self._wake()

    def take_unsaved(self, attempt: int) -> list[Entry]:
        """Events of an attempt that were not passed to the store yet; from now on they count as passed."""
        unsaved = self.unsaved
        if not unsaved or unsaved[0].attempt == attempt == unsaved[-1].attempt:  # attempts only grow, so all are of this one
            self.unsaved = []
            return unsaved
        self.unsaved = [entry for entry in unsaved if entry.attempt != attempt]
        return [entry for entry in unsaved if entry.attempt == attempt]

    def after(self, cursor: tuple[int, int]) -> list[Entry]:
        """Kept events after a position (attempt, number)."""
        entries = self._entries
        if not entries or (entries[-1].attempt, entries[-1].seq) <= cursor:
            return []
        last = entries[-1]
        if last.attempt == cursor[0]:  # numbers have no gaps, so this gives how many come after it
            fresh = list(islice(reversed(entries), last.seq - cursor[1]))
        else:
            fresh = list(takewhile(lambda entry: (entry.attempt, entry.seq) > cursor, reversed(entries)))
        fresh.reverse()
        return fresh

    def first(self) -> tuple[int, int]:
        """The position of the oldest kept event; (0, 0) without one."""
        return (self._entries[0].attempt, self._entries[0].seq) if self._entries else (0, 0)

    def wait(self, timeout_s: float) -> Coroutine[None, None, bool]:
        """Wait until something is new; False when nothing came in time.

        The caller is registered by this call itself, not by the first step of the coroutine, which a task takes later:
        otherwise an event in between would wake nobody.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return self._woken(waiter, timeout_s)

    async def _woken(self, waiter: "asyncio.Future[None]", timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True

    def _wake(self) -> None:
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Entry]).decode


def encode_entries(entries: list[Entry]) -> bytes:
    """Events in the store's format."""
    return _encode(entries)


def decode_entries(chunks: Iterator[bytes]) -> list[Entry]:
    """Events read from the store's format, in order."""
    return [entry for chunk in chunks for entry in _decode(chunk)]


def event_id(entry: Entry) -> str:
    return f"{entry.attempt}-{entry.seq}"


def parse_event_id(text: str) -> tuple[int, int]:
    """The position in a `Last-Event-ID`, (0, 0) for none; `ValueError` for an id that this server never sent."""
    text = text.strip()
    if not text:
        return (0, 0)
    attempt, dash, seq = text.partition("-")
    if not dash or not all(part.isascii() and part.isdigit() and len(part) <= 12 for part in (attempt, seq)):
        raise ValueError(f"Last-Event-ID {text[:40]!r} is not an id that this server sent; expected ATTEMPT-NUMBER, such as 1-35")
    return (int(attempt), int(seq))
