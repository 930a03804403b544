"""Time as an object that is passed in, so that tests can control it."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Seconds on two scales: `now_s` only grows, `unix_s` is the calendar."""

    def now_s(self) -> float: ...

    def unix_s(self) -> float: ...


class SystemClock:
    """The machine's own clocks."""

    now_s = staticmethod(time.monotonic)
    unix_s = staticmethod(time.time)


class SteadyCalendar:
    """Reads the calendar from a clock once. From then on it follows the monotonic clock, even if someone sets the
    system clock.

    `unix_s` is for times that are stored and waited for: setting the system clock neither delays anything for hours nor
    triggers it too early. `earliest_s` is for deleting things that are old enough. It is never later than either clock:
    things written before or after the system clock was set never look older than they are. After the clock was set
    forward, they stay until their time has really passed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s = clock.unix_s() - clock.now_s()

    def unix_s(self) -> float:
        return self._clock.now_s() + self._ahead_s

    def earliest_s(self) -> float:
        return min(self.unix_s(), self._clock.unix_s())


def utc_text(unix_s: float) -> str:
    """A time as RFC 3339 in UTC with milliseconds."""
    second, ms = divmod(round(unix_s * 1e6) // 1000, 1000)
    return f"{_second_text(second)}.{ms:03}Z"


@lru_cache(16)  # formatting a date costs more than the rest of an event, and most times shown are from the last seconds
def _second_text(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
