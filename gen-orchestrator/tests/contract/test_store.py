"""Behaviour that all stores share."""

import time
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain.access import AuditRow, Key
from gen_orchestrator.domain.budgets import Budgets
from gen_orchestrator.domain.receipts import Usage
from gen_orchestrator.domain.runs import CANCELED_ERROR, Ending, Run, RunError, RunState
from gen_orchestrator.domain.webhooks import Delivery, Try
from gen_orchestrator.store.base import DeposedError, Leader, OldRun, Release, RunFilter, Store, Tag
from gen_orchestrator.store.memory import MemoryStore
from gen_orchestrator.store.ops import (
    DONE,
    Accept,
    AddDelivery,
    AppendEvents,
    Done,
    Finish,
    Lease,
    Op,
    RecordDelivery,
    Refused,
    RequestCancel,
    Requeue,
)


def a_run(run_id: str = "r1", **changes: object) -> Run:
    fields: dict[str, object] = {
        "id": run_id, "owner": "ann", "endpoint": "pictures", "function": "draw", "tag": "prod", "release_id": "rel-1",
        "payload": b"\x81\xa1p\xa1x", "created_at": 1000.0,
    }  # fmt: skip
    return Run(**{**fields, **changes})  # type: ignore[arg-type]


def lead(store: Store, node: str = "n1") -> Leader:
    leader = store.campaign(node, "127.0.0.1:1", 60)
    assert leader is not None
    return leader


SUCCESS = Ending(state=RunState.SUCCEEDED, at=1010.0, output=b"\x81", metrics=b'{"inference_ms":3}')


def test_a_run_goes_through_its_life(store: Store, make_store: Callable[[], Store]) -> None:
    epoch = lead(store).epoch
    run = a_run(idempotency_key="k", fingerprint="f", webhook=b"{}", priority="high", timeout_ms=500, expires_at=2000.0)
    assert store.apply(epoch, [Accept(run), Lease("r1", 1, "w1", 1001.0, b'{"reason":"hot"}')]) == [DONE, DONE]
    leased = store.get("r1")
    assert leased is not None
    assert (leased.state, leased.attempt, leased.worker_id, leased.started_at, leased.routing) == (
        RunState.LEASED, 1, "w1", 1001.0, b'{"reason":"hot"}',
    )  # fmt: skip
    assert store.apply(epoch, [Finish("r1", 1, SUCCESS)]) == [DONE]
    again = make_store().get("r1")
    assert again is not None
    assert (again.state, again.output, again.metrics, again.finished_at, again.executions) == (
        RunState.SUCCEEDED, b"\x81", b'{"inference_ms":3}', 1010.0, 1,
    )  # fmt: skip
    assert (again.idempotency_key, again.priority, again.timeout_ms, again.expires_at) == ("k", "high", 500, 2000.0)


def test_a_final_state_never_changes(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run()), Lease("r1", 1, "w1", 1.0), Finish("r1", 1, SUCCESS)])
    before = store.get("r1")
    failure = Ending(state=RunState.FAILED, at=9.0, error=RunError(error_type="fatal", code="fatal", message="no"))
    late: list[Op] = [
        Finish("r1", 1, failure), Finish("r1", 2, SUCCESS), Lease("r1", 2, "w2", 9.0), RequestCancel("r1"),
        Requeue("r1", 1, 0.0, executed=True, lost=True),
    ]  # fmt: skip
    for result in store.apply(epoch, late):
        assert result == Refused(before)
    assert store.get("r1") == before


def test_only_the_current_attempt_writes_the_result(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(
        epoch, [Accept(a_run()), Lease("r1", 1, "w1", 1.0), Requeue("r1", 1, 0.0, executed=True, lost=True), Lease("r1", 2, "w2", 2.0)]
    )
    (late,) = store.apply(epoch, [Finish("r1", 1, SUCCESS)])
    assert isinstance(late, Refused)
    assert late.run is not None
    assert (late.run.state, late.run.attempt, late.run.worker_id, late.run.lost_workers, late.run.executions) == (
        RunState.LEASED, 2, "w2", 1, 1,
    )  # fmt: skip
    assert store.apply(epoch, [Finish("r1", 2, SUCCESS)]) == [DONE]


def test_suspicion_grows_with_each_loss_and_stays(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run()), Lease("r1", 1, "w1", 1.0), Requeue("r1", 1, 0.0, executed=True, lost=True, suspicion=2)])
    store.apply(epoch, [Lease("r1", 2, "w2", 2.0), Requeue("r1", 2, 0.0, executed=True, lost=True, suspicion=1)])
    store.apply(epoch, [Lease("r1", 3, "w3", 3.0), Requeue("r1", 3, 0.0, executed=False, lost=False)])
    (run,) = store.open_runs()
    assert (run.suspicion, run.lost_workers, run.executions, run.attempt) == (3, 2, 2, 3)


def test_a_lease_with_an_old_picture_is_refused(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run())])
    assert isinstance(store.apply(epoch, [Lease("r1", 2, "w1", 1.0)])[0], Refused)
    assert store.apply(epoch, [Lease("r1", 1, "w1", 1.0)]) == [DONE]
    assert isinstance(store.apply(epoch, [Lease("r1", 2, "w2", 1.0)])[0], Refused)


def test_the_same_key_gives_the_same_run(store: Store) -> None:
    epoch = lead(store).epoch
    first = a_run("r1", idempotency_key="k")
    assert store.apply(epoch, [Accept(first)]) == [DONE]
    assert store.apply(epoch, [Accept(a_run("r2", idempotency_key="k"))]) == [Refused(first)]
    assert store.apply(epoch, [Accept(a_run("r3", idempotency_key="k", owner="bob"))]) == [DONE]
    assert store.apply(epoch, [Accept(a_run("r4")), Accept(a_run("r5"))]) == [DONE, DONE]
    assert store.by_key("ann", "k") == first
    assert store.by_key("ann", "") is None
    assert store.get("r2") is None


def test_a_cancel_that_came_first_wins_over_a_success(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run()), Lease("r1", 1, "w1", 1.0), RequestCancel("r1"), Finish("r1", 1, SUCCESS)])
    run = store.get("r1")
    assert run is not None
    assert (run.state, run.output, run.error, run.executions) == (RunState.CANCELED, b"", CANCELED_ERROR, 1)


def test_a_canceled_run_is_not_leased(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run()), RequestCancel("r1")])
    assert isinstance(store.apply(epoch, [Lease("r1", 1, "w1", 1.0)])[0], Refused)


def test_a_deposed_leader_writes_nothing(store: Store) -> None:
    old = lead(store)
    store.apply(old.epoch, [Accept(a_run())])
    new = lead(store)
    assert new.epoch > old.epoch
    with pytest.raises(DeposedError):
        store.apply(old.epoch, [Lease("r1", 1, "w1", 1.0)])
    run = store.get("r1")
    assert run is not None
    assert run.state is RunState.QUEUED
    assert not store.renew(old, 60)
    assert store.renew(new, 60)


def test_one_leads_until_its_lease_is_over_or_given_back(store: Store) -> None:
    first = lead(store, "n1")
    assert store.campaign("n2", "127.0.0.1:2", 60) is None
    assert store.leader() == first
    store.resign(first)
    assert store.leader() is None
    second = store.campaign("n2", "127.0.0.1:2", 0.05)
    assert second is not None
    deadline_s = time.monotonic() + 30
    third = None
    while third is None and time.monotonic() < deadline_s:
        third = store.campaign("n1", "127.0.0.1:1", 60)
    assert third is not None
    assert third.epoch > second.epoch > first.epoch


def test_open_runs_come_back_oldest_first(store: Store, make_store: Callable[[], Store]) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run(f"r{n}", created_at=1000.0 - n)) for n in range(5)])
    store.apply(epoch, [Lease("r1", 1, "w", 1.0), Lease("r2", 1, "w", 1.0), Finish("r2", 1, SUCCESS)])
    assert [run.id for run in make_store().open_runs()] == ["r4", "r3", "r1", "r0"]


def test_lists_are_filtered_and_paged(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run(f"r{n}", created_at=float(n), function="draw" if n % 2 else "erase")) for n in range(9)])
    store.apply(epoch, [Lease("r7", 1, "w", 1.0), Finish("r7", 1, SUCCESS)])
    assert [run.id for run in store.list_runs(RunFilter(limit=3))] == ["r8", "r7", "r6"]
    assert [run.id for run in store.list_runs(RunFilter(limit=3, cursor="r6"))] == ["r5", "r4", "r3"]
    assert [run.id for run in store.list_runs(RunFilter(function="draw", states=("queued",)))] == ["r5", "r3", "r1"]
    assert [run.id for run in store.list_runs(RunFilter(states=("succeeded", "failed")))] == ["r7"]
    assert store.list_runs(RunFilter(owner="bob")) == []
    assert store.list_runs(RunFilter(cursor="unknown")) == []


def test_a_list_is_bounded_by_its_bytes(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run(f"r{n}", created_at=float(n), payload=bytes(100 * n))) for n in range(6)])
    store.apply(epoch, [Lease("r0", 1, "w", 1.0), Finish("r0", 1, msgspec.structs.replace(SUCCESS, output=bytes(5000)))])

    def listed(**query: object) -> list[str]:
        return [run.id for run in store.list_runs(msgspec.convert(query, RunFilter))]

    assert listed(max_bytes=1) == ["r5"], "one at least"
    assert listed(max_bytes=500) == ["r5", "r4"], "the first that goes beyond is there, so that who asks sees that there are more"
    assert listed(max_bytes=899) == ["r5", "r4"]
    assert listed(max_bytes=900) == ["r5", "r4", "r3"]
    assert listed(max_bytes=500, cursor="r4", limit=2) == ["r3", "r2"]
    assert listed(max_bytes=300, cursor="r2") == ["r1", "r0"], "outputs count, too"
    assert listed(max_bytes=9999) == ["r5", "r4", "r3", "r2", "r1", "r0"]


def test_events_are_kept_by_attempt(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(
        epoch, [Accept(a_run()), Lease("r1", 1, "w", 1.0), AppendEvents("r1", 1, 1, 2, b"[1,2]"), AppendEvents("r1", 1, 3, 3, b"[3]")]
    )
    store.apply(epoch, [Requeue("r1", 1, 0.0, executed=True, lost=False), Lease("r1", 2, "w", 2.0)])
    assert isinstance(store.apply(epoch, [AppendEvents("r1", 1, 4, 4, b"[4]")])[0], Refused)
    store.apply(epoch, [AppendEvents("r1", 2, 1, 1, b"[1]")])
    assert [(chunk.attempt, chunk.first_seq, chunk.last_seq, chunk.events) for chunk in store.events_of("r1")] == [
        (1, 1, 2, b"[1,2]"), (1, 3, 3, b"[3]"), (2, 1, 1, b"[1]"),
    ]  # fmt: skip
    assert store.events_of("unknown") == []


def test_old_runs_are_forgotten_with_their_events_and_keys(store: Store) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run("r1", idempotency_key="k")), Lease("r1", 1, "w", 1.0), AppendEvents("r1", 1, 1, 1, b"[1]")])
    store.apply(epoch, [Finish("r1", 1, SUCCESS), Accept(a_run("r2"))])
    assert store.old_runs(1010.0, 10) == []
    assert store.old_runs(1011.0, 10) == [OldRun("r1", "ann")]
    assert store.forget(["r1", "r2", "unknown"]) == 1
    assert store.get("r1") is None
    assert store.events_of("r1") == []
    assert store.by_key("ann", "k") is None
    assert store.get("r2") is not None


def test_a_trimmed_run_stays_and_its_key_is_free(store: Store, make_store: Callable[[], Store]) -> None:
    epoch = lead(store).epoch
    store.apply(epoch, [Accept(a_run("r1", idempotency_key="k")), Lease("r1", 1, "w", 1.0), AppendEvents("r1", 1, 1, 1, b"[1]")])
    store.apply(epoch, [Finish("r1", 1, SUCCESS), Accept(a_run("r2", idempotency_key="open")), Lease("r2", 1, "w", 1.0)])
    store.apply(epoch, [AppendEvents("r2", 1, 1, 1, b"[1]")])
    assert store.trim(1010.0, 10) == 0
    assert store.trim(1e12, 10) == 1
    assert store.trim(1e12, 10) == 0
    store = make_store()
    run = store.get("r1")
    assert run is not None
    assert (run.output, run.idempotency_key, store.events_of("r1")) == (b"\x81", "", [])
    assert len(store.events_of("r2")) == 1
    assert isinstance(store.apply(epoch, [Accept(a_run("r3", idempotency_key="open"))])[0], Refused)
    assert store.apply(epoch, [Accept(a_run("r3", idempotency_key="k"))]) == [DONE]
    again = store.by_key("ann", "k")
    assert again is not None
    assert again.id == "r3"
    assert store.old_runs(1e12, 10) == [OldRun("r1", "ann")]


def test_the_leader_can_be_reached_at_its_addresses(store: Store) -> None:
    leader = store.campaign("n1", "10.0.0.1:8081", 60, "http://10.0.0.1:8080")
    assert leader == Leader("n1", 1, "10.0.0.1:8081", "http://10.0.0.1:8080")
    assert store.leader() == leader


def test_a_lease_of_before_the_clock_was_set_back_holds_nobody_up(store: Store, make_store: Callable[[], Store]) -> None:
    first = store.campaign("n1", "127.0.0.1:1", 3600)
    assert first is not None
    assert store.campaign("n2", "127.0.0.1:2", 3600) is None
    second = store.campaign("n2", "127.0.0.1:2", 5)
    assert second is not None
    assert (second.epoch, store.leader()) == (first.epoch + 1, second)
    assert not store.renew(first, 5)
    assert make_store().campaign("n3", "127.0.0.1:3", 5) is None


def test_a_delivery_comes_with_the_end_of_its_run_and_is_recorded(store: Store, make_store: Callable[[], Store]) -> None:
    epoch = lead(store).epoch
    ended = Delivery(id="r1.ended", run_id="r1", moment="ended", created_at=1010.0, next_at=1010.0)
    started = Delivery(id="r1.started", run_id="r1", moment="started", created_at=1001.0, next_at=1001.0)
    store.apply(epoch, [Accept(a_run(warnings=b"", traceparent="00-a-b-01")), Lease("r1", 1, "w1", 1001.0), AddDelivery(started)])
    late = Finish("r1", 2, SUCCESS, msgspec.structs.replace(ended, id="never"))
    done = Finish("r1", 1, msgspec.structs.replace(SUCCESS, warnings=b"[1]"), ended)
    assert [type(result) for result in store.apply(epoch, [late, done, late])] == [Refused, Done, Refused]
    assert isinstance(store.apply(epoch, [AddDelivery(started)])[0], Refused)
    store = make_store()
    epoch = lead(store).epoch
    assert store.pending_deliveries(10) == [started, ended]
    assert store.pending_deliveries(1) == [started]
    assert store.pending_deliveries(10, (1001.0, "r1.started")) == [ended]
    assert store.pending_deliveries(10, (1010.0, "r1.aaa")) == [ended]
    assert store.pending_deliveries(10, (1010.0, "r1.ended")) == []
    run = store.get("r1")
    assert run is not None
    assert (run.warnings, run.traceparent) == (b"[1]", "00-a-b-01")
    again = msgspec.structs.replace(started, next_at=2000.0, tries=(Try(1002.0, 5, 0, "refused"),))
    told = msgspec.structs.replace(ended, state="delivered", tries=(Try(1011.0, 7, 200),))
    assert store.apply(epoch, [RecordDelivery(again), RecordDelivery(told)]) == [DONE, DONE]
    assert isinstance(store.apply(epoch, [RecordDelivery(ended)])[0], Refused)
    assert store.pending_deliveries(10) == [again]
    assert store.deliveries_of("r1") == [again, told]
    assert store.deliveries_of("r2") == []


def test_a_tag_moves_by_compare_and_set(store: Store, make_store: Callable[[], Store]) -> None:
    for number in (1, 2):
        store.add_release(
            Release(release_id=f"rel-{number}", owner="ann", endpoint="e", manifest=b"{}", source="/x", created_at=float(number))
        )
    first = Tag(owner="ann", endpoint="e", function="f", tag="prod", release_id="rel-1", version=1, moved_at=1.0)
    second = Tag(owner="ann", endpoint="e", function="f", tag="prod", release_id="rel-2", version=2, moved_at=2.0)
    assert store.move_tag(second) is None
    assert store.move_tag(first) == first
    assert store.move_tag(first) is None
    assert store.move_tag(second) == second
    store = make_store()
    assert store.tags() == [second]
    assert store.tags("bob") == []
    assert store.tag_history("ann", "e", "f", "prod") == [second, first]
    assert [release.release_id for release in store.releases("ann")] == ["rel-2", "rel-1"]
    assert store.release("rel-9") is None


ATTEMPTS = st.integers(0, 3)
IDS = st.sampled_from(["r1", "r2"])
ENDINGS = st.sampled_from(
    [
        SUCCESS,
        Ending(state=RunState.FAILED, at=3.0, error=RunError(error_type="fatal", code="fatal", message="no", detail="x")),
        Ending(state=RunState.CANCELED, at=4.0, error=CANCELED_ERROR),
        Ending(state=RunState.EXPIRED, at=5.0, error=RunError(error_type="fatal", code="expired", message="late")),
    ]
)
USED = st.builds(Usage, st.integers(0, 9), st.integers(0, 9), loaded_bytes=st.integers(0, 1 << 50), cost_nanos=st.integers(-1, 1 << 50))
OPS = st.one_of(
    st.builds(lambda run_id, key: Accept(a_run(run_id, idempotency_key=key)), IDS, st.sampled_from(["", "k"])),
    st.builds(Lease, IDS, ATTEMPTS, st.sampled_from(["w1", "w2"]), st.floats(1, 9), st.just(b"{}")),
    st.builds(Requeue, IDS, ATTEMPTS, st.floats(0, 9), st.booleans(), st.booleans(), st.integers(0, 2), USED),
    st.builds(
        lambda run_id, attempt, ending, used: Finish(run_id, attempt, msgspec.structs.replace(ending, used=used)),
        IDS,
        ATTEMPTS,
        ENDINGS,
        USED,
    ),
    st.builds(RequestCancel, IDS),
)


def test_keys_and_the_audit(store: Store, make_store: Callable[[], Store]) -> None:
    keys = [
        Key(key_id=f"k{n}", owner="ann", name="ci", scopes=("invoke", "publish"), secret_sha256="ab", created_at=float(n)) for n in (1, 2)
    ]
    for key in keys:
        store.add_key(key)
    assert [store.revoke_key(key_id, 5.0) for key_id in ("k1", "k1", "k3")] == [True, False, False]
    rows = [
        AuditRow(row_id=str(n), at=float(n), owner=owner, actor="key:k1", action="promote", subject="e/f:prod", detail="rel-1")
        for n, owner in enumerate(("ann", "bob", "ann"))
    ]
    for row in (*rows, rows[0]):
        store.add_audit(row)
    again = make_store()
    budgets = Budgets(rate="60/m", concurrency=4)
    assert [again.set_budgets(key_id, budgets) for key_id in ("k2", "k3")] == [True, False]
    assert again.list_keys() == [
        msgspec.structs.replace(keys[0], revoked_at=5.0),
        msgspec.structs.replace(keys[1], budgets=budgets),
    ]
    assert again.audit("ann", 10) == [rows[2], rows[0]]
    assert again.audit("", 2) == [rows[2], rows[1]]


@given(batches=st.lists(st.lists(OPS, max_size=5), max_size=8))
def test_any_operations_do_the_same_everywhere(store: Store, batches: Sequence[Sequence[Op]]) -> None:
    """The memory store does the moves of `domain/runs`; whatever comes, the databases end where it ends."""
    model = MemoryStore(time.time)
    leader, own = lead(store), lead(model)
    for run in store.open_runs():
        store.apply(leader.epoch, [Finish(run.id, run.attempt, SUCCESS)])
    store.forget([run.run_id for run in store.old_runs(1e12, 1000)])
    for batch in batches:
        assert store.apply(leader.epoch, batch) == model.apply(own.epoch, batch)
    for run_id in ("r1", "r2"):
        assert store.get(run_id) == model.get(run_id)
