"""Runs in memory: who reads how far, and when a stream may go on."""

import msgspec

from gen_worker.dev.runs import READER_AHEAD_BYTES, DevRun, Reader
from gen_worker.events import OUTPUT_DELTA, RunEvent


def emit(run: DevRun, count: int, size_bytes: int = 1000) -> None:
    for _ in range(count):
        run.emit(RunEvent(OUTPUT_DELTA, msgspec.Raw(b"1" * size_bytes)))


def test_a_reader_that_resumes_late_and_has_taken_all_holds_nobody_back() -> None:
    run = DevRun("r", "f")
    emit(run, 2 * READER_AHEAD_BYTES // 1000)
    reader = Reader(run, run.last_seq - 5)
    assert run.ready
    first_seq, unseen = run.log_after(reader.seen)
    assert len(unseen) == 5
    reader.took(first_seq, unseen)
    assert run.ready
    emit(run, 2 * READER_AHEAD_BYTES // 1000)
    assert not run.ready
    reader.took(*run.log_after(reader.seen))
    assert run.ready


def test_a_reader_that_lost_the_oldest_events_and_has_taken_the_rest_holds_nobody_back() -> None:
    run = DevRun("r", "f")
    reader = Reader(run, 0)
    emit(run, 100, 100_000)  # more than a log keeps
    assert run.log_after(0)[0] > 1
    assert not run.ready
    reader.took(*run.log_after(reader.seen))
    assert run.ready
