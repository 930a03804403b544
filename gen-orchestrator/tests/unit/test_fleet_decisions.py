"""Breakers, devices and bounds: what keeps a fleet healthy."""

import asyncio
import io

import pytest

from gen_orchestrator.domain.breakers import REPLACE_EVERY_S, ReleaseBreaker, WorkerBreaker
from gen_orchestrator.domain.scaling import Demand, ScalingLimits, wanted_workers
from gen_orchestrator.fleet.base import WorkerSpec
from gen_orchestrator.fleet.devices import find_gpus, least_used
from gen_orchestrator.fleet.processes import worker_environment
from gen_orchestrator.scheduling.fitness import Fitness
from gen_worker.log import Log


@pytest.mark.parametrize(
    ("ends", "trips"),
    [
        (["internal", "resource", "internal"], True),
        (["internal", "internal", "", "internal"], False),
        (["internal", "validation", "internal", "internal"], False),
        (["retryable"] * 10, False),
    ],
)
def test_three_bad_ends_in_a_row_trip_a_worker(ends: list[str], trips: bool) -> None:
    breaker = WorkerBreaker()
    assert [breaker.ended(error_type) for error_type in ends][-1] is trips


def test_more_than_half_of_the_last_twenty_pause_a_release() -> None:
    breaker = ReleaseBreaker()
    assert [breaker.lost() for _ in range(11)] == [False] * 10 + [True]
    for _ in range(10):
        breaker.ended()
    assert not breaker.lost()


def test_a_release_is_resumed_by_name_and_starts_from_scratch() -> None:
    now_s = 0.0
    news = asyncio.Event()
    fitness = Fitness(lambda: now_s, Log(io.StringIO()), news)
    for number in range(11):
        fitness.lost(f"w{number}", "r1")
    assert list(fitness.paused) == ["r1"]
    assert not fitness.resume("r2")
    assert fitness.resume("r1")
    fitness.lost("w", "r1")
    assert not fitness.paused


def test_a_function_that_always_fails_does_not_cost_a_worker_every_three_runs() -> None:
    now_s = 0.0
    news = asyncio.Event()
    fitness = Fitness(lambda: now_s, Log(io.StringIO()), news)
    for worker_id in ("a", "b"):
        for _ in range(3):
            fitness.ended(worker_id, "r1", "internal")
    assert list(fitness.sick) == ["a"]
    assert news.is_set()
    now_s = REPLACE_EVERY_S
    fitness.ended("b", "r1", "internal")
    assert list(fitness.sick) == ["a", "b"]


def test_gpus_are_those_that_we_may_use() -> None:
    assert find_gpus("0,2, GPU-abc") == ("0", "2", "GPU-abc")
    assert find_gpus("1,-1,0") == ("1",)
    assert find_gpus("") == ()


def test_workers_spread_over_gpus() -> None:
    taken: list[str] = []
    for _ in range(5):
        taken.append(least_used(("0", "1"), taken))
    assert taken == ["0", "1", "0", "1", "0"]
    assert least_used((), taken) == ""


def test_one_worker_a_gpu_unless_the_author_says_otherwise() -> None:
    demand = Demand(queued=100, running=0, workers=0, slots=1, quiet_s=0, gpus=4)
    assert wanted_workers(demand, ScalingLimits()) == 4
    assert wanted_workers(demand, ScalingLimits(max=2)) == 2
    assert wanted_workers(demand, ScalingLimits(max=9)) == 9


def test_a_function_with_a_limit_of_its_own_counts_by_that() -> None:
    demand = Demand(queued=6, running=0, workers=1, slots=256, quiet_s=0, tightest=6)
    assert wanted_workers(demand, ScalingLimits(max=3)) == 3


def test_a_worker_sees_its_gpu_and_none_of_our_secrets() -> None:
    spec = WorkerSpec(
        worker_id="w",
        release_id="r",
        owner="o",
        token="t",
        scheduler_addr="a",
        folder="/f",
        manifest="/m",
        python="p",
        gpu="2",
        drain_s=1.0,
        env={"A": "secret"},
        variables={"A": "project", "B": "project", "OMP_NUM_THREADS": "9", "LD_PRELOAD": "x", "WORKER_JWT": "x"},
    )
    env = worker_environment(
        spec,
        {"OMP_NUM_THREADS": "2", "PATH": "/bin", "COZY_API_KEY": "k", "CUDA_VISIBLE_DEVICES": "0,1,2", "PGPASSWORD": "p", "HF_TOKEN": "h"},
    )
    assert env["CUDA_VISIBLE_DEVICES"] == "2"
    assert (env["PATH"], env["HF_TOKEN"]) == ("/bin", "h")  # models are fetched by workers
    assert not {"COZY_API_KEY", "PGPASSWORD", "LD_PRELOAD"} & env.keys()
    assert (env["A"], env["B"], env["OMP_NUM_THREADS"], env["WORKER_JWT"]) == ("secret", "project", "2", "t")
