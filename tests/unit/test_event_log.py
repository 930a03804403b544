"""The event log: numbers, bounds, resuming, and the seal."""

import asyncio
import gc
import json

import msgspec
import pytest

from gen_worker import events
from gen_worker.events import OUTPUT_DELTA, RunEvent
from gen_worker.http.event_log import READER_AHEAD_EVENTS, EventLog, Reader


def delta(text: str) -> RunEvent:
    return RunEvent(OUTPUT_DELTA, msgspec.Raw(json.dumps(text).encode()))


def log_of(*texts: str, max_events: int = 100, max_bytes: int = 1 << 20) -> EventLog:
    log = EventLog("run", max_events=max_events, max_bytes=max_bytes)
    log.append([delta(text) for text in texts])
    return log


def data(found: list[RunEvent]) -> list[object]:
    return [json.loads(bytes(event.payload)) for event in found]


@pytest.mark.parametrize("seal", [False, True])
def test_a_reader_resumes_after_any_number(seal: bool) -> None:
    log = log_of("a", "b", "c")
    if seal:
        log.seal()
    for after in range(5):
        first_seq, found = log.after(after)
        assert (first_seq, data(found)) == (after + 1, ["a", "b", "c"][after:])
    assert log.last_seq == 3
    assert [entry["payload"] for entry in json.loads(log.as_json())] == ["a", "b", "c"]


def test_nothing_is_added_after_the_seal_so_the_number_of_the_end_is_taken_by_nobody() -> None:
    log = log_of("a")
    log.seal()
    assert log.append([delta("late")]) == 0
    assert log.last_seq == 1
    assert log.after(1) == (2, [])
    size_bytes = log.size_bytes
    for _ in range(1000):
        log.append([delta("late" * 1000)])
    assert log.size_bytes == size_bytes == len(log.as_json())


def test_the_oldest_are_lost_by_number_and_by_size_and_the_numbers_go_on() -> None:
    log = log_of(*"abcdef", max_events=4)
    assert log.after(0)[0] == 3
    log.seal()
    first_seq, found = log.after(0)
    assert (first_seq, data(found)) == (3, ["c", "d", "e", "f"])
    assert log.last_seq == 6
    big = log_of("x" * 400, max_bytes=1000)
    assert big.append([delta("y" * 400), delta("z" * 400)]) == 1
    assert big.after(0)[0] == 2


def test_an_event_that_json_cannot_show_costs_neither_the_others_nor_the_seal() -> None:
    log = EventLog("run", max_events=9, max_bytes=1 << 20)
    log.append([delta("a"), RunEvent("task.failed", {"message": "\ud800"}), delta("b")])
    log.seal()
    kinds = [entry["event_type"] for entry in json.loads(log.as_json())]
    assert kinds == ["output.delta", "event.unencodable", "output.delta"]
    assert len(log.after(0)[1]) == log.last_seq == 3


def test_a_waiting_reader_gets_the_rest_and_then_the_end() -> None:
    async def main() -> None:
        log = log_of("a")
        reader = Reader(log, 0)
        assert await reader.next(0.01) == (1, log.after(0)[1])
        reader.took(*log.after(0))
        assert await reader.next(0.01) is None
        waiting = asyncio.ensure_future(reader.next(10))
        await asyncio.sleep(0)
        log.append([delta("b")])
        log.seal()
        first_seq, found = await waiting or (0, [])
        assert (first_seq, data(found)) == (2, ["b"])
        reader.took(first_seq, found)
        assert await reader.next(10) == (3, [])
        reader.close()

    asyncio.run(main())


def test_a_producer_that_waits_for_its_reader_is_let_go_by_the_seal() -> None:
    async def main() -> None:
        log = log_of(*["x"] * (READER_AHEAD_EVENTS + 1), max_events=10_000)
        called: list[bool] = []
        Reader(log, 0)
        log.on_ready(lambda: called.append(True))
        assert not called
        log.seal()
        assert called == [True]

    asyncio.run(main())


def test_a_sealed_log_holds_nothing_for_the_collector_to_walk() -> None:
    log = log_of(*map(str, range(50)))
    log.append([RunEvent(events.COMPLETED, events.Completed("f", 1))])
    log.seal()
    reached, new = {id(log)}, [log]
    while new:
        found = [each for each in gc.get_referents(*new) if gc.is_tracked(each) and not isinstance(each, type) and id(each) not in reached]
        reached |= {id(each) for each in found}
        new = found
    assert len(reached) <= 4
