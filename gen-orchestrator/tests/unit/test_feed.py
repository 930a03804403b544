"""The numbered events of one run: numbers, duplicates, bounds, positions to resume from, and waiting readers."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest

from gen_orchestrator.scheduling.feed import (
    MAX_BYTES,
    MAX_EVENTS,
    OVERHEAD_BYTES,
    Feed,
    decode_entries,
    encode_entries,
    event_id,
    parse_event_id,
)
from gen_orchestrator.store.base import EventChunk


def say(feed: Feed, *numbers: int, attempt: int = 1, process: str = "") -> list[str]:
    entries = [feed.append(attempt, "log", "run.log", b"%d" % number, (process, number) if process else ("", 0)) for number in numbers]
    return [event_id(entry) for entry in entries if entry is not None]


def test_each_attempt_counts_from_one_and_nothing_follows_the_seal() -> None:
    feed = Feed()
    assert say(feed, 7, 8) == ["1-1", "1-2"]
    assert say(feed, 9, attempt=2) == ["2-1"]
    feed.seal()
    assert feed.sealed
    assert say(feed, 10, attempt=2) == []
    assert [event_id(entry) for entry in feed.after((0, 0))] == ["1-1", "1-2", "2-1"]
    assert feed.seqs == {1: 2, 2: 1}


def test_what_a_worker_sends_again_has_no_second_number() -> None:
    feed = Feed()
    assert [event_id(entry) for entry in [Feed().append(1, "log", "run.log", b"1", ("", 1))] if entry] == ["1-1"]
    assert say(feed, 1, 2, 2, 1, 3, process="a") == ["1-1", "1-2", "1-3"]
    assert say(feed, 1, process="b") == ["1-4"], "another process counts for itself"
    assert say(feed, 0, 0) == ["1-5", "1-6"], "what has no number is always new"


def test_places() -> None:
    feed = Feed()
    assert (feed.first(), feed.after((0, 0))) == ((0, 0), [])
    say(feed, 1, 2, 3)
    say(feed, 4, attempt=2)
    assert feed.first() == (1, 1)
    assert [event_id(entry) for entry in feed.after((1, 2))] == ["1-3", "2-1"]
    assert feed.after((2, 1)) == feed.after((3, 0)) == []
    assert not feed.dropped


def test_the_last_progress_is_kept() -> None:
    feed = Feed()
    assert feed.progress is None
    feed.append(1, "progress", "job.progress", b'{"p":1}')
    feed.append(1, "log", "run.log", b'{"m":2}')
    assert feed.progress == msgspec.Raw(b'{"p":1}')


def test_no_more_than_so_many_events_are_kept() -> None:
    feed = Feed()
    say(feed, *range(MAX_EVENTS))
    assert not feed.dropped
    say(feed, 0)
    assert feed.dropped
    assert (feed.first(), len(feed.after((0, 0)))) == ((1, 2), MAX_EVENTS)


def test_no_more_than_so_many_bytes_are_kept_but_one_event_however_large() -> None:
    feed = Feed()
    half = bytes(MAX_BYTES // 2 - OVERHEAD_BYTES)
    feed.append(1, "log", "run.log", half)
    feed.append(1, "log", "run.log", half)
    assert not feed.dropped
    feed.append(1, "log", "run.log", b"")
    assert (feed.dropped, feed.first()) == (True, (1, 2))
    feed.append(1, "log", "run.log", bytes(2 * MAX_BYTES))
    assert (feed.first(), len(feed.after((0, 0)))) == ((1, 4), 1)
    feed.append(1, "log", "run.log", half)
    assert feed.first() == (1, 5)


def test_a_new_leader_goes_on_where_the_store_ends() -> None:
    stored = [EventChunk(1, 1, 3, b"", "a", 3), EventChunk(2, 1, 20, b"", "a", 5), EventChunk(2, 21, 40, b"", "b", 7)]
    feed = Feed()
    feed.resume(2, stored)
    assert feed.dropped
    assert say(feed, 7, 8, attempt=2, process="b") == ["2-41"], "what the worker says again is in the store"
    feed = Feed()
    feed.resume(2, [*stored, EventChunk(2, 41, 50, b"", "b", 9)])
    assert say(feed, 9, 10, attempt=2, process="b") == ["2-51"]
    fresh = Feed()
    fresh.resume(3, stored)
    assert say(fresh, 7, attempt=3, process="b") == ["3-1"], "of an attempt that has said nothing, all is new"


def test_what_the_store_has_not_been_given_is_given_once() -> None:
    feed = Feed()
    say(feed, 1, 2)
    say(feed, 3, attempt=2)
    taken = feed.take_unsaved(1)
    assert [event_id(entry) for entry in taken] == ["1-1", "1-2"]
    assert feed.take_unsaved(1) == []
    assert decode_entries(iter([encode_entries(taken), encode_entries(feed.take_unsaved(2))])) == feed.after((0, 0))


@pytest.mark.parametrize("change", [lambda feed: say(feed, 1), lambda feed: feed.status_changed(), lambda feed: feed.seal()])
def test_who_waits_is_woken_by_every_change(change: Callable[[Feed], object]) -> None:
    async def main() -> None:
        feed = Feed()
        waiting = [asyncio.ensure_future(feed.wait(30)) for _ in range(2)]
        await asyncio.sleep(0)
        change(feed)
        assert await asyncio.gather(*waiting) == [True, True]
        assert not await feed.wait(0)
        changes = feed.status_changes
        feed.status_changed()  # nobody is left to wake
        feed.status_changed()
        assert feed.status_changes == changes + 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "place"), [("", (0, 0)), ("  ", (0, 0)), ("1-35", (1, 35)), (" 12-7 ", (12, 7)), ("1" * 12 + "-0", (int("1" * 12), 0))]
)
def test_ids_of_events(text: str, place: tuple[int, int]) -> None:
    assert parse_event_id(text) == place


@pytest.mark.parametrize("text", ["1", "-", "1-", "-1", "a-1", "1-b", "1-2-3", "²-1", "1" * 13 + "-1", "1-" + "1" * 13, "1--2"])
def test_ids_that_nobody_gave_out(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an id that this server sent; expected ATTEMPT-NUMBER, such as 1-35"):
        parse_event_id(text)


def test_ids_sort_as_they_came() -> None:
    feed = Feed()
    say(feed, *range(12))
    places = [parse_event_id(event_id(entry)) for entry in feed.after((0, 0))]
    assert all(a < b for a, b in pairwise(places))


def test_what_comes_before_a_waiters_first_step_wakes_it() -> None:
    async def body() -> None:
        feed = Feed()
        waiting = asyncio.ensure_future(feed.wait(30))
        feed.seal()  # the task has not begun yet
        assert await asyncio.wait_for(waiting, 60)

    asyncio.run(body())


def test_places_within_the_last_attempt_are_counted_from_its_end() -> None:
    feed = Feed()
    say(feed, 1, 2)
    say(feed, 3, 4, 5, attempt=2)
    for last, behind in ((0, ["2-1", "2-2", "2-3"]), (1, ["2-2", "2-3"]), (2, ["2-3"]), (3, [])):
        assert [event_id(entry) for entry in feed.after((2, last))] == behind


def test_bytes_that_were_dropped_count_no_more() -> None:
    feed = Feed()
    quarter = bytes(MAX_BYTES // 4 - OVERHEAD_BYTES)
    for _ in range(40):
        feed.append(1, "log", "run.log", quarter)
    assert (feed.first(), len(feed.after((0, 0)))) == ((1, 37), 4)
