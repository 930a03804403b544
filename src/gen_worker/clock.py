"""Time as a value that is handed in, so that tests can move it."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Seconds on two scales: `now_s` only ever grows, `unix_s` is the calendar."""

    def now_s(self) -> float: ...

    def unix_s(self) -> float: ...


class SystemClock:
    """The machine's own clocks."""

    now_s = staticmethod(time.monotonic)
    unix_s = staticmethod(time.time)


class SteadyCalendar:
    """The calendar, read off a clock once. From then on it goes as the monotonic clock does, whatever somebody sets the other one to.

    `unix_s` is for times that are written down and waited for: a clock that is set holds nothing up for hours, and does nothing too early.
    `earliest_s` is for what is deleted when it is old enough. It is never later than either clock says: what was written before or after a
    clock was set does not look older than it is. After a clock was set forward, such things stay until their time has really passed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s = clock.unix_s() - clock.now_s()

    def unix_s(self) -> float:
        return self._clock.now_s() + self._ahead_s

    def earliest_s(self) -> float:
        return min(self.unix_s(), self._clock.unix_s())


def utc_text(unix_s: float) -> str:
    """A moment as RFC 3339 in UTC with milliseconds."""
    second, ms = divmod(round(unix_s * 1e6) // 1000, 1000)
    return f"{_second_text(second)}.{ms:03}Z"


@lru_cache(16)  # formatting a date costs more than the rest of an event, and most moments that are told are of the last seconds
def _second_text(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
