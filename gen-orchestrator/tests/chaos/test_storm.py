"""A storm small enough for CI, and a test that a seed gives the same strikes. `make chaos` has the full size."""

from collections import Counter
from pathlib import Path

import pytest
from chaos import one_node, shown
from storm import LONG_S, Plan, Storm, planned


def test_a_seed_brings_the_same_strikes() -> None:
    plan = Plan(seed=7, runs=10_000, strikes=100, long_stops=3)
    strikes = planned(plan)
    assert strikes == planned(plan)
    assert strikes != planned(Plan(seed=8, runs=10_000, strikes=100, long_stops=3))
    assert len(strikes) == 100
    assert sorted(strike.after for strike in strikes) == [strike.after for strike in strikes]
    kinds = Counter((strike.target, strike.signal) for strike in strikes)
    assert min(kinds[target, number] for target in ("worker", "node") for number in ("kill", "stop")) >= 5
    assert sum(strike.seconds == LONG_S for strike in strikes) == 3


@pytest.mark.timeout(300)
def test_nothing_is_lost_in_a_storm(tmp_path: Path) -> None:
    plan = Plan(seed=11, runs=600, strikes=8)
    with one_node(tmp_path) as nodes:
        report = Storm(plan, nodes, tmp_path).blow()
    print(shown("sqlite", report))
    assert report.broken == []
    assert sum(report.strikes.values()) == plan.strikes
