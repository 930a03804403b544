"""What a worker still has to send: kept across streams, bounded, in order, each result exactly once."""

from collections import deque
from collections.abc import Callable

import msgspec

from gen_worker.events import OUTPUT_EVENTS
from gen_worker.wire.messages import Event, RunResult, Single, Unknown, size_of

MAX_EVENTS = 8192  # events waiting; above that, events are shed
MAX_EVENT_BYTES = 8 << 20
ROOM_MESSAGES = 4096  # messages waiting or unacknowledged; above that, output streams pause
ROOM_BYTES = 4 << 20
MAX_UNCONFIRMED = 4 * ROOM_MESSAGES
# A peer that acknowledges nothing may have missed a result if the connection broke within this time after it was
# written: keepalive notices a silent peer within this time.
UNSURE_S = 30.0
MAX_UNSURE = 1024
MAX_MESSAGES = 1024  # in one batch
MARKED_BYTES = 1 << 20  # messages of this size are remembered after writing: one of them may be why the peer ends the stream
DEFAULT_LIMIT_BYTES = 16 << 20
OVERHEAD_BYTES = 16 << 10  # allowance for what surrounds an output: ids, batch, frame


class _Entry(msgspec.Struct, frozen=True):
    """A message with its number. `is_event`: it counts among the messages that may be shed."""

    seq: int
    message: Single
    size_bytes: int
    is_event: bool = False


class Taken(msgspec.Struct, frozen=True):
    """Messages to put on the stream, numbered from `first_seq`."""

    first_seq: int
    messages: tuple[Single, ...]


class Outbox:
    """Pure bookkeeping. The sender calls `take`, then `wrote`, `confirm` or `resume`.

    Results and deltas are never dropped. Producers of deltas and frames check `has_room` and wait with `on_room`. When
    too many events wait, the newest are shed and counted in `shed`.

    No message is larger than `limit_bytes`: the peer would end the stream, and the same message would end the next one.
    A larger result is replaced by a small failure. So is the result of a run that lost part of its output this way.
    """

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.largest_bytes = _largest_bytes(limit_bytes)  # the maximum size of a message's content in bytes
        self._queue: deque[_Entry] = deque()
        self._resend: deque[_Entry] = deque()
        self._taken: deque[_Entry] = deque()
        self._unsure: deque[tuple[float, _Entry]] = deque()
        self._next_seq = 1
        self._waiting_events = 0  # shedding stops as soon as some of them are sent
        self._bytes = 0
        self._results: set[tuple[str, int]] = set()  # of runs, with their attempts
        self._spoiled: dict[str, int] = {}  # runs with a delta that was too large, and its size in bytes
        self._on_room: list[Callable[[], None]] = []
        self.shed = 0

    def __len__(self) -> int:
        """Messages not yet written to a stream."""
        return len(self._queue) + len(self._resend)

    @property
    def has_room(self) -> bool:
        return self._bytes < ROOM_BYTES and len(self._queue) + len(self._resend) + len(self._taken) < ROOM_MESSAGES

    @property
    def unsent_results(self) -> int:
        """Results that no stream has carried yet, or that may have been lost with a stream."""
        return sum(isinstance(entry.message, RunResult) for entries in (self._resend, self._queue) for entry in entries)

    @property
    def unconfirmed_results(self) -> frozenset[str]:
        """Runs whose results the scheduler may not have."""
        return frozenset(run_id for run_id, _ in self._results)

    @property
    def unconfirmed_attempts(self) -> frozenset[tuple[str, int]]:
        """The same runs, each with the attempt that the result belongs to."""
        return frozenset(self._results)

    def holds_result_of(self, run_id: str, attempt: int = 0) -> bool:
        return (run_id, attempt) in self._results

    def put(self, message: Single) -> None:
        """Add a message that must arrive; a too large one is replaced."""
        size_bytes = size_of(message)
        if self._spoiled or size_bytes > self.largest_bytes:
            message = self._fitting(message, size_bytes)
            size_bytes = size_of(message)
        is_event = type(message) is Event and message.event_type not in OUTPUT_EVENTS
        self._queue.append(_Entry(self._next_seq, message, size_bytes, is_event))
        self._next_seq += 1
        self._bytes += size_bytes
        self._waiting_events += is_event
        if type(message) is RunResult:
            self._results.add((message.run_id, message.attempt))

    def put_event(self, event: Event) -> bool:
        """Add a message that may be shed; False when it was."""
        size_bytes = len(event.payload)
        if self._waiting_events >= MAX_EVENTS or self._bytes >= MAX_EVENT_BYTES or size_bytes > self.largest_bytes:
            self.shed += 1
            return False
        size_bytes += 96  # inlined `size_of` and `put`: this is called too often for function calls
        self._queue.append(_Entry(self._next_seq, event, size_bytes, True))
        self._next_seq += 1
        self._bytes += size_bytes
        self._waiting_events += 1
        return True

    def _note_spoiled(self, message: Single, size_bytes: int) -> None:
        if isinstance(message, Event) and message.event_type in OUTPUT_EVENTS and not self.fits(size_bytes):
            self._spoiled[message.run_id] = size_bytes

    def fits(self, size_bytes: int) -> bool:
        """Whether a message with this many bytes of content is within the peer's limit."""
        return size_bytes <= self.largest_bytes

    def limit(self, limit_bytes: int) -> bool:
        """The peer ended a stream because a message exceeded its limit. Everything still queued is made to fit. True
        when the message was found; then the peer has all messages written before it, and none after it.
        """
        self.limit_bytes = min(self.limit_bytes, limit_bytes)
        self.largest_bytes = _largest_bytes(self.limit_bytes)
        unsure = [entry for _, entry in self._unsure]
        first = next((at for at, entry in enumerate(unsure) if not self.fits(entry.size_bytes)), len(unsure))
        found = first < len(unsure) or not all(self.fits(entry.size_bytes) for entry in (*self._taken, *self._resend))
        self._return_taken()
        for entry in reversed(unsure[first:]):
            self._unsure.pop()
            if isinstance(entry.message, RunResult):
                self._resend.appendleft(entry)
                self._bytes += entry.size_bytes
                self._results.add((entry.message.run_id, entry.message.attempt))
            else:
                self._note_spoiled(entry.message, entry.size_bytes)
        self._resend = deque(self._refit(entry) for entry in self._resend)
        self._queue = deque(self._refit(entry) for entry in self._queue)
        self._waiting_events = sum(entry.is_event for entry in self._queue)
        return found

    def _refit(self, entry: _Entry) -> _Entry:
        message = self._fitting(entry.message, entry.size_bytes)
        if message is entry.message:
            return entry
        size_bytes = size_of(message)
        self._bytes += size_bytes - entry.size_bytes
        return _Entry(entry.seq, message, size_bytes)

    def _fitting(self, message: Single, size_bytes: int) -> Single:
        """The message itself, or a small replacement."""
        if isinstance(message, RunResult):
            spoiled = self._spoiled.pop(message.run_id, 0) if self._spoiled else 0
            if message.success and (spoiled or not self.fits(size_bytes)):
                return too_large_result(message.run_id, spoiled or len(message.output), self.limit_bytes, message.attempt)
            return message
        if self.fits(size_bytes):
            return message
        self._note_spoiled(message, size_bytes)
        self.shed += 1
        return Unknown()  # keeps its number in the sequence

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call back once when there is room again; immediately if there is."""
        if self.has_room:
            callback()
        else:
            self._on_room.append(callback)

    def take(self, max_bytes: int, max_messages: int = MAX_MESSAGES) -> Taken | None:
        """The next messages for the stream, at least one if any waits; None when nothing may be sent now."""
        messages: list[Single] = []
        first_seq = next_seq = 0
        room = min(max_messages, MAX_UNCONFIRMED - len(self._taken))
        while len(messages) < room and (waiting := self._resend or self._queue):
            entry = waiting[0]
            if messages and (entry.seq != next_seq or entry.size_bytes > max_bytes):
                break  # a gap in the numbers, or the batch is full
            first_seq = first_seq or entry.seq
            next_seq = entry.seq + 1
            max_bytes -= entry.size_bytes
            if waiting is self._queue:
                self._waiting_events -= entry.is_event
            self._taken.append(waiting.popleft())
            messages.append(entry.message)
        return Taken(first_seq, tuple(messages)) if messages else None

    def wrote(self, taken: Taken, now_s: float) -> None:
        """The stream took these messages, to a peer that acknowledges nothing. Results are kept while they may still be lost."""
        last_seq = taken.first_seq + len(taken.messages) - 1
        while self._taken and self._taken[0].seq <= last_seq:
            entry = self._taken.popleft()
            self._forget(entry)
            if isinstance(entry.message, RunResult):
                self._unsure.append((now_s, entry))
            elif entry.size_bytes >= MARKED_BYTES:
                marker = msgspec.structs.replace(entry.message, payload=b"") if isinstance(entry.message, Event) else Unknown()
                self._unsure.append((now_s, _Entry(entry.seq, marker, entry.size_bytes)))
        while self._unsure and (now_s - self._unsure[0][0] > UNSURE_S or len(self._unsure) > MAX_UNSURE):
            self._unsure.popleft()
        self._tell_room()

    def confirm(self, seq: int) -> None:
        """The peer has all messages up to `seq`."""
        while self._taken and self._taken[0].seq <= seq:
            self._forget(self._taken.popleft())
        self._tell_room()

    def resume(self, last_seq: int) -> None:
        """A new stream, to a peer that has all messages up to `last_seq`: send again what it lacks."""
        self._return_taken()
        self.skip(last_seq)

    def skip(self, last_seq: int) -> None:
        """In the middle of a stream, the peer said that it had all messages up to `last_seq` before."""
        while self._resend and self._resend[0].seq <= last_seq:
            self._forget(self._resend.popleft())
        self._tell_room()

    def resume_plain(self, now_s: float, *, peer_ended: bool) -> None:
        """A new stream, to a peer that acknowledges nothing. `peer_ended`: the peer ended the last stream, it did not break."""
        self._return_taken()
        unsure, self._unsure = self._unsure, deque()
        for written_s, entry in reversed(unsure):
            if not peer_ended and now_s - written_s < UNSURE_S and isinstance(entry.message, RunResult):
                self._resend.appendleft(entry)
                self._bytes += entry.size_bytes
                self._results.add((entry.message.run_id, entry.message.attempt))

    def _return_taken(self) -> None:
        self._resend.extendleft(reversed(self._taken))
        self._taken.clear()

    def _forget(self, entry: _Entry) -> None:
        self._bytes -= entry.size_bytes
        message = entry.message
        if type(message) is RunResult:
            self._results.discard((message.run_id, message.attempt))

    def _tell_room(self) -> None:
        if self._on_room and self.has_room:
            callbacks, self._on_room = self._on_room, []
            for callback in callbacks:
                callback()


def too_large_result(run_id: str, size_bytes: int, limit_bytes: int, attempt: int = 0) -> RunResult:
    """The result of a run whose output, or a part of it, exceeds the message limit."""
    text = (
        f"output of {size_bytes} bytes; messages to the scheduler hold at most {limit_bytes} (WORKER_MAX_MESSAGE_BYTES, or less where the "
        "scheduler takes less). Save a file and return its ref"
    )
    return RunResult(run_id, False, b"", text, "validation", False, text, attempt=attempt)


def _largest_bytes(limit_bytes: int) -> int:
    return limit_bytes - min(OVERHEAD_BYTES, limit_bytes // 4)
