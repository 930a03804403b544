"""Why releases have no worker, and when to try again."""

from gen_orchestrator.domain.scaling import STABLE_S
from gen_orchestrator.fleet.start_failures import SHOWN_S, StartFailures


def test_each_early_end_in_a_row_doubles_the_wait() -> None:
    failures = StartFailures()
    waits_s = [failures.crashed("r", "status 1", lived_s=1.0, served=False, now_s=100.0) for _ in range(3)]
    assert waits_s == [0.5, 1.0, 2.0]
    assert not failures.may_start("r", 101.9)
    assert failures.may_start("r", 102.0)
    assert failures.may_start("another", 100.0)


def test_a_worker_that_lived_or_served_has_not_crashed_at_its_start() -> None:
    failures = StartFailures()
    failures.crashed("r", "status 1", lived_s=1.0, served=False, now_s=100.0)
    assert failures.crashed("r", "status 1", lived_s=STABLE_S, served=False, now_s=200.0) == 0.5
    assert failures.crashed("r", "status 1", lived_s=1.0, served=False, now_s=201.0) == 1.0
    assert failures.crashed("r", "status 1", lived_s=1.0, served=True, now_s=202.0) == 0.5


def test_the_reason_is_shown_until_a_worker_has_been_there_for_a_while() -> None:
    failures = StartFailures()
    failures.crashed("r", "status 1", lived_s=1.0, served=False, now_s=100.0)
    failures.is_there("r", 100.0 + SHOWN_S)
    assert failures.reasons == {"r": "status 1"}
    failures.is_there("r", 100.0 + SHOWN_S + 0.1)
    assert failures.reasons == {}


def test_what_failed_before_a_change_is_forgotten() -> None:
    failures = StartFailures()
    for _ in range(3):
        failures.crashed("r", "status 1", lived_s=1.0, served=False, now_s=100.0)
    failures.forget("r")
    assert failures.reasons == {}
    assert failures.may_start("r", 100.0)
    assert failures.crashed("r", "status 1", lived_s=1.0, served=False, now_s=100.0) == 0.5
