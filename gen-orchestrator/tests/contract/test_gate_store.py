"""Behaviour of every store for golden requests, results of gates, and candidates."""

from collections.abc import Callable

import msgspec
from test_store import SUCCESS, a_run, lead

from gen_orchestrator.domain.canary import Candidate
from gen_orchestrator.domain.gates import GateResult, Golden
from gen_orchestrator.domain.shadow import Shadow
from gen_orchestrator.store.base import OldRun, Store
from gen_orchestrator.store.ops import Accept, Finish, Lease

A_GOLDEN = Golden(
    golden_id="g1", owner="ann", endpoint="pictures", function="draw", run_id="r1", input=b"\x81\xa1p\xc4\x01\xff", output=b'{"a":1}',
    tolerance=0.25, created_at=5.0,
)  # fmt: skip
A_CANDIDATE = Candidate(owner="ann", endpoint="pictures", function="draw", tag="prod", release_id="rel-2", percent=12.5, since=7.0)
A_SHADOW = Shadow(
    owner="ann", endpoint="pictures", function="draw", tag="prod", release_id="rel-2", against="rel-1", percent=12.5, tolerance=0.01, runs=40,
    since=7.0, tally=b'{"equal":3}',
)  # fmt: skip
A_RESULT = GateResult(
    release_id="rel-1", function="draw", kind="golden", subject="g1", owner="ann", passed=False, detail=b'{"error":"no"}', at=6.0
)


def test_golden_requests_are_kept_until_they_are_removed(store: Store, make_store: Callable[[], Store]) -> None:
    later = msgspec.structs.replace(A_GOLDEN, golden_id="g0", created_at=9.0)
    other = msgspec.structs.replace(A_GOLDEN, golden_id="g2", owner="bob", endpoint="texts")
    for each in (later, A_GOLDEN, other, msgspec.structs.replace(A_GOLDEN, tolerance=1.0)):
        store.add_golden(each)
    again = make_store()
    assert again.goldens("ann") == again.goldens("ann", "pictures") == [A_GOLDEN, later]
    assert again.goldens() == [A_GOLDEN, other, later]
    assert again.goldens("ann", "texts") == []
    assert (again.remove_golden("g1"), again.remove_golden("g1"), again.goldens("ann")) == (True, False, [later])


def test_the_run_of_a_golden_request_is_not_old(store: Store) -> None:
    epoch = lead(store).epoch
    for run_id in ("r1", "r2"):
        store.apply(epoch, [Accept(a_run(run_id)), Lease(run_id, 1, "w1", 1.0), Finish(run_id, 1, SUCCESS)])
    store.add_golden(A_GOLDEN)
    assert store.old_runs(1e12, 9) == [OldRun("r2", "ann")]
    store.remove_golden("g1")
    assert store.old_runs(1e12, 9) == [OldRun("r1", "ann"), OldRun("r2", "ann")]


def test_the_latest_result_of_a_gate_stands(store: Store, make_store: Callable[[], Store]) -> None:
    passed = msgspec.structs.replace(A_RESULT, passed=True, detail=b"{}", at=7.0)
    canary = msgspec.structs.replace(A_RESULT, kind="canary", subject="prod")
    store.save_results([A_RESULT, canary, msgspec.structs.replace(A_RESULT, release_id="rel-2")])
    store.save_results([passed])
    store.save_results([])
    again = make_store()
    assert again.results("rel-1") == [canary, passed]
    again.add_golden(A_GOLDEN)
    again.remove_golden("g1")
    assert (again.results("rel-1"), again.results("rel-2")) == ([canary], [])


def test_a_tag_has_one_candidate(store: Store, make_store: Callable[[], Store]) -> None:
    other = msgspec.structs.replace(A_CANDIDATE, tag="dev")
    more = msgspec.structs.replace(A_CANDIDATE, release_id="rel-3", percent=50.0, since=8.0)
    for each in (A_CANDIDATE, other, more):
        store.set_candidate(each)
    again = make_store()
    assert again.candidates() == [other, more]
    place = ("ann", "pictures", "draw", "prod")
    assert (again.drop_candidate(*place), again.drop_candidate(*place), again.candidates()) == (True, False, [other])


def test_a_tag_has_one_shadow_that_stays_when_it_has_ended(store: Store, make_store: Callable[[], Store]) -> None:
    other = msgspec.structs.replace(A_SHADOW, tag="dev")
    ended = msgspec.structs.replace(A_SHADOW, ended_at=9.0, why="stopped", tally=b"{}")
    for each in (A_SHADOW, other, ended):
        store.set_shadow(each)
    again = make_store()
    assert again.shadows() == [other, ended]
    begun_anew = msgspec.structs.replace(A_SHADOW, release_id="rel-3", against="rel-2", percent=50.0, tolerance=0.0, runs=0, since=10.0)
    again.set_shadow(begun_anew)
    assert make_store().shadows() == [other, begun_anew]
