"""Runs in memory: how far readers have read, and when a stream may continue."""

import msgspec

from gen_worker.dev.runs import DevRun
from gen_worker.errors import FieldError
from gen_worker.events import OUTPUT_DELTA, RunEvent
from gen_worker.http.event_log import READER_AHEAD_BYTES, Reader
from gen_worker.outcome import Outcome


def emit(run: DevRun, count: int, size_bytes: int = 1000) -> None:
    for _ in range(count):
        run.emit(RunEvent(OUTPUT_DELTA, msgspec.Raw(b"1" * size_bytes)))


def test_a_reader_that_resumes_late_and_has_taken_all_holds_nobody_back() -> None:
    run = DevRun("r", "f")
    emit(run, 2 * READER_AHEAD_BYTES // 1000)
    reader = Reader(run.log, run.log.last_seq - 5)
    assert run.ready
    first_seq, unseen = run.log.after(reader.seen)
    assert len(unseen) == 5
    reader.took(first_seq, unseen)
    assert run.ready
    emit(run, 2 * READER_AHEAD_BYTES // 1000)
    assert not run.ready
    reader.took(*run.log.after(reader.seen))
    assert run.ready


def test_a_reader_that_lost_the_oldest_events_and_has_taken_the_rest_holds_nobody_back() -> None:
    run = DevRun("r", "f")
    reader = Reader(run.log, 0)
    emit(run, 100, 100_000)  # more than a log keeps
    assert run.log.after(0)[0] > 1
    assert not run.ready
    reader.took(*run.log.after(reader.seen))
    assert run.ready


def test_an_outcome_that_json_cannot_carry_is_shown_all_the_same() -> None:
    run = DevRun("r", "f")
    run.finish(
        Outcome(success=False, error_type="validation", code="validation", safe_message="a \udcff", errors=(FieldError("/\ud800", "x"),))
    )
    assert run.outcome is not None
    assert b"cannot be shown" in msgspec.json.encode(run.outcome)
    assert run.status == "failed"
