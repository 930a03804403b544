"""Time as a value that is handed in, so that tests can move it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds on two scales: `now_s` only ever grows, `unix_s` is the calendar."""

    def now_s(self) -> float: ...

    def unix_s(self) -> float: ...


class SystemClock:
    """The machine's own clocks."""

    now_s = staticmethod(time.monotonic)
    unix_s = staticmethod(time.time)
