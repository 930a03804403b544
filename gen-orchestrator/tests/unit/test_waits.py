"""Why a run waits, in words, and when waiting callers are told."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gen_orchestrator.cli.api import ApiError
from gen_orchestrator.cli.waiting import Waiting
from gen_orchestrator.domain.runs import Run, RunError
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.pool import Pool
from gen_orchestrator.scheduling.waits import Waits
from gen_worker.clock import SystemClock

LIMIT_S = 60


def test_a_retry_says_which_attempt_failed_of_what_and_when_the_next_begins() -> None:
    clock = SystemClock()
    run = Run(
        id="r", owner="o", endpoint="e", function="f", tag="prod", release_id="e-1", payload=b"", created_at=0.0,
        attempt=4, executions=3, lost_workers=1, max_attempts=5, not_before=clock.unix_s() + 3630,  # the clock was set back since
    )  # fmt: skip
    open_run = OpenRun(run, Lane("e-1", "f", FunctionSettings()))
    open_run.phase = Phase.DELAYED
    loop = asyncio.new_event_loop()
    open_run.set_timer(loop.call_later(30, lambda: None))
    loop.close()
    waits = Waits(Pool(), clock, lambda release_id: "")
    wait = waits.of(open_run)
    assert wait is not None
    assert wait.detail.startswith("attempt 2 of 5 failed; the next one begins in ")
    open_run.failed_by = RunError(error_type="retryable", code="retryable", message="the API timed out")
    wait = waits.of(open_run)
    assert wait is not None
    assert wait.detail.startswith("attempt 2 of 5 failed (retryable: the API timed out); the next one begins in ")
    assert 0 < wait.retry_in_s <= 30


def test_each_reason_is_said_once_and_the_time_left_beside_the_bar() -> None:
    looks = iter(
        [
            {"status": "queued", "routing": {"reason": "no_worker", "detail": "none yet", "last_lines": "a\nb\nc\nd\ne\nf"}},
            {"status": "queued", "routing": {"reason": "no_worker", "detail": "none yet, still"}},
            {"status": "queued", "routing": {"reason": "retry_later", "detail": "attempt 1 of 3 failed; the next", "retry_in_s": 2.0}},
            {"status": "queued", "routing": {"reason": "retry_later", "detail": "attempt 1 of 3 failed; the nxt", "retry_in_s": 1.0}},
            {"status": "queued"},
            {"status": "running", "routing": {"reason": "hot", "detail": "chosen"}},
        ]
    )
    said, stages = told(looks)
    assert said == ["queued: none yet", "  | b", "  | c", "  | d", "  | e", "  | f", "attempt 1 of 3 failed; the next"]
    assert stages == ["next attempt in 2 s", "next attempt in 1 s"]


def told(looks: Iterator[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """What is said and shown while the run is found so, one look after the other."""
    said: list[str] = []
    stages: list[str] = []
    over = threading.Event()

    def look(run_id: str) -> dict[str, Any]:
        found = next(looks, None)
        if found is None:
            over.set()
            raise ApiError("gone", 1, "unreachable")
        return found

    waiting = Waiting(look, said.append, stages.append)
    waiting.begin("r")
    assert over.wait(LIMIT_S)
    waiting.end()
    return said, stages


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gen_orchestrator.cli.waiting.PATIENCE_S", 0.01)
    monkeypatch.setattr("gen_orchestrator.cli.waiting.EVERY_S", 0.01)


def test_nothing_is_said_once_it_is_over() -> None:
    asked, go_on, said = threading.Event(), threading.Event(), list[str]()

    def look(run_id: str) -> dict[str, Any]:
        asked.set()
        assert go_on.wait(LIMIT_S)
        return {"status": "queued", "routing": {"reason": "busy", "detail": "late"}}

    waiting = Waiting(look, said.append, said.append)
    waiting.begin("r")
    assert asked.wait(LIMIT_S)
    waiting.end()
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "waiting":
            thread.join(LIMIT_S)
    assert said == []
