"""Behaviour of every store for the large batches of a busy leader."""

import time
import uuid
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import SUCCESS, a_run, lead

from gen_orchestrator.domain.receipts import Usage
from gen_orchestrator.domain.webhooks import Delivery
from gen_orchestrator.store.base import Store
from gen_orchestrator.store.memory import MemoryStore
from gen_orchestrator.store.ops import Accept, AppendEvents, Finish, Lease, Op, RequestCancel

GOES_ON = ["plain", "plain", "plain", "waiting", "canceled", "told", "said"]
KINDS = st.one_of(
    st.lists(st.sampled_from(GOES_ON), min_size=1, max_size=90),
    st.lists(st.sampled_from([*GOES_ON, "keyed", "late"]), min_size=1, max_size=90),
)


@settings(max_examples=25)
@given(kinds=KINDS)
def test_a_crowd_of_runs_goes_its_way_in_a_few_batches(store: Store, kinds: Sequence[str]) -> None:
    """As a busy leader writes: new runs with their leases, what some of them say, and the ends of many, in one batch."""
    model = MemoryStore(time.time)
    leader, own = lead(store), lead(model)
    prefix = uuid.uuid4().hex
    runs = [
        (a_run(f"{prefix}-{number}", idempotency_key=f"{prefix}-{number // 2}" if kind == "keyed" else ""), kind)
        for number, kind in enumerate(kinds)
    ]
    begun: list[Op] = []
    for run, kind in runs:
        begun.append(Accept(run))
        if kind != "waiting":
            begun.append(Lease(run.id, 1, "w1", 1001.0, b'{"reason":"hot"}'))
    over: list[Op] = []
    for number, (run, kind) in enumerate(runs):
        if kind == "said":
            over.append(AppendEvents(run.id, 1, 1, 2, b"[]"))
        if kind == "canceled":
            over.append(RequestCancel(run.id))
        delivery = (
            Delivery(id=f"{run.id}.ended", run_id=run.id, moment="ended", created_at=1010.0, next_at=1010.0) if kind == "told" else None
        )
        ending = msgspec.structs.replace(SUCCESS, at=1010.0 + number, used=Usage(number, 2, 3, 4, 5, 6))
        over.append(Finish(run.id, {"late": 2, "waiting": 0}.get(kind, 1), ending, delivery))
    for batch in (begun, over, over[:3]):
        assert store.apply(leader.epoch, batch) == model.apply(own.epoch, batch)
    for run, _ in runs:
        assert store.get(run.id) == model.get(run.id)
        assert (store.events_of(run.id), store.deliveries_of(run.id)) == (model.events_of(run.id), model.deliveries_of(run.id))
