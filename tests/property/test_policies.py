"""Eviction and routing on the simulator: fixed seeds, ratios, the worker's own ledger and policies."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> object:
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not here")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import residency_simulator

    yield residency_simulator
    for name in [name for name in sys.modules if name.partition(".")[0] in ("residency", "residency_simulator")]:
        del sys.modules[name]


def test_the_choice_of_victims_and_workers_pays(simulator) -> None:
    cases = simulator.CASES

    def run(name: str) -> object:
        return simulator.simulate(cases[name], 2000, [1])

    ours, late, oracle, random = run("**loss + eta**"), run("late and wrong: loss + eta"), run("oracle, loads free"), run("lru + random")
    assert ours.p50_s <= 0.6 * random.p50_s
    assert ours.p50_s <= 1.15 * oracle.p50_s
    assert ours.p99_s <= 2 * oracle.p99_s
    assert ours.model_wait_s < run("lru + eta").model_wait_s
    assert late.p50_s <= 0.6 * random.p50_s
    assert run("hot model: loss + eta").p99_s <= 2 * run("hot model: lru + least loaded").p99_s
