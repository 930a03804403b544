"""State changes of a run: what each changes, what stays, and which never happen."""

from typing import Any

import msgspec
import pytest

from gen_orchestrator.domain.runs import (
    CANCELED_ERROR,
    FINAL_STATES,
    Ending,
    Run,
    RunError,
    RunState,
    at_start,
    finish,
    lease,
    request_cancel,
    requeue,
)

ERROR = RunError(error_type="fatal", code="fatal", message="no")
QUEUED = Run(
    id="r", owner="o", endpoint="e", function="f", tag="prod", release_id="x", payload=b"p", created_at=1.0, attempt=3, executions=1
)
LEASED = msgspec.structs.replace(QUEUED, state=RunState.LEASED, attempt=4, worker_id="w", started_at=5.0, leased_at=5.0, routing=b"{}")


def change(run: Run, **fields: Any) -> Run:
    return msgspec.structs.replace(run, **fields)


def test_a_lease_takes_the_next_number() -> None:
    assert lease(QUEUED, attempt=4, worker_id="w", at=5.0, routing=b"{}") == LEASED
    again = lease(change(QUEUED, started_at=2.0), attempt=4, worker_id="w", at=5.0, routing=b"{}")
    assert again is not None
    assert again.started_at == 2.0, "of its first start"
    for attempt in (0, 3, 5):
        assert lease(QUEUED, attempt=attempt, worker_id="w", at=5.0, routing=b"") is None
    assert lease(change(QUEUED, cancel_requested=True), attempt=4, worker_id="w", at=5.0, routing=b"") is None
    assert lease(LEASED, attempt=5, worker_id="w", at=5.0, routing=b"") is None


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_a_run_that_is_taken_back_waits_again(executed: bool, lost: bool) -> None:
    wanted = change(LEASED, state=RunState.QUEUED, worker_id="", not_before=9.0, executions=1 + executed, lost_workers=int(lost))
    assert requeue(LEASED, attempt=4, not_before=9.0, executed=executed, lost=lost) == wanted
    suspected = change(wanted, suspicion=3)
    assert requeue(change(LEASED, suspicion=1), attempt=4, not_before=9.0, executed=executed, lost=lost, suspicion=2) == suspected
    assert requeue(LEASED, attempt=3, not_before=9.0, executed=executed, lost=lost) is None
    assert requeue(QUEUED, attempt=3, not_before=9.0, executed=executed, lost=lost) is None


def test_an_end_is_of_the_present_attempt_and_the_only_one() -> None:
    ending = Ending(state=RunState.SUCCEEDED, at=7.0, output=b"out", metrics=b"m", warnings=b"w")
    done = finish(LEASED, attempt=4, ending=ending)
    assert done == change(LEASED, state=RunState.SUCCEEDED, finished_at=7.0, output=b"out", metrics=b"m", warnings=b"w", executions=2)
    assert finish(LEASED, attempt=3, ending=ending) is None
    failed = finish(QUEUED, attempt=3, ending=Ending(state=RunState.EXPIRED, at=7.0, error=ERROR))
    assert failed == change(QUEUED, state=RunState.EXPIRED, finished_at=7.0, error=ERROR), "no worker had it: no execution"
    for state in FINAL_STATES:
        over = change(LEASED, state=state)
        assert over.is_final
        assert finish(over, attempt=4, ending=ending) is None
        assert request_cancel(over) is None


@pytest.mark.parametrize(
    ("state", "attempt", "executions", "first"),
    [
        (RunState.LEASED, 1, 0, 1), (RunState.QUEUED, 1, 1, 1), (RunState.LEASED, 2, 1, 1), (RunState.SUCCEEDED, 2, 2, 1),
        (RunState.LEASED, 2, 0, 2), (RunState.FAILED, 2, 1, 2), (RunState.EXPIRED, 0, 0, 1),
    ],
)  # fmt: skip
def test_a_start_shows_the_attempt_that_began_first_and_nothing_later(state: RunState, attempt: int, executions: int, first: int) -> None:
    end: dict[str, Any] = {"finished_at": 9.0, "output": b"x", "metrics": b"{}", "warnings": b"[]", "error": CANCELED_ERROR}
    run = change(QUEUED, state=state, attempt=attempt, executions=executions, worker_id="w", routing=b"{}", **end)
    shown = at_start(run)
    assert (shown.attempt, shown.state, shown.worker_id) == (first, RunState.LEASED, "w" if first == attempt else "")
    assert (shown.finished_at, shown.output, shown.metrics, shown.warnings, shown.error, shown.payload) == (
        0.0,
        b"",
        b"",
        b"",
        None,
        run.payload,
    )


def test_a_cancel_that_was_noted_wins_over_what_comes_later() -> None:
    canceled = request_cancel(LEASED)
    assert canceled == change(LEASED, cancel_requested=True)
    done = finish(canceled, attempt=4, ending=Ending(state=RunState.SUCCEEDED, at=7.0, output=b"out", metrics=b"m", warnings=b"w"))
    assert done == change(
        canceled, state=RunState.CANCELED, finished_at=7.0, error=CANCELED_ERROR, output=b"", metrics=b"m", warnings=b"w", executions=2
    )
    own = RunError(error_type="canceled", code="canceled", message="by the worker")
    said = finish(canceled, attempt=4, ending=Ending(state=RunState.CANCELED, at=7.0, error=own))
    assert said is not None
    assert said.error == own
