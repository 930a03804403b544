"""When a worker is replaced, and when a release is paused."""

import pytest

from gen_orchestrator.domain.breakers import REPLACE_EVERY_S, ReleaseBreaker, WorkerBreaker


def test_a_worker_is_replaced_after_three_bad_ends_in_a_row() -> None:
    breaker = WorkerBreaker()
    ends = ["internal", "resource", "", "internal", "fatal", "internal", "resource", "internal", "internal", "validation"]
    assert [breaker.ended(end) for end in ends] == [False] * 7 + [True, True, False]


def test_a_release_is_paused_when_most_of_its_last_attempts_lost_their_worker() -> None:
    breaker = ReleaseBreaker()
    for _ in range(9):
        breaker.ended()
    assert [breaker.lost() for _ in range(11)] == [False] * 10 + [True], "11 of 20"
    for _ in range(10):
        breaker.ended()
    assert not breaker.lost(), "what was before the last 20 is forgotten"


def test_workers_are_replaced_now_and_then() -> None:
    breaker = ReleaseBreaker()
    assert [breaker.may_replace(at) for at in (5.0, 5.0 + REPLACE_EVERY_S - 1, 5.0 + REPLACE_EVERY_S, 6.0 + REPLACE_EVERY_S)] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("end", ["", "validation", "fatal", "canceled", "retryable"])
def test_other_ends_are_no_sign(end: str) -> None:
    breaker = WorkerBreaker()
    assert not any(breaker.ended(end) for _ in range(10))
