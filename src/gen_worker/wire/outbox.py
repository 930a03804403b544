"""What a worker still has to say: across streams, bounded, in order, each result exactly once."""

from collections import deque
from collections.abc import Callable

import msgspec

from gen_worker.wire.messages import Event, RunResult, Single, size_of

MAX_EVENTS = 8192  # waiting; beyond that events are shed
MAX_EVENT_BYTES = 8 << 20
ROOM_MESSAGES = 4096  # waiting or unconfirmed; beyond that streams of output stand still
ROOM_BYTES = 4 << 20
MAX_UNCONFIRMED = 4 * ROOM_MESSAGES
# To a peer that confirms nothing, a result counts as lost if its connection broke so soon after it was written: keepalive
# notices a silent peer within this time.
UNSURE_S = 30.0
MAX_UNSURE = 1024


class _Taken(msgspec.Struct, frozen=True):
    seq: int
    message: Single
    size_bytes: int


class Taken(msgspec.Struct, frozen=True):
    """Messages to put on the stream; they are numbered upwards from `first_seq`."""

    first_seq: int
    messages: tuple[Single, ...]


class Outbox:
    """Pure bookkeeping; who sends asks `take`, and says `wrote`, `confirm` or `resume`.

    Results and deltas are never dropped. Producers of deltas and frames look at `has_room` and wait with `on_room`. Events are shed when
    too many wait, newest first, and counted in `shed`.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[Single, int]] = deque()
        self._resend: deque[_Taken] = deque()
        self._taken: deque[_Taken] = deque()
        self._unsure: deque[tuple[float, _Taken]] = deque()
        self._next_seq = 1
        self._waiting_events = 0
        self._bytes = 0
        self._results: set[str] = set()
        self._on_room: list[Callable[[], None]] = []
        self.shed = 0

    def __len__(self) -> int:
        """Messages not yet on a stream."""
        return len(self._queue) + len(self._resend)

    @property
    def has_room(self) -> bool:
        return self._bytes < ROOM_BYTES and len(self._queue) + len(self._resend) + len(self._taken) < ROOM_MESSAGES

    @property
    def unsent_results(self) -> int:
        """Results that no stream has carried, or that may have been lost with one."""
        return sum(isinstance(entry.message, RunResult) for entry in self._resend) + sum(isinstance(m, RunResult) for m, _ in self._queue)

    @property
    def unconfirmed_results(self) -> frozenset[str]:
        """Runs whose results the scheduler may not have."""
        return frozenset(self._results)

    def holds_result_of(self, run_id: str) -> bool:
        return run_id in self._results

    def put(self, message: Single) -> None:
        """A message that must arrive."""
        size_bytes = size_of(message)
        self._bytes += size_bytes
        self._queue.append((message, size_bytes))
        if isinstance(message, RunResult):
            self._results.add(message.run_id)

    def put_event(self, event: Event) -> bool:
        """A message that may be shed; False when it was."""
        if self._waiting_events >= MAX_EVENTS or self._bytes >= MAX_EVENT_BYTES:
            self.shed += 1
            return False
        self._waiting_events += 1
        size_bytes = 96 + len(event.payload)  # as size_of, which this is too busy to call
        self._bytes += size_bytes
        self._queue.append((event, size_bytes))
        return True

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call back once when there is room again; at once if there is."""
        if self.has_room:
            callback()
        else:
            self._on_room.append(callback)

    def take(self, max_bytes: int, max_messages: int = 1024) -> Taken | None:
        """The next messages for the stream, at least one if any waits; None when none may be sent now."""
        if not self._queue and not self._resend:
            return None
        taken: list[_Taken] = []
        room_bytes = max_bytes
        while len(taken) < max_messages and (self._resend or self._queue):
            if self._resend:
                entry = self._resend[0]
                gap = bool(taken) and entry.seq != taken[-1].seq + 1
                size_bytes = entry.size_bytes
            else:
                gap = bool(taken) and self._next_seq != taken[-1].seq + 1
                size_bytes = self._queue[0][1]
            if gap or (taken and size_bytes > room_bytes) or len(self._taken) >= MAX_UNCONFIRMED:
                break
            entry = self._resend.popleft() if self._resend else self._number()
            room_bytes -= size_bytes
            taken.append(entry)
            self._taken.append(entry)
        if not taken:
            return None
        if not self._queue:
            self._waiting_events = 0
        return Taken(taken[0].seq, tuple([entry.message for entry in taken]))

    def wrote(self, taken: Taken, now_s: float) -> None:
        """The stream has taken these messages, to a peer that confirms nothing. Results are kept while they may still be lost."""
        last_seq = taken.first_seq + len(taken.messages) - 1
        while self._taken and self._taken[0].seq <= last_seq:
            entry = self._taken.popleft()
            self._forget(entry)
            if isinstance(entry.message, RunResult):
                self._unsure.append((now_s, entry))
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
        while self._resend and self._resend[0].seq <= last_seq:
            self._forget(self._resend.popleft())
        self._tell_room()

    def resume_plain(self, now_s: float, *, peer_ended: bool) -> None:
        """A new stream, to a peer that confirms nothing. `peer_ended`: the last one was ended by the peer, not by a fault."""
        self._return_taken()
        unsure, self._unsure = self._unsure, deque()
        for written_s, entry in reversed(unsure):
            if not peer_ended and now_s - written_s < UNSURE_S:
                self._resend.appendleft(entry)
                self._bytes += entry.size_bytes

    def _number(self) -> _Taken:
        message, size_bytes = self._queue.popleft()
        entry = _Taken(self._next_seq, message, size_bytes)
        self._next_seq += 1
        return entry

    def _return_taken(self) -> None:
        self._resend.extendleft(reversed(self._taken))
        self._taken.clear()

    def _forget(self, entry: _Taken) -> None:
        self._bytes -= entry.size_bytes
        if isinstance(entry.message, RunResult):
            self._results.discard(entry.message.run_id)

    def _tell_room(self) -> None:
        if self._on_room and self.has_room:
            callbacks, self._on_room = self._on_room, []
            for callback in callbacks:
                callback()
