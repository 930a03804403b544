"""Budgets of a key: runs per time, runs at once, GPU seconds per day or month. Pure.

    rate         "60/m"     runs accepted in any 60 s. Windows slide: at no moment does a minute hold more than 60.
    concurrency  4          runs that are open at once: queued, on a worker, or waiting for a retry
    gpu_seconds  "3600/d"   GPU seconds of the runs that ended since midnight, or since the first of the month; both in UTC

Budgets are checked when a run is accepted. An accepted run is never stopped for a budget, so GPU seconds may exceed theirs by the runs open
at that time. A request that finds its existing run, by idempotency key or id, uses nothing.
"""

import math
import re
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from gen_worker.texts import counted

BudgetName = Literal["rate", "concurrency", "gpu_seconds"]
MAX_RUNS: Final = 1_000_000
MAX_GPU_SECONDS: Final = 1e9
RATE_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
LAST_S: Final = 32503680000.0  # end of the year 2999
GPU_UNITS: Final = ("d", "month")
_RATE = re.compile(r"([0-9]{1,9})/([a-z]{1,9})")
_GPU = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)/([a-z]{1,9})")


class Budgets(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The budgets of one key, as people write them; empty and 0 mean no budget. Create it with `checked`."""

    rate: str = ""
    concurrency: int = 0
    gpu_seconds: str = ""

    def __bool__(self) -> bool:
        return bool(self.rate or self.concurrency or self.gpu_seconds)


NO_BUDGETS: Final = Budgets()


class Exhausted(msgspec.Struct, frozen=True):
    """A budget is used up. `free_in_s`: when it has room again; None when that depends on the end of a run."""

    budget: BudgetName
    limit: str
    used: float
    free_in_s: float | None

    @property
    def detail(self) -> str:
        """A sentence with the budget, its limit, what is used, and when it has room again."""
        used = round(self.used)
        match self.budget:
            case "rate":
                what = f"{counted(used, 'run was', 'runs were')} accepted for this key; its budget is rate {self.limit}"
            case "concurrency":
                what = f"{counted(used, 'run of this key is', 'runs of this key are')} open; its budget is concurrency {self.limit}"
            case "gpu_seconds":
                what = f"the runs of this key have used {self.used:.1f} GPU seconds; its budget is gpu_seconds {self.limit}"
        when = "when one of them ends" if self.free_in_s is None else f"in {math.ceil(self.free_in_s)} s"
        return f"{what}. It is free again {when}"


def checked(rate: str | None, concurrency: int | None, gpu_seconds: str | None) -> Budgets:
    """Budgets in their canonical spelling; None, "" and "none" mean no budget. `ValueError` names an invalid one and the valid forms."""
    if concurrency is not None and not 1 <= concurrency <= MAX_RUNS:
        raise ValueError(f"concurrency {concurrency}: expected 1 to {MAX_RUNS} runs at once; leave it out (none) for no limit")
    rate, gpu_seconds = ("" if each in (None, "none") else each.strip() for each in (rate, gpu_seconds))
    if rate:
        runs, unit = parse_rate(rate)
        rate = f"{runs}/{unit}"
    if gpu_seconds:
        seconds, unit = parse_gpu_seconds(gpu_seconds)
        gpu_seconds = f"{seconds:.15g}/{unit}"
    return Budgets(rate=rate, concurrency=concurrency or 0, gpu_seconds=gpu_seconds)


def told(budgets: Budgets) -> str:
    """Text for people: `rate=60/m concurrency=4`, or `none`."""
    return " ".join(f"{name}={getattr(budgets, name)}" for name in Budgets.__struct_fields__ if getattr(budgets, name)) or "none"


def parse_rate(text: str) -> tuple[int, str]:
    """Runs and unit of `60/m`."""
    found = _RATE.fullmatch(text)
    if found is None or found[2] not in RATE_UNITS or not 1 <= int(found[1]) <= MAX_RUNS:
        raise ValueError(f"rate {text[:40]!r}: expected 1 to {MAX_RUNS} runs a second, minute or hour, such as 10/s, 60/m or 1000/h")
    return int(found[1]), found[2]


def parse_gpu_seconds(text: str) -> tuple[float, str]:
    """Seconds and unit of `3600/d`."""
    found = _GPU.fullmatch(text)
    if found is None or found[2] not in GPU_UNITS or not 0 < float(found[1]) <= MAX_GPU_SECONDS:
        most = f"{MAX_GPU_SECONDS:.0f}"
        raise ValueError(f"gpu_seconds {text[:40]!r}: expected up to {most} seconds a day or month, such as 3600/d or 50000/month")
    return float(found[1]), found[2]


def calendar_window(unit: str, unix_s: float) -> tuple[float, float]:
    """The day or month of a time: its beginning and end in unix seconds, in UTC. Every time has one: a broken clock's
    time outside the years 1970 to 2999 counts as the first or the last window.
    """
    if not 0.0 <= unix_s < LAST_S:
        return (-math.inf, 0.0) if unix_s < 0.0 else (LAST_S, math.inf)
    now = datetime.fromtimestamp(unix_s, UTC)
    first = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "d":
        return first.timestamp(), first.timestamp() + 86400.0
    first = first.replace(day=1)
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return first.timestamp(), after.timestamp()


class RateWindow:
    """When runs were accepted, as far back as the window reaches. Times are seconds of one clock that never goes back."""

    def __init__(self, runs: int, window_s: float, times: Iterable[float] = ()) -> None:
        self._runs = runs
        self._window_s = window_s
        self._times = deque(sorted(times))

    def used(self, now_s: float) -> int:
        """Runs accepted in the window that ends now."""
        times = self._times
        while times and times[0] <= now_s - self._window_s:
            times.popleft()
        return len(times)

    def free_in_s(self, now_s: float) -> float:
        """Seconds until one more may be accepted; 0 for now."""
        over = self.used(now_s) - self._runs
        return 0.0 if over < 0 else max(0.0, self._times[over] + self._window_s - now_s)

    def add(self, now_s: float) -> None:
        """A run was accepted now."""
        self._times.append(now_s)

    def take_back(self, at_s: float) -> None:
        """The run recorded at that time was not accepted after all."""
        for index in range(len(self._times) - 1, -1, -1):  # it is among the latest
            if self._times[index] == at_s:
                del self._times[index]
                return


class Spent(msgspec.Struct, frozen=True):
    """What a key has used: runs in its rate's window, and when that has room; open runs; GPU seconds, and the end of
    their day or month.
    """

    runs: int = 0
    runs_free_in_s: float = 0.0
    open_runs: int = 0
    gpu_s: float = 0.0
    gpu_free_in_s: float = 0.0


def exhausted(budgets: Budgets, spent: Spent) -> Exhausted | None:
    """The used-up budget that is free again last; None when there is room for one more run."""
    if budgets.gpu_seconds and spent.gpu_s >= parse_gpu_seconds(budgets.gpu_seconds)[0]:
        return Exhausted("gpu_seconds", budgets.gpu_seconds, spent.gpu_s, spent.gpu_free_in_s)
    if budgets.concurrency and spent.open_runs >= budgets.concurrency:
        return Exhausted("concurrency", str(budgets.concurrency), spent.open_runs, None)
    if budgets.rate and spent.runs >= parse_rate(budgets.rate)[0]:
        return Exhausted("rate", budgets.rate, spent.runs, spent.runs_free_in_s)
    return None
