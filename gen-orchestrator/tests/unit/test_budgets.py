"""Budgets of keys: valid forms, when there is room, and when there is room again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain.budgets import (
    NO_BUDGETS,
    Budgets,
    Exhausted,
    RateWindow,
    Spent,
    calendar_window,
    checked,
    exhausted,
    told,
)


@pytest.mark.parametrize(
    ("rate", "concurrency", "gpu_seconds", "expected"),
    [
        ("60/m", 4, "3600/d", Budgets(rate="60/m", concurrency=4, gpu_seconds="3600/d")),
        (" 1/s ", 1, " 0.5/month ", Budgets(rate="1/s", concurrency=1, gpu_seconds="0.5/month")),
        ("0010/h", None, "3600.000/d", Budgets(rate="10/h", gpu_seconds="3600/d")),
        ("1000000/h", 1_000_000, "1000000000/d", Budgets(rate="1000000/h", concurrency=1_000_000, gpu_seconds="1000000000/d")),
        (None, None, None, NO_BUDGETS),
        ("", None, "", NO_BUDGETS),
        ("none", None, "none", NO_BUDGETS),
    ],
)
def test_budgets_have_one_spelling(rate: str | None, concurrency: int | None, gpu_seconds: str | None, expected: Budgets) -> None:
    assert checked(rate, concurrency, gpu_seconds) == expected


@pytest.mark.parametrize(
    "rate",
    ["60", "60/", "/m", "-1/m", "0/m", "1.5/m", "60/minute", "60/d", "1000001/h", "9" * 30 + "/s", "1e3/m", "6 0/m", "٣/m", "60/m/m"],
)
def test_a_rate_that_cannot_be_is_named(rate: str) -> None:
    with pytest.raises(ValueError, match=r"expected 1 to 1000000 runs a second, minute or hour, such as 10/s") as caught:
        checked(rate, None, None)
    assert repr(rate[:40]) in str(caught.value)


@pytest.mark.parametrize("text", ["1", "0/d", "0.0/d", "-1/d", "1/h", "1/m", "nan/d", "inf/d", "1000000001/d", "1/week", "٣/d"])
def test_gpu_seconds_that_cannot_be_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 3600/d or 50000/month"):
        checked(None, None, text)


@pytest.mark.parametrize("runs", [0, -1, 1_000_001, 2**70])
def test_a_concurrency_that_cannot_be_is_named(runs: int) -> None:
    with pytest.raises(ValueError, match=f"concurrency {runs}: expected 1 to 1000000"):
        checked(None, runs, None)


def test_budgets_are_told_to_people() -> None:
    assert told(Budgets(rate="60/m", concurrency=4, gpu_seconds="3600/d")) == "rate=60/m concurrency=4 gpu_seconds=3600/d"
    assert told(NO_BUDGETS) == "none"
    assert not NO_BUDGETS
    assert all((Budgets(rate="1/s"), Budgets(concurrency=1), Budgets(gpu_seconds="1/d")))


@given(
    runs=st.integers(1, 5),
    window_s=st.sampled_from([1.0, 60.0, 3600.0]),
    gaps=st.lists(st.integers(0, 2560).map(lambda n: n / 64), max_size=60),  # sixty-fourths are exact in binary
    known=st.lists(st.integers(-6400, 0).map(lambda n: n / 64), max_size=10),
)
def test_no_window_ever_holds_one_more(runs: int, window_s: float, gaps: list[float], known: list[float]) -> None:
    """Whoever adds only where there is room has at most so many in any window; and room comes when it was said to, not before."""
    window = RateWindow(runs, window_s, known)
    now_s, accepted = 0.0, sorted(known)
    for gap in gaps:
        now_s += gap
        inside = [at for at in accepted if at > now_s - window_s]
        assert window.used(now_s) == len(inside)
        free_in_s = window.free_in_s(now_s)
        assert (free_in_s == 0.0) == (len(inside) < runs)
        if len(inside) < runs:
            window.add(now_s)
            accepted.append(now_s)
        else:
            assert 0 <= free_in_s <= window_s
            assert len([at for at in accepted if at > now_s + free_in_s - window_s]) < runs


def test_what_was_no_run_is_taken_back() -> None:
    window = RateWindow(2, 60.0)
    for at_s in (1.0, 2.0):
        window.add(at_s)
    assert window.free_in_s(3.0) == 58.0
    window.take_back(1.0)
    window.take_back(7.0)  # nobody was accepted then
    assert (window.used(3.0), window.free_in_s(3.0)) == (1, 0.0)
    assert window.used(62.0) == 0


@pytest.mark.parametrize(
    ("unit", "unix_s", "expected"),
    [
        ("d", 86399.9, (0.0, 86400.0)),
        ("d", 86400.0, (86400.0, 172800.0)),
        ("month", 86400.0, (0.0, 31 * 86400.0)),
        ("month", 1709164800.0, (1706745600.0, 1709251200.0)),  # 29 February 2024
        ("month", 1735689599.0, (1733011200.0, 1735689600.0)),  # the last second of 2024
        ("d", -5.0, (float("-inf"), 0.0)),
        ("month", 1e18, (32503680000.0, float("inf"))),
        ("d", 32503679999.9, (32503593600.0, 32503680000.0)),
    ],
)
def test_days_and_months_are_those_of_the_calendar(unit: str, unix_s: float, expected: tuple[float, float]) -> None:
    assert calendar_window(unit, unix_s) == expected


ALL = Budgets(rate="2/m", concurrency=3, gpu_seconds="10/d")


@pytest.mark.parametrize(
    ("spent", "expected", "words"),
    [
        (Spent(), None, ""),
        (Spent(runs=1, open_runs=2, gpu_s=9.999), None, ""),
        (
            Spent(runs=2, runs_free_in_s=12.3),
            Exhausted("rate", "2/m", 2, 12.3),
            "2 runs were accepted .* rate 2/m. It is free again in 13 s",
        ),
        (
            Spent(open_runs=3),
            Exhausted("concurrency", "3", 3, None),
            "3 runs of this key are open; .* concurrency 3. .* when one of them ends",
        ),
        (Spent(gpu_s=10.0, gpu_free_in_s=60.0), Exhausted("gpu_seconds", "10/d", 10.0, 60.0), r"10.0 GPU seconds; .* 10/d. .* in 60 s"),
        (Spent(runs=5, open_runs=5, gpu_s=50.0, gpu_free_in_s=1.0), Exhausted("gpu_seconds", "10/d", 50.0, 1.0), "50.0"),
        (Spent(runs=5, open_runs=5), Exhausted("concurrency", "3", 5, None), "5 runs"),
    ],
)
def test_the_budget_without_room_is_named(spent: Spent, expected: Exhausted | None, words: str) -> None:
    found = exhausted(ALL, spent)
    assert found == expected
    assert exhausted(NO_BUDGETS, spent) is None
    if found is not None:
        import re

        assert re.search(words, found.detail), found.detail
