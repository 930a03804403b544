"""Decides up to which number a worker's messages may be acknowledged: only those with nothing left to do.

A worker keeps each message until it is acknowledged, and sends it again on a new stream. So a scheduler that dies
between receiving a result and storing it loses nothing, as long as it acknowledges only stored messages. Messages are
finished in another order than they arrive: a result waits for its commit while the next message needs none. Hence a
gate: the acknowledged number stops before the oldest message that is still held.

This is also the back-pressure of the wire: a worker pauses its output streams while too many of its messages are
unacknowledged.
"""

from collections import deque
from collections.abc import Callable

from gen_worker.wire.scheduler_session import WorkerMemory


class Hold:
    """A batch of messages that is not finished. Code that needs it longer than the call that received it calls `take`,
    and later `release`, once each.

    `number` belongs to the message being delivered, in the worker's own count. It stays the same when the worker sends
    the message again, to any scheduler. 0 when the worker does not number its messages.
    """

    __slots__ = ("_gate", "left", "number", "seq")

    def __init__(self, gate: "AckGate", seq: int) -> None:
        self._gate = gate
        self.seq = seq
        self.left = 1
        self.number = 0

    def take(self) -> "Hold":
        """One more piece of work on this batch begins."""
        self.left += 1
        return self

    def release(self) -> None:
        """One piece of work on this batch is done."""
        self.left -= 1
        if self.left == 0:
            self._gate.advance()


class AckGate:
    """The gate of one worker process, across all its streams. `on_advance` is called when more may be acknowledged."""

    def __init__(self, on_advance: Callable[[], None]) -> None:
        self._on_advance = on_advance
        self.confirmed_seq = 0
        self._holds: deque[Hold] = deque()

    @property
    def held(self) -> int:
        """Batches that are not yet acknowledged."""
        return len(self._holds)

    def open(self, seq: int) -> Hold:
        """A batch that ends with number `seq` has arrived. Release the returned hold once the batch was looked through."""
        hold = Hold(self, seq)
        self._holds.append(hold)
        return hold

    def advance(self) -> None:
        """Acknowledge up to the oldest batch that is still held."""
        before = self.confirmed_seq
        while self._holds and self._holds[0].left == 0:
            self.confirmed_seq = self._holds.popleft().seq
        if self.confirmed_seq != before:
            self._on_advance()


class GatedMemory(WorkerMemory):
    """What is remembered of one worker process, with its gate."""

    def __init__(self, instance_id: str = "") -> None:
        super().__init__(instance_id)
        self.durable_seq = 0
        self.gate = AckGate(self._advanced)
        self._on_ackable: Callable[[], None] | None = None  # callback of its current stream

    def attach(self, on_ackable: Callable[[], None]) -> None:
        """The process uses this stream now; the callback is called when more may be acknowledged."""
        self._on_ackable = on_ackable

    def detach(self, on_ackable: Callable[[], None]) -> None:
        """This stream has ended. A newer stream stays attached."""
        if self._on_ackable == on_ackable:
            self._on_ackable = None

    def _advanced(self) -> None:
        self.durable_seq = self.gate.confirmed_seq
        if self._on_ackable is not None:
            self._on_ackable()
