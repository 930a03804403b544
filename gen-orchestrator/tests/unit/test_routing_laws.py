"""Routing does not send all runs to one worker, and no run waits behind one that waits for another worker."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain.routing import Need, WorkerView, choose

REFS = ("a", "b", "c", "d")
GB = 1_000_000_000
SIZES = st.integers(1, 40).map(lambda gigabytes: gigabytes * GB)
TIERS = st.dictionaries(st.sampled_from(REFS), st.tuples(st.sampled_from(("vram", "host", "disk")), SIZES), max_size=4)


def views(count: int) -> st.SearchStrategy[list[WorkerView]]:
    one = st.builds(
        WorkerView,
        worker_id=st.just(""),
        slots=st.integers(1, 4),
        running=st.integers(0, 4),
        free_in_s=st.floats(0, 60),
        tiers=TIERS,
        load_bytes_per_s=st.sampled_from((0, GB, 5 * GB)),
        network_bytes_per_s=st.sampled_from((0, GB // 10, GB)),
    )
    named = st.lists(one, min_size=1, max_size=count)
    return named.map(lambda found: [msgspec.structs.replace(view, worker_id=f"w{number}") for number, view in enumerate(found)])


@given(views(6), st.lists(st.sampled_from(REFS), max_size=2, unique=True), st.floats(0, 30))
def test_no_worker_gets_more_than_its_slots_and_none_is_worse_than_another_with_room(
    workers: list[WorkerView], models: list[str], run_s: float
) -> None:
    choice = choose(Need(models=tuple(models), run_s=run_s), workers)
    by_id = {view.worker_id: view for view in workers}
    total = {found.worker_id: found.total_s for found in choice.considered}
    if choice.worker_id:
        assert by_id[choice.worker_id].has_room
        assert all(total[choice.worker_id] <= seconds for other, seconds in total.items() if by_id[other].has_room)
    elif choice.reason == "waits_for_hot":
        best, others = choice.considered[0], [found for found in choice.considered if by_id[found.worker_id].has_room]
        assert not by_id[best.worker_id].has_room
        assert all(best.total_s <= found.total_s and best.wait_s <= found.model_s for found in others)


@given(st.integers(2, 8), st.integers(1, 3), st.integers(2, 24))
def test_equal_workers_share_equal_runs(count: int, slots: int, runs: int) -> None:
    workers = {f"w{number}": WorkerView(worker_id=f"w{number}", slots=slots, tiers={"a": ("vram", GB)}) for number in range(count)}
    for number in range(min(runs, count * slots)):
        chosen = choose(Need(models=("a",), run_s=1.0), list(workers.values())).worker_id
        view = workers[chosen]
        workers[chosen] = msgspec.structs.replace(view, running=view.running + 1, last_used_s=float(number))
    running = [view.running for view in workers.values()]
    assert max(running) - min(running) <= 1


def test_a_model_that_is_on_its_way_is_not_loaded_twice() -> None:
    bringing = WorkerView(worker_id="a", slots=2, running=1, tiers={"m": ("disk", 10 * GB)}, coming={"m": 10.0})
    idle = WorkerView(worker_id="b", slots=2, tiers={"m": ("disk", 10 * GB)})
    choice = choose(Need(models=("m",)), [bringing, idle])
    assert (choice.worker_id, choice.reason) == ("a", "loading")


def test_who_waits_for_a_hot_worker_counts_for_the_next() -> None:
    hot = WorkerView(worker_id="hot", slots=1, running=1, free_in_s=2.0, tiers={"m": ("vram", GB)})
    warm = WorkerView(worker_id="warm", slots=1, tiers={"m": ("disk", 6 * GB)}, load_bytes_per_s=GB)
    need = Need(models=("m",), run_s=5.0)
    assert choose(need, [hot, warm]).reason == "waits_for_hot"
    assert choose(need, [msgspec.structs.replace(hot, expected=1), warm]).worker_id == "warm"
