"""Behaviour of every store for usage, also of runs that are already deleted."""

from collections.abc import Callable

import msgspec
from test_store import SUCCESS, a_run, lead

from gen_orchestrator.domain.receipts import Usage, UsageRow
from gen_orchestrator.domain.runs import RunState
from gen_orchestrator.store.base import Store
from gen_orchestrator.store.ops import DONE, Accept, Finish, Lease, Requeue


def test_when_runs_of_an_invoker_were_accepted(store: Store) -> None:
    runs = [a_run(f"r{n}", invoker_id="key:a" if n != 2 else "key:b", created_at=float(n)) for n in range(5)]
    store.apply(lead(store).epoch, [*map(Accept, runs), Lease("r4", 1, "w", 5.0), Finish("r4", 1, SUCCESS)])
    assert store.accepted_since("key:a", 0.0, 10) == {"r4": 4.0, "r3": 3.0, "r1": 1.0}
    assert store.accepted_since("key:a", 0.0, 2) == {"r4": 4.0, "r3": 3.0}
    assert store.accepted_since("key:a", 3.0, 10) == {"r4": 4.0}
    assert store.accepted_since("", 0.0, 10) == {}


def test_what_runs_have_used_is_kept_when_they_are_forgotten(store: Store, make_store: Callable[[], Store]) -> None:
    """By day, owner, key and function; the sums are the same before and after, whoever asks to forget and how often."""
    epoch, day_s = lead(store).epoch, 86400.0
    used = Usage(gpu_ms=100, cpu_ms=20, cold_ms=30, downloaded_bytes=2**40, loaded_bytes=5, cost_nanos=7)
    ends = {"r1": (1, "key:a", used), "r2": (1, "key:a", used), "r3": (2, "key:b", msgspec.structs.replace(used, cost_nanos=-1))}
    for run_id, (day, invoker_id, last) in ends.items():
        run = a_run(run_id, invoker_id=invoker_id, created_at=day * day_s + 1.0)
        ending = msgspec.structs.replace(
            SUCCESS, state=RunState.FAILED if run_id == "r2" else RunState.SUCCEEDED, at=day * day_s + 3.5, used=last
        )
        ops = [
            Accept(run),
            Lease(run_id, 1, "w", 1.0),
            Requeue(run_id, 1, 0.0, True, False, used=Usage(gpu_ms=1)),
            Lease(run_id, 2, "w", 2.0),
        ]
        assert store.apply(epoch, [*ops, Finish(run_id, 2, ending)]) == [DONE] * 5
    store.apply(epoch, [Accept(a_run("r4", owner="bob", created_at=day_s)), Finish("r4", 0, msgspec.structs.replace(SUCCESS, at=day_s))])
    store.apply(epoch, [Accept(a_run("r5", created_at=day_s)), Lease("r5", 1, "w", 2.0)])
    first = store.get("r1")
    assert first is not None
    assert (first.leased_at, first.used) == (2.0, used + Usage(gpu_ms=1))
    shared = {"owner": "ann", "endpoint": "pictures", "function": "draw", "downloaded_bytes": 2**40, "loaded_bytes": 5}
    rows = [
        UsageRow(**{**shared, "day": 1, "invoker_id": "key:a", "runs": 2, "failed": 1, "total_ms": 5000, "gpu_ms": 202, "cpu_ms": 40,
                    "cold_ms": 60, "downloaded_bytes": 2**41, "loaded_bytes": 10, "cost_nanos": 14}),
        UsageRow(day=1, owner="bob", invoker_id="", endpoint="pictures", function="draw", runs=1),
        UsageRow(**shared, day=2, invoker_id="key:b", runs=1, unpriced=1, total_ms=2500, gpu_ms=101, cpu_ms=20, cold_ms=30),
    ]  # fmt: skip
    assert store.usage(0, 10) == rows
    assert store.usage(1, 2, "ann") == rows[:1]
    assert store.usage(2, 3) == rows[2:]
    assert store.usage(3, 10) == store.usage(0, 10, "nobody") == []
    assert store.gpu_ms_since("key:a", day_s, 9 * day_s) == (202, {})
    assert store.gpu_ms_since("key:a", day_s, 0.0) == (0, {"r1": 101, "r2": 101})
    assert store.gpu_ms_since("key:a", 2 * day_s, 9 * day_s) == (0, {})
    assert store.forget(["r1", "r3", "r4", "r5", "r9"]) == 3
    assert store.forget(["r1", "r3"]) == 0
    again = make_store()
    assert again.usage(0, 10) == rows
    assert again.gpu_ms_since("key:a", day_s, 9 * day_s) == (202, {})
    assert again.gpu_ms_since("key:b", 2 * day_s, 9 * day_s) == (101, {})
    assert again.forget(["r2"]) == 1
    assert make_store().usage(0, 10) == rows
