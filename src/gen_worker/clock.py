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


def utc_text(unix_s: float) -> str:
    """A moment as RFC 3339 in UTC with milliseconds."""
    second, ms = divmod(round(unix_s * 1e6) // 1000, 1000)
    return f"{_second_text(second)}.{ms:03}Z"


@lru_cache(16)  # formatting a date costs more than the rest of an event, and most moments that are told are of the last seconds
def _second_text(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
