"""When a worker or a release gets no more runs. Pure.

    worker:   3 attempts in a row ended `internal` or `resource`: its process is broken. It is drained and replaced.
    release:  more than half of its last 20 attempts lost their worker: its code kills workers. It is paused until a person resumes it.

A worker that dies with many runs counts once: it is one death, and the other runs on it are no evidence.
"""

from collections import deque
from typing import Final

SICK: Final = frozenset({"internal", "resource"})
SICK_IN_A_ROW: Final = 3
WINDOW: Final = 20
REPLACE_EVERY_S: Final = 60.0  # a function that always fails must not cause constant replacement of its workers


class WorkerBreaker:
    """The breaker of one worker."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def ended(self, error_type: str) -> bool:
        """An attempt has ended (`error_type` is empty for success); returns whether the worker should be replaced."""
        self._in_a_row = self._in_a_row + 1 if error_type in SICK else 0
        return self._in_a_row >= SICK_IN_A_ROW


class ReleaseBreaker:
    """The breaker of one release."""

    def __init__(self) -> None:
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self._replaced_s = float("-inf")

    def ended(self) -> None:
        """An attempt ended with a report from its worker."""
        self._last.append(False)

    def lost(self) -> bool:
        """A worker was lost with runs on it; returns whether the release should be paused."""
        self._last.append(True)
        return sum(self._last) > WINDOW // 2

    def may_replace(self, now_s: float) -> bool:
        """Whether one of its workers may be replaced for failures now; if so, that is recorded."""
        if now_s - self._replaced_s < REPLACE_EVERY_S:
            return False
        self._replaced_s = now_s
        return True
