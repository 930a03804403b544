"""What runs use, and what it costs. Pure.

Of each attempt that a worker began:

    device time  what the worker says of it (`metrics.run`: loading to the device, the function's call), at most the time that it had the
                 run; where it says nothing (it failed, was canceled, or was lost) the time from its start of the run to the end
    cold time    until the worker that took the run had joined, where that was later than the run; and bringing its models
    bytes        of models: downloaded, and loaded to the device

Every attempt counts, lost and failed ones, too: a run's receipt is the sum of its attempts, and a day's usage is the sum of its runs. On a
worker with a GPU, device time is GPU time; a run counts one GPU even if runs share it. On other workers it is CPU time.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec

MAX_MS: Final = 10 * 366 * 24 * 3600 * 1000
MAX_BYTES: Final = 1 << 50  # of one attempt
MAX_NANOS: Final = 1 << 50  # of one attempt: a million units of the currency
UNPRICED: Final = -1
NANO: Final = 1_000_000_000
GB: Final = 1_000_000_000
Price = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Usage(msgspec.Struct, frozen=True):
    """Whole milliseconds and bytes; the cost in billionths of the currency, `UNPRICED` when a part of it has no price."""

    gpu_ms: int = 0
    cpu_ms: int = 0
    cold_ms: int = 0
    downloaded_bytes: int = 0
    loaded_bytes: int = 0
    cost_nanos: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        unpriced = UNPRICED in (self.cost_nanos, other.cost_nanos)
        return Usage(
            self.gpu_ms + other.gpu_ms,
            self.cpu_ms + other.cpu_ms,
            self.cold_ms + other.cold_ms,
            self.downloaded_bytes + other.downloaded_bytes,
            self.loaded_bytes + other.loaded_bytes,
            UNPRICED if unpriced else self.cost_nanos + other.cost_nanos,
        )


NOTHING: Final = Usage()


class Said(msgspec.Struct, frozen=True):
    """A worker's report about an attempt; None where it reported nothing. Milliseconds on the device and for bringing models, bytes."""

    device_ms: int | None = None
    models_ms: int = 0
    downloaded_bytes: int = 0
    loaded_bytes: int = 0


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price table: for a second on a GPU by its name, on any other GPU, on a worker without one; for 10^9 bytes. None
    means no price.
    """

    currency: str = "USD"
    gpus: Mapping[str, Price] = {}
    gpu_second: Price | None = None
    cpu_second: Price | None = None
    downloaded_gb: Price = 0.0
    loaded_gb: Price = 0.0


def attempt(said: Said, *, had_s: float, worked_s: float, gpu: str | None, prices: Prices | None) -> Usage:
    """What one attempt used. `had_s`: seconds since its worker was given the run; `worked_s`: seconds since it began, 0
    if it did not; `gpu`: the name of the worker's GPU, None without one. Neither a jumping clock nor a worker's report
    can make a number negative or implausibly large.
    """
    had_ms = _bounded(round(had_s * 1000), MAX_MS)
    device_ms = _bounded(round(worked_s * 1000), had_ms) if said.device_ms is None else _bounded(said.device_ms, had_ms)
    used = Usage(
        gpu_ms=device_ms if gpu is not None else 0,
        cpu_ms=0 if gpu is not None else device_ms,
        cold_ms=_bounded(said.models_ms, had_ms),
        downloaded_bytes=_bounded(said.downloaded_bytes, MAX_BYTES),
        loaded_bytes=_bounded(said.loaded_bytes, MAX_BYTES),
    )
    return msgspec.structs.replace(used, cost_nanos=_cost_nanos(used, gpu, prices))


def _cost_nanos(used: Usage, gpu: str | None, prices: Prices | None) -> int:
    if prices is None:
        return UNPRICED
    second = prices.cpu_second if gpu is None else prices.gpus.get(gpu, prices.gpu_second)
    if second is None:
        return UNPRICED
    seconds = (used.gpu_ms + used.cpu_ms) / 1000
    moved = prices.downloaded_gb * used.downloaded_bytes / GB + prices.loaded_gb * used.loaded_bytes / GB
    return _bounded(round((second * seconds + moved) * NANO), MAX_NANOS)


def _bounded(value: int, most: int) -> int:
    return min(max(0, value), most)


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """The summed usage of all runs of one invoker and function that ended on one day. `day` counts from 1970-01-01 in
    UTC; `unpriced` of the runs have no cost. `total_ms` is from acceptance to end.
    """

    day: int
    owner: str
    invoker_id: str
    endpoint: str
    function: str
    runs: int = 0
    failed: int = 0
    unpriced: int = 0
    total_ms: int = 0
    gpu_ms: int = 0
    cpu_ms: int = 0
    cold_ms: int = 0
    downloaded_bytes: int = 0
    loaded_bytes: int = 0
    cost_nanos: int = 0


SUMMED: Final = UsageRow.__struct_fields__[5:]


def summed(rows: Iterable[UsageRow]) -> list[UsageRow]:
    """One row for each day, owner, invoker and function, in that order."""
    found: dict[tuple[int, str, str, str, str], UsageRow] = {}
    for row in rows:
        key = (row.day, row.owner, row.invoker_id, row.endpoint, row.function)
        there = found.get(key)
        if there is not None:
            row = msgspec.structs.replace(row, **{name: getattr(row, name) + getattr(there, name) for name in SUMMED})
        found[key] = row
    return [row for _, row in sorted(found.items())]
