"""Decisions of the control plane."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain.admission import Load, refusal
from gen_orchestrator.domain.queue import FairQueue, Waiting
from gen_orchestrator.domain.retries import REFUSAL, Again, GiveUp, after_failure
from gen_orchestrator.domain.routing import Choice, Need, WorkerView, choose
from gen_orchestrator.domain.runs import Run, RunError
from gen_orchestrator.domain.scaling import Demand, ScalingLimits, backoff_s, wanted_workers


def drain(queue: FairQueue, now_s: float = 0.0) -> list[str]:
    order = []
    while (item := queue.peek(now_s)) is not None:
        queue.take(item)
        order.append(item.run_id)
    return order


def test_one_owner_is_served_in_order() -> None:
    queue = FairQueue()
    for number in range(5):
        queue.push(Waiting(f"r{number}", "ann", "normal", 0.0))
    assert drain(queue) == [f"r{number}" for number in range(5)]
    assert len(queue) == 0


def test_owners_take_turns_however_much_one_of_them_sends() -> None:
    queue = FairQueue()
    for number in range(50):
        queue.push(Waiting(f"a{number}", "ann", "normal", 0.0))
    for number in range(5):
        queue.push(Waiting(f"b{number}", "bob", "normal", 0.0))
    first = drain(queue)[:10]
    assert sum(run_id.startswith("b") for run_id in first) == 5


def test_an_owner_of_long_runs_gets_the_same_time_not_the_same_number() -> None:
    queue = FairQueue()
    for number in range(40):
        queue.push(Waiting(f"a{number}", "ann", "normal", 0.0, cost_s=8.0))
        queue.push(Waiting(f"b{number}", "bob", "normal", 0.0, cost_s=1.0))
    first = drain(queue)[:18]
    assert 1 <= sum(run_id.startswith("a") for run_id in first) <= 4


def test_classes_are_served_8_to_4_to_1() -> None:
    queue = FairQueue()
    for name in ("low", "normal", "high"):
        for number in range(40):
            queue.push(Waiting(f"{name}{number}", "ann", name, 0.0))
    first = drain(queue)[:13]
    assert [sum(run_id.startswith(name) for run_id in first) for name in ("high", "normal", "low")] == [8, 4, 1]


def test_who_waits_a_minute_moves_up() -> None:
    queue = FairQueue()
    queue.push(Waiting("old", "ann", "low", 0.0))
    for number in range(100):
        queue.push(Waiting(f"h{number}", "bob", "high", 100.0))
    assert "old" in drain(queue, now_s=121.0)[:3]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["high", "normal", "low"]), st.floats(0.01, 100)), max_size=40), st.randoms()
)
def test_everything_that_enters_the_queue_leaves_it_once(items: list[tuple[str, str, float]], random: Random) -> None:
    queue = FairQueue()
    names = [f"r{number}" for number in range(len(items))]
    for name, (owner, priority, cost_s) in zip(names, items, strict=True):
        queue.push(Waiting(name, owner, priority, random.uniform(0, 100), cost_s), front=random.random() < 0.3)
    removed = {name for name in names if random.random() < 0.2 and queue.remove(name)}
    order = drain(queue, now_s=random.uniform(0, 500))
    assert sorted(order) == sorted(set(names) - removed)
    assert len(queue) == 0


HOT = WorkerView(worker_id="hot", slots=1, tiers={"m": ("vram", 10)})
WARM = WorkerView(worker_id="warm", slots=1, tiers={"m": ("disk", 2_000_000_000)}, load_bytes_per_s=1_000_000_000)
COLD = WorkerView(worker_id="cold", slots=1)
NEED = Need(models=("m",), run_s=1.0)


def busy(worker: WorkerView, free_in_s: float) -> WorkerView:
    return WorkerView(
        worker_id=worker.worker_id, slots=1, running=1, free_in_s=free_in_s, tiers=worker.tiers, load_bytes_per_s=worker.load_bytes_per_s
    )


def test_hot_goes_before_warm_before_cold() -> None:
    assert choose(NEED, [COLD, WARM, HOT]).worker_id == "hot"
    assert choose(NEED, [COLD, WARM]).worker_id == "warm"
    choice = choose(NEED, [COLD])
    assert (choice.worker_id, choice.reason) == ("cold", "cold")


def test_a_run_waits_for_the_hot_worker_as_long_as_loading_elsewhere_would_take() -> None:
    choice = choose(NEED, [busy(HOT, 1.0), WARM])
    assert (choice.worker_id, choice.reason) == ("", "waits_for_hot")
    assert choose(NEED, [busy(HOT, 5.0), WARM]).worker_id == "warm"


def test_who_was_considered_is_told_also_of_a_run_that_waits() -> None:
    assert choose(NEED, [busy(HOT, 2.0), WARM]).worker_id == "warm", "as long as the load: the one with room"
    choice = choose(NEED, [busy(HOT, 1.9), WARM])
    assert (choice.worker_id, choice.reason) == ("", "waits_for_hot")
    assert [candidate.worker_id for candidate in choice.considered] == ["hot", "warm"]
    full = WorkerView(worker_id="a", slots=1, running=1, tiers={"m": ("vram", 10)})
    free = WorkerView(worker_id="b", slots=1, tiers={"m": ("disk", 1_000_000)}, load_bytes_per_s=1_000_000_000)
    assert choose(Need(models=("m",)), [full, free]).worker_id == "b", "of equal times, the one with room"


@pytest.mark.parametrize(
    ("queued", "running", "slots", "wanted"), [(1, 0, 1, 1), (1, 2, 1, 3), (0, 3, 1, 3), (2, 2, 2, 2), (2, 3, 2, 3), (3, 0, 0, 3)]
)
def test_what_runs_counts_as_what_waits(queued: int, running: int, slots: int, wanted: int) -> None:
    demand = Demand(queued=queued, running=running, workers=0, slots=slots, quiet_s=0.0)
    assert wanted_workers(demand, ScalingLimits(max=10)) == wanted


def test_nobody_there_and_everybody_busy_are_told_apart() -> None:
    assert choose(NEED, []) == Choice("", "no_worker")
    assert choose(NEED, [busy(HOT, 1.0)]).reason == choose(NEED, [busy(HOT, 1.0), busy(HOT, 2.0)]).reason == "busy"


def test_equal_workers_share() -> None:
    first = WorkerView(worker_id="a", slots=4, running=2)
    second = WorkerView(worker_id="b", slots=4, running=1)
    assert choose(Need(), [first, second]).worker_id == "b"


def test_what_each_worker_would_take_is_told() -> None:
    need = Need(models=("m", "n"), run_s=2.0)
    tiers = {"m": ("host", 3_000_000_000), "n": ("disk", 500_000_000)}
    warm = WorkerView(worker_id="warm", slots=1, tiers=tiers, load_bytes_per_s=500_000_000)
    (found,) = choose(need, [warm]).considered
    assert (found.tier, found.wait_s, found.model_s, found.total_s) == ("disk", 0.0, 7.0, 9.0)
    known = WorkerView(worker_id="w", slots=2, running=2, free_in_s=1.5, tiers={"m": ("cold", 200_000_000)}, network_bytes_per_s=50_000_000)
    choice = choose(Need(models=("m",)), [known])
    (found,) = choice.considered
    assert (choice.reason, found.tier, found.wait_s, found.model_s, found.total_s) == ("busy", "cold", 1.5, 4.2, 5.7)
    (found,) = choose(Need(models=("m",)), [COLD]).considered
    assert found.model_s == 55.0, "5 GB at 100 MB/s, then at 1 GB/s"
    (found,) = choose(Need(), [COLD]).considered
    assert (found.tier, found.total_s) == ("none", 0.0)
    (found,) = choose(Need(), [busy(HOT, 0.0)]).considered
    assert found.wait_s == 0.001
    assert len(choose(Need(), [WorkerView(worker_id=str(number)) for number in range(20)]).considered) == 8


def test_among_equals_the_one_with_room_then_the_emptier_then_the_rested() -> None:
    def view(worker_id: str, **fields: float) -> WorkerView:
        return WorkerView(worker_id=worker_id, **fields)  # type: ignore[arg-type]

    assert choose(Need(), [view("a", slots=2, running=1), view("b", slots=4, running=1)]).worker_id == "b"
    assert choose(Need(), [view("a", running=2), view("b", running=1)]).worker_id == "b"
    assert choose(Need(), [view("a", slots=1000, running=3), view("b", running=2)]).worker_id == "b"
    assert choose(Need(), [view("a", last_used_s=2.0), view("b", last_used_s=1.0)]).worker_id == "b"
    assert choose(Need(), [view("b"), view("a")]).worker_id == "a"


def test_a_run_that_is_removed_waits_no_more() -> None:
    queue = FairQueue()
    for name in ("a", "b"):
        queue.push(Waiting(name, "o", "normal", 0.0, 1.0))
    assert queue.remove("a")
    assert not queue.remove("a")
    assert ("a" in queue, "b" in queue, len(queue), drain(queue)) == (False, True, 1, ["b"])


def test_who_came_late_does_not_move_up_early() -> None:
    queue = FairQueue()
    queue.push(Waiting("young", "o", "low", 1000.0, 1.0))
    queue.push(Waiting("high", "p", "high", 1000.0, 1.0))
    assert drain(queue, 1059.0) == ["high", "young"]


def a_run(**changes: object) -> Run:
    fields: dict[str, object] = {
        "id": "r", "owner": "o", "endpoint": "e", "function": "f", "tag": "prod", "release_id": "x", "payload": b"", "created_at": 0.0,
    }  # fmt: skip
    return Run(**{**fields, **changes})  # type: ignore[arg-type]


PASSING = RunError(error_type="retryable", code="retryable", message="later", retryable=True)


def test_only_what_may_pass_is_tried_again_and_not_for_ever() -> None:
    random = Random(1)
    assert isinstance(after_failure(a_run(), RunError(error_type="fatal", code="fatal", message="no"), random), GiveUp)
    again = after_failure(a_run(), PASSING, random)
    assert isinstance(again, Again)
    assert 0 <= again.delay_s <= 2
    assert again.executed
    assert after_failure(a_run(executions=4), PASSING, random) == GiveUp(PASSING)
    assert isinstance(after_failure(a_run(executions=3), PASSING, random), Again), "five in all"
    fourth = [after_failure(a_run(executions=3), PASSING, Random(seed)) for seed in range(100)]
    delays = [each.delay_s for each in fourth if isinstance(each, Again)]
    assert len(delays) == 100
    assert max(delays) <= 16
    assert max(delays) > 8 > min(delays), "up to a second, twice as long for each try"


def test_a_refusal_costs_no_try() -> None:
    refused = RunError(error_type="retryable", code="retryable", message=REFUSAL, retryable=True)
    again = after_failure(a_run(executions=4), refused, Random(1))
    assert isinstance(again, Again)
    assert not again.executed
    delays = [after_failure(a_run(), refused, Random(seed)).delay_s for seed in range(100)]  # type: ignore[union-attr]
    assert 0.025 <= min(delays) < 0.03
    assert 0.07 < max(delays) <= 0.075


@pytest.mark.parametrize(
    ("load", "word"),
    [
        (Load(1000, 1000, 0), "1000 runs of this function"),
        (Load(5, 10_000, 0), "10000 runs of this owner"),
        (Load(5, 5, 256 << 20), "the waiting payloads of this owner hold 256 MiB; at most 256 MiB may wait"),
        (Load(5, 5, 0, queue_max=5), "at most 5"),
    ],
)
def test_what_is_over_a_bound_is_refused_in_words(load: Load, word: str) -> None:
    refused = refusal(load, 1, 0.0)
    assert refused is not None
    assert word in refused.detail
    assert refused.retry_after_s >= 1


@pytest.mark.parametrize(("waiting", "ends_per_s", "after_s"), [(1000, 2.0, 50), (1000, 0.0, 1), (1000, 1000.0, 1), (5000, 0.1, 600)])
def test_who_is_refused_may_come_back_when_a_tenth_of_the_queue_has_gone(waiting: int, ends_per_s: float, after_s: int) -> None:
    refused = refusal(Load(waiting, waiting, 0, ends_per_s), 1, 0.0)
    assert refused is not None
    assert (refused.retry_after_s, refused.queue_depth) == (after_s, waiting)


def test_a_wait_longer_than_the_start_timeout_is_refused_at_the_door() -> None:
    assert refusal(Load(100, 100, 0, ends_per_s=10.0), 1, 5.0) is not None
    assert refusal(Load(100, 100, 0, ends_per_s=10.0), 1, 20.0) is None
    assert refusal(Load(100, 100, 0, ends_per_s=0.0), 1, 0.1) is None


@pytest.mark.parametrize(
    ("demand", "limits", "wanted"),
    [
        (Demand(queued=0, running=0, workers=0, slots=1, quiet_s=1e9), ScalingLimits(), 0),
        (Demand(queued=1, running=0, workers=0, slots=1, quiet_s=0), ScalingLimits(), 1),
        (Demand(queued=10, running=0, workers=1, slots=2, quiet_s=0), ScalingLimits(max=3), 3),
        (Demand(queued=0, running=1, workers=1, slots=8, quiet_s=0, tightest=1, apart=1), ScalingLimits(max=3), 1),
        (Demand(queued=2, running=1, workers=1, slots=8, quiet_s=0, tightest=1, apart=1), ScalingLimits(max=3), 2),
        (Demand(queued=0, running=0, workers=1, slots=1, quiet_s=5), ScalingLimits(idle_s=10), 1),
        (Demand(queued=0, running=0, workers=1, slots=1, quiet_s=11), ScalingLimits(idle_s=10), 0),
        (Demand(queued=0, running=0, workers=2, slots=1, quiet_s=11), ScalingLimits(min=1, idle_s=10), 1),
        (Demand(queued=0, running=1, workers=3, slots=1, quiet_s=0), ScalingLimits(max=3), 3),
    ],
)
def test_workers_follow_the_work(demand: Demand, limits: ScalingLimits, wanted: int) -> None:
    assert wanted_workers(demand, limits) == wanted


def test_back_off_grows_to_a_minute() -> None:
    assert [backoff_s(n) for n in (0, 1, 2, 3)] == [0.0, 0.5, 1.0, 2.0]
    assert backoff_s(50) == 60.0
