# ruff: noqa: S608 - statements are put together from names of ours alone
"""What runs have used, as SQL: of runs that are kept by an index that has all of it, of forgotten ones by sums of each day."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from gen_orchestrator.domain.receipts import SUMMED, UsageRow
from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.store.rows import checked, readable

DAY_S: Final = 86400
USAGE_COLUMNS = UsageRow.__struct_fields__
_GROUP = "owner, invoker_id, endpoint, function"
# Sums are doubles in both databases: integers up to 2^53 are exact, and no overflow hides the rest.
_ADDED = ("gpu_ms", "cpu_ms", "cold_ms", "downloaded_bytes", "loaded_bytes")
_OF_RUNS = (
    "count(*), sum(case when state in ('failed', 'expired') then 1 else 0 end), sum(case when cost_nanos < 0 then 1 else 0 end), "
    "sum(case when finished_at > created_at then (finished_at - created_at) * 1000.0 else 0.0 end), "
    f"{', '.join(f'sum({name} * 1.0)' for name in _ADDED)}, sum(case when cost_nanos > 0 then cost_nanos * 1.0 else 0.0 end)"
)
_MINE = "(? = '' or owner = ?)"

# Without payload and output, which may be large.
OF_RUN = f"select id, {_GROUP}, state, created_at, finished_at, {', '.join(_ADDED)}, cost_nanos from runs where id = ? and finished_at > 0"
FIRST_END = "select min(finished_at) from runs where finished_at > 0"
OF_DAY = (
    f"select ?, {_GROUP}, {_OF_RUNS} from runs where finished_at > 0 and finished_at >= ? and finished_at < ? and {_MINE} group by {_GROUP}"
)
FORGOTTEN = f"select {', '.join(USAGE_COLUMNS)} from usage_days where day >= ? and day < ? and {_MINE}"
ADD = (
    f"insert into usage_days ({', '.join(USAGE_COLUMNS)}) values ({', '.join('?' * len(USAGE_COLUMNS))}) "
    "on conflict (day, owner, invoker_id, endpoint, function) do update set "
    + ", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in SUMMED)
)
_OF_KEY = "from runs where finished_at > 0 and finished_at >= ? and finished_at < ? and invoker_id = ?"
GPU_MS = f"select coalesce(sum(gpu_ms * 1.0), 0.0) {_OF_KEY}"
GPU_MS_OF_EACH = f"select id, gpu_ms {_OF_KEY}"
GPU_MS_FORGOTTEN = "select coalesce(sum(gpu_ms), 0.0) from usage_days where day >= ? and invoker_id = ?"


def day_row(row: Sequence[Any]) -> UsageRow:
    """From a row of `OF_DAY` or `FORGOTTEN`."""
    with readable("usage", row[:5]):
        return checked(dict(zip(USAGE_COLUMNS, (int(row[0]), *row[1:5], *map(round, row[5:])), strict=True)), UsageRow)


def row_of(run: Run) -> UsageRow:
    """What a finished run adds to its day."""
    whose = (run.owner, run.invoker_id, run.endpoint, run.function)
    return run_row((run.id, *whose, str(run.state), run.created_at, run.finished_at, *msgspec.structs.astuple(run.used)))


def run_row(row: Sequence[Any]) -> UsageRow:
    """The same from a row of `OF_RUN`."""
    run_id, whose, (state, created_at, finished_at), added, cost_nanos = row[0], row[1:5], row[5:8], row[8:13], row[13]
    with readable("run", run_id):
        numbers = (
            1,
            int(state in (RunState.FAILED, RunState.EXPIRED)),
            int(cost_nanos < 0),
            round(max(0.0, finished_at - created_at) * 1000),
            *added,
            max(0, cost_nanos),
        )
        return checked(dict(zip(USAGE_COLUMNS, (int(finished_at // DAY_S), *whose, *numbers), strict=True)), UsageRow)


def days(begin_day: int, end_day: int) -> Iterator[tuple[int, float, float]]:
    """Each day with its beginning and end in unix seconds."""
    for day in range(begin_day, end_day):
        yield day, float(day * DAY_S), float((day + 1) * DAY_S)
