"""Runs of lost workers: other runs continue, and the run that kills workers is found."""

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain.losses import MAX_LOST_WORKERS, Loss, Lost, after_loss, is_kept_apart
from gen_orchestrator.domain.retries import Again, GiveUp, after_failure
from gen_orchestrator.domain.retries import after_loss as what_next
from gen_orchestrator.domain.routing import WAITS_ALONE, Choice, Need, WorkerView, choose_alone
from gen_orchestrator.domain.runs import Run, RunError, RunState, requeue

RUN = Run(id="r", owner="o", endpoint="e", function="f", tag="prod", release_id="x", payload=b"", created_at=0.0)


def through(run: Run, *losses: Loss) -> Run | RunError:
    """The run after these losses, or the error that it was given up with."""
    for attempt, loss in enumerate(losses, start=1):
        again = what_next(run, "w", loss)
        if isinstance(again, GiveUp):
            return again.error
        leased = msgspec.structs.replace(run, state=RunState.LEASED, attempt=attempt)
        moved = requeue(leased, attempt=attempt, not_before=0.0, executed=again.executed, lost=again.lost, suspicion=again.suspicion)
        assert moved is not None
        run = moved
    return run


@pytest.mark.parametrize(
    "losses",
    [
        (Loss.FRESH, Loss.FRESH),
        (Loss.ALONE, Loss.FRESH),
        (Loss.SHARED, Loss.SHARED, Loss.FRESH),
        (Loss.SHARED, Loss.FRESH, Loss.FRESH),
        (Loss.FRESH, Loss.ALONE, Loss.FRESH),
        (Loss.FRESH, Loss.SHARED, Loss.FRESH),
    ],
)
def test_who_ends_fresh_workers_alone_is_given_up(losses: tuple[Loss, ...]) -> None:
    assert isinstance(through(RUN, *losses[:-1]), Run)
    assert through(RUN, *losses) == RunError(
        error_type="fatal",
        code="worker_lost",
        message=f"the worker was lost {len(losses)} times while it ran this, the last time with nothing else on that worker; it is not "
        "tried again",
        detail="last worker: w",
    )


@given(st.lists(st.sampled_from([Loss.SHARED, Loss.OURS, Loss.ALONE]), max_size=MAX_LOST_WORKERS - 1))
def test_nobody_is_given_up_for_what_others_did(losses: list[Loss]) -> None:
    run = through(RUN, *losses)
    assert isinstance(run, Run)
    assert run.lost_workers == run.executions == len(losses)
    assert is_kept_apart(run) == (losses.count(Loss.SHARED) + 2 * losses.count(Loss.ALONE) >= 2 <= len(losses))


@given(st.lists(st.sampled_from(Loss), min_size=MAX_LOST_WORKERS, max_size=MAX_LOST_WORKERS))
def test_losses_are_bounded_whatever_their_reason(losses: list[Loss]) -> None:
    assert isinstance(through(RUN, *losses), RunError)


def test_what_this_program_ends_is_held_against_nobody() -> None:
    assert after_loss(RUN, "w", Loss.OURS) == Lost(0)
    suspect = msgspec.structs.replace(RUN, suspicion=2, lost_workers=2)
    assert after_loss(suspect, "w", Loss.OURS) == Lost(0)


def test_lost_workers_are_none_of_a_runs_own_tries() -> None:
    later = RunError(error_type="retryable", code="retryable", message="later", retryable=True)
    lost = msgspec.structs.replace(RUN, executions=6, lost_workers=5)
    assert isinstance(after_failure(lost, later, _Random()), Again)
    assert isinstance(after_failure(msgspec.structs.replace(lost, lost_workers=2), later, _Random()), GiveUp)


def test_a_run_that_must_be_alone_gets_an_idle_worker_and_a_fresh_one_first() -> None:
    def views(**running: int) -> list[WorkerView]:
        return [WorkerView(worker_id=name, slots=4, running=count, is_fresh=name == "fresh") for name, count in running.items()]

    assert choose_alone(Need(), []) == Choice("", "no_worker")
    idle = choose_alone(Need(), views(a=1, b=0))
    assert (idle.worker_id, idle.reason, [each.worker_id for each in idle.considered]) == ("b", "alone", ["b", "a"])
    assert choose_alone(Need(), views(a=0, fresh=0)).worker_id == "fresh"
    waits = choose_alone(Need(), views(a=3, b=1, c=2))
    assert (waits.worker_id, waits.reason, waits.considered[0].worker_id) == ("", WAITS_ALONE, "b")


class _Random(Random):
    def random(self) -> float:
        return 0.5

    def uniform(self, a: float, b: float) -> float:
        return b
