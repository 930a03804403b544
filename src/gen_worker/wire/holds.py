"""Confirm to a worker only what has been dealt with: the number up to which nothing is left to do.

A worker keeps each message until it is confirmed, and sends it again on a new stream. So a scheduler that dies between hearing a result
and writing it down loses nothing, as long as it confirms only what is written. Messages are done with in another order than they come
(a result waits for its commit while the next message needs none), hence a gate: the confirmed number stops before the oldest message
that somebody still holds.

The same is the back-pressure of the wire: a worker's streams of output stand still while too much of what it sent is not confirmed.
"""

from collections import deque
from collections.abc import Callable

from gen_worker.wire.scheduler_session import WorkerMemory


class Hold:
    """A batch of messages that is not done with. Whoever needs longer than the call that handed it over takes it, and releases it once.

    `number` is that of the message which is being handed over, as its worker counts: the same when the worker sends it again, to whatever
    scheduler. 0 where the worker does not count.
    """

    __slots__ = ("_gate", "left", "number", "seq")

    def __init__(self, gate: "AckGate", seq: int) -> None:
        self._gate = gate
        self.seq = seq
        self.left = 1
        self.number = 0

    def take(self) -> "Hold":
        """One more thing of this batch is to be done."""
        self.left += 1
        return self

    def release(self) -> None:
        """One thing of this batch is done."""
        self.left -= 1
        if self.left == 0:
            self._gate.advance()


class AckGate:
    """Of one worker process, over all its streams. `on_advance` is told that more may be confirmed."""

    def __init__(self, on_advance: Callable[[], None]) -> None:
        self._on_advance = on_advance
        self.confirmed_seq = 0
        self._holds: deque[Hold] = deque()

    @property
    def held(self) -> int:
        """Batches that wait to be confirmed."""
        return len(self._holds)

    def open(self, seq: int) -> Hold:
        """A batch has come that ends with number `seq`. Release what this gives once the batch has been looked through."""
        hold = Hold(self, seq)
        self._holds.append(hold)
        return hold

    def advance(self) -> None:
        """Confirm up to the oldest batch that is held."""
        before = self.confirmed_seq
        while self._holds and self._holds[0].left == 0:
            self.confirmed_seq = self._holds.popleft().seq
        if self.confirmed_seq != before:
            self._on_advance()


class GatedMemory(WorkerMemory):
    """What is remembered of one worker process, with the gate that says what may be confirmed to it."""

    def __init__(self, instance_id: str = "") -> None:
        super().__init__(instance_id)
        self.durable_seq = 0
        self.gate = AckGate(self._advanced)
        self._on_ackable: Callable[[], None] | None = None  # of the stream that it has now

    def attach(self, on_ackable: Callable[[], None]) -> None:
        """The process is on this stream now, which hears when more may be confirmed."""
        self._on_ackable = on_ackable

    def detach(self, on_ackable: Callable[[], None]) -> None:
        """This stream has ended; one that came after it stays."""
        if self._on_ackable == on_ackable:
            self._on_ackable = None

    def _advanced(self) -> None:
        self.durable_seq = self.gate.confirmed_seq
        if self._on_ackable is not None:
            self._on_ackable()
