"""Slots of a worker and of each function."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_worker.execution.admission import Admission


def test_the_worker_and_each_function_have_their_limits() -> None:
    admission = Admission(3)
    assert [admission.take("a", 2) for _ in range(3)] == [None, None, "function_concurrency_reached"]
    assert admission.take("b", None) is None
    assert admission.take("b", None) == "max_concurrency_reached"
    assert admission.active == 3
    admission.give("a")
    assert admission.take("b", 2) is None
    assert admission.take("a", 2) == "max_concurrency_reached"


@pytest.mark.parametrize("limit", [None, 0])
def test_no_limit_is_none(limit: int | None) -> None:
    admission = Admission()
    assert all(admission.take("a", limit) is None for _ in range(1000))
    assert admission.active == 1000


def test_a_draining_worker_takes_nothing_and_gives_back() -> None:
    admission = Admission()
    admission.take("a", None)
    admission.drain()
    assert admission.take("b", None) == "worker_draining"
    assert admission.active == 1
    admission.give("a")
    assert admission.active == 0
    assert admission.take("a", None) == "worker_draining"


def test_what_a_run_calls_counts_for_its_function_alone() -> None:
    admission = Admission(1)
    told: list[str] = []
    admission.when_freed(lambda: told.append("freed"))
    assert admission.take("a", 1) is None
    assert [admission.take_called("b", 2) for _ in range(3)] == [True, True, False]
    assert admission.take_called("a", 1) is False, "its one slot is taken by a run"
    assert admission.active == 1
    admission.give("a")
    assert admission.take("b", 2) == "function_concurrency_reached"
    admission.give_called("b")
    assert admission.take("b", 2) is None
    assert told == ["freed", "freed"]
    admission.drain()
    assert admission.take_called("a", 1), "a run of a draining worker may finish its work"


def test_of_several_refusals_the_widest_is_said() -> None:
    admission = Admission(1)
    admission.take("a", 1)
    assert admission.take("a", 1) == "max_concurrency_reached"
    admission.drain()
    assert admission.take("a", 1) == "worker_draining"


def test_a_slot_given_back_too_often_adds_none() -> None:
    admission = Admission(1)
    admission.give("a")
    assert admission.active == 0
    assert admission.take("a", 1) is None
    assert admission.take("a", 1) is not None


@given(st.integers(0, 4), st.integers(0, 3), st.lists(st.tuples(st.booleans(), st.sampled_from("ab")), max_size=60))
def test_no_limit_is_ever_exceeded(max_concurrency: int, limit: int, steps: list[tuple[bool, str]]) -> None:
    admission = Admission(max_concurrency)
    held: list[str] = []
    for takes, name in steps:
        if takes and admission.take(name, limit) is None:
            held.append(name)
        elif not takes and name in held:
            held.remove(name)
            admission.give(name)
        assert admission.active == len(held)
        assert not max_concurrency or len(held) <= max_concurrency
        assert not limit or all(held.count(other) <= limit for other in "ab")
