"""Acknowledge to a worker only what the store has: the number up to which everything has been written.

A worker keeps each message until it is confirmed, and sends it again on a new stream. So a leader that dies between hearing a result
and writing it loses nothing, as long as it confirms only what is written. Messages are written in another order than they come
(a result waits for its commit while the next message needs none), hence a gate: the confirmed number stops before the oldest message
that is still being written.
"""

from collections import deque
from collections.abc import Callable


class Hold:
    """Part of one batch of messages that is still being written."""

    __slots__ = ("_gate", "left", "seq")

    def __init__(self, gate: "AckGate", seq: int) -> None:
        self._gate = gate
        self.seq = seq
        self.left = 1

    def take(self) -> "Hold":
        """One more thing of this batch has to be written."""
        self.left += 1
        return self

    def release(self) -> None:
        """One thing of this batch is written, or needs no writing."""
        self.left -= 1
        if self.left == 0:
            self._gate.advance()


class AckGate:
    """Of one worker process, over all its streams. `on_advance` is told that more may be confirmed."""

    def __init__(self, on_advance: Callable[[], None]) -> None:
        self.on_advance = on_advance
        self.confirmed_seq = 0
        self._holds: deque[Hold] = deque()

    def open(self, seq: int) -> Hold:
        """A batch has come that ends with number `seq`. Release what this gives once the batch has been looked through."""
        hold = Hold(self, seq)
        self._holds.append(hold)
        return hold

    def advance(self) -> None:
        """Confirm up to the oldest batch that is not written."""
        before = self.confirmed_seq
        while self._holds and self._holds[0].left == 0:
            self.confirmed_seq = self._holds.popleft().seq
        if self.confirmed_seq != before:
            self.on_advance()
