"""Canaries: which runs take part, and when a candidate is worse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain.canary import MIN_RUNS, Ended, takes_part, verdict

RUNS = st.lists(st.builds(Ended, st.booleans(), st.floats(0, 1000)), max_size=60)
GOOD, BAD = Ended(False, 1.0), Ended(True, 1.0)


@given(st.text(), st.floats(0, 100), st.floats(0, 100))
def test_a_larger_share_keeps_the_runs_of_a_smaller_one(run_id: str, one: float, other: float) -> None:
    assert takes_part(run_id, one) == takes_part(run_id, one)
    assert takes_part(run_id, min(one, other)) <= takes_part(run_id, max(one, other))
    assert (takes_part(run_id, 0), takes_part(run_id, 100)) == (False, True)


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_the_share_is_what_was_asked_for(percent: float) -> None:
    part = sum(takes_part(f"{number:020x}", percent) for number in range(20_000))
    assert abs(part / 20_000 - percent / 100) < 0.015


@given(RUNS, RUNS)
def test_nothing_is_said_of_few_runs_or_of_what_is_as_good(mine: list[Ended], other: list[Ended]) -> None:
    assert verdict(mine[: MIN_RUNS - 1], other) == ""
    assert verdict(mine, mine) == ""
    assert verdict([GOOD] * len(mine), [GOOD] * len(other)) == ""


@given(RUNS.filter(lambda runs: len(runs) >= MIN_RUNS), RUNS)
def test_failing_more_never_helps(mine: list[Ended], other: list[Ended]) -> None:
    if "failed" in verdict(mine, other):
        assert "failed" in verdict([*mine, BAD], other)
        assert "failed" in verdict([BAD] * len(mine), other)


@pytest.mark.parametrize(
    ("mine", "other", "word"),
    [
        ([BAD] * 10, [], "100% of its last 10 runs failed, and 0%"),
        ([BAD] * 10, [BAD] * 10, ""),
        ([BAD] * 2 + [GOOD] * 8, [GOOD] * 50, "20% of its last 10 runs failed"),
        ([BAD] + [GOOD] * 9, [GOOD] * 50, ""),
        ([Ended(False, 1.6)] * 10, [GOOD] * 10, "1.600 s in the median"),
        ([Ended(False, 1.6)] * 10, [GOOD] * 9, ""),
        ([Ended(False, 1.4)] * 10, [GOOD] * 10, ""),
        ([Ended(False, 0.004)] * 10, [Ended(False, 0.001)] * 10, ""),
        ([Ended(False, 90.0)] + [GOOD] * 9, [GOOD] * 10, ""),
    ],
)
def test_what_is_worse(mine: list[Ended], other: list[Ended], word: str) -> None:
    found = verdict(mine, other)
    assert word in found
    assert bool(found) == bool(word)
