"""The worker's outbox: bounds, shedding, room."""

import pytest

from gen_worker.wire.messages import Event, RealtimeFrame, RunResult, Unknown, size_of
from gen_worker.wire.outbox import (
    MAX_EVENT_BYTES,
    MAX_EVENTS,
    MAX_UNCONFIRMED,
    MAX_UNSURE,
    OVERHEAD_BYTES,
    ROOM_BYTES,
    ROOM_MESSAGES,
    UNSURE_S,
    Outbox,
    Taken,
    too_large_result,
)


def event(number: int, size: int = 10) -> Event:
    return Event("r", "custom", str(number).encode().ljust(size))


def test_events_are_shed_first_and_counted() -> None:
    outbox = Outbox()
    taken = [outbox.put_event(event(number)) for number in range(MAX_EVENTS + 500)]
    assert taken == [True] * MAX_EVENTS + [False] * 500
    assert outbox.shed == 500
    outbox.put(RunResult("r", True))
    assert len(outbox) == MAX_EVENTS + 1, "a result is always taken"
    assert outbox.holds_result_of("r")


def test_shedding_ends_as_soon_as_some_are_sent_although_the_queue_never_empties() -> None:
    outbox = Outbox()
    for number in range(MAX_EVENTS):
        outbox.put_event(event(number))
    for _ in range(20):
        assert not outbox.put_event(event(0))
        taken = outbox.take(1 << 20, max_messages=100)
        assert taken is not None
        outbox.confirm(taken.first_seq + len(taken.messages) - 1)
        assert [outbox.put_event(event(number)) for number in range(101)] == [True] * 100 + [False]
    assert len(outbox) == MAX_EVENTS


def test_deltas_and_results_do_not_count_as_events() -> None:
    outbox = Outbox()
    for number in range(MAX_EVENTS):
        outbox.put(Event("r", "output.delta", b"1"))
        outbox.put(RunResult(str(number), True))
    assert outbox.put_event(event(0))


def test_large_events_are_bounded_by_bytes() -> None:
    outbox = Outbox()
    for number in range(100):
        outbox.put_event(event(number, 1 << 20))
    assert 0 < len(outbox) <= 9
    assert outbox.shed == 100 - len(outbox)


def test_room_comes_back_when_the_peer_confirms() -> None:
    outbox = Outbox()
    told = []
    for number in range(ROOM_MESSAGES):
        outbox.put(event(number))
    assert not outbox.has_room
    outbox.on_room(lambda: told.append(1))
    while (taken := outbox.take(1 << 20)) is not None:
        last = taken.first_seq + len(taken.messages) - 1
    assert told == [], "what is on its way still counts"
    outbox.confirm(last)
    assert told == [1]
    outbox.on_room(lambda: told.append(2))
    assert told == [1, 2], "with room, at once"


def test_messages_are_taken_in_order_and_in_bounds() -> None:
    outbox = Outbox()
    for number in range(10):
        outbox.put(event(number, 1000))
    first = outbox.take(3500)
    assert first is not None
    assert (first.first_seq, len(first.messages)) == (1, 3)
    second = outbox.take(1)
    assert second is not None
    assert (second.first_seq, len(second.messages)) == (4, 1), "one always fits"
    outbox.resume(2)
    again = outbox.take(1 << 20)
    assert again is not None
    assert (again.first_seq, again.messages[0]) == (3, event(2, 1000))


def failed(outbox: Outbox) -> dict[str, bool]:
    """What waits for the stream: results by run, and whether each is a success."""
    taken = outbox.take(1 << 30)
    return {m.run_id: m.success for m in (taken.messages if taken else ()) if isinstance(m, RunResult)}


def result(run_id: str, size_bytes: int = 10) -> RunResult:
    return RunResult(run_id, True, b"x" * size_bytes)


LIMIT = 4 << 20


@pytest.mark.parametrize("size_bytes", [LIMIT, LIMIT - 100, LIMIT - OVERHEAD_BYTES, 6_000_000])
def test_a_result_above_the_limit_is_a_small_failure(size_bytes: int) -> None:
    outbox = Outbox(LIMIT)
    outbox.put(result("large", size_bytes))
    outbox.put(result("small", LIMIT - OVERHEAD_BYTES - 200))
    assert failed(outbox) == {"large": False, "small": True}


def test_a_limit_that_is_learned_replaces_what_was_sent_and_not_confirmed() -> None:
    outbox = Outbox()
    for run_id, size_bytes in (("before", 10), ("large", 6_000_000), ("after", 10)):
        outbox.put(result(run_id, size_bytes))
    taken = [outbox.take(256 << 10) for _ in range(3)]
    outbox.put(result("waiting", 5_000_000))
    outbox.confirm(1)
    assert outbox.limit(LIMIT)
    outbox.resume(1)
    again = outbox.take(1 << 30)
    assert taken[1] is not None
    assert again is not None
    assert again.first_seq == 2
    assert [(m.run_id, m.success) for m in again.messages if isinstance(m, RunResult)] == [
        ("large", False),
        ("after", True),
        ("waiting", False),
    ]
    outbox.confirm(4)
    assert outbox.has_room
    assert not outbox.unconfirmed_results
    assert outbox._bytes == 0


def test_to_a_plain_peer_only_what_came_after_the_large_one_is_sent_again() -> None:
    outbox = Outbox()
    for run_id, size_bytes in (("before", 10), ("large", 6_000_000), ("after", 10), ("unwritten", 10)):
        outbox.put(result(run_id, size_bytes))
    for _ in range(3):
        taken = outbox.take(256 << 10, 1)
        assert taken is not None
        outbox.wrote(taken, 100.0)
    assert outbox.limit(LIMIT)
    outbox.resume_plain(100.1, peer_ended=True)
    assert failed(outbox) == {"large": False, "after": True, "unwritten": True}


def test_a_large_message_that_is_no_result_marks_the_place_for_a_plain_peer() -> None:
    outbox = Outbox()
    outbox.put(result("before"))
    outbox.put(Event("r", "output.delta", b"x" * 6_000_000))
    outbox.put(result("after"))
    while (taken := outbox.take(256 << 10, 1)) is not None:
        outbox.wrote(taken, 100.0)
    assert outbox.limit(LIMIT)
    outbox.resume_plain(100.1, peer_ended=True)
    outbox.put(result("r"))
    assert failed(outbox) == {"after": True, "r": False}


def test_a_run_that_loses_a_delta_by_the_limit_fails() -> None:
    outbox = Outbox()
    outbox.put(Event("stream", "output.delta", b"x" * 6_000_000))
    outbox.put(result("stream"))
    outbox.put(Event("later", "output.delta", b"x" * 6_000_000))
    outbox.limit(LIMIT)
    outbox.put(result("later"))
    outbox.put(result("other"))
    assert failed(outbox) == {"stream": False, "later": False, "other": True}


def test_events_and_frames_above_the_limit_are_left_out() -> None:
    outbox = Outbox(LIMIT)
    assert not outbox.put_event(Event("r", "custom", b"x" * LIMIT))
    outbox.put(RealtimeFrame("s", b"x" * LIMIT))
    assert outbox.shed == 2
    assert not outbox.limit(LIMIT)


def test_the_result_of_what_is_too_large_names_both_sizes_and_the_way_out() -> None:
    result = too_large_result("r", 20, 10)
    text = result.safe_message
    assert text.startswith("output of 20 bytes; messages to the scheduler hold at most 10 (WORKER_MAX_MESSAGE_BYTES")
    assert text.endswith("Save a file and return its ref")
    assert result == RunResult("r", False, b"", text, "validation", False, text)


def test_room_is_counted_in_messages_and_bytes() -> None:
    outbox = Outbox()
    outbox.put(event(0, ROOM_BYTES - 96 - 1))
    assert outbox.has_room
    outbox.put(event(1, 1))
    assert not outbox.has_room
    assert outbox.take(1, 1) is not None
    assert not outbox.has_room, "what is on its way still counts"
    outbox.confirm(1)
    assert outbox.has_room
    many = Outbox()
    for number in range(ROOM_MESSAGES - 1):
        many.put(event(number))
    assert many.has_room
    many.take(1 << 30, 5)
    assert many.has_room
    many.put(event(0))
    assert not many.has_room
    many.resume(0)
    assert (many.has_room, len(many)) == (False, ROOM_MESSAGES)
    many.confirm(0)
    many.resume(1)
    assert not many.has_room or len(many) < ROOM_MESSAGES


def test_events_are_shed_by_bytes_from_the_first_one_beyond() -> None:
    outbox = Outbox()
    outbox.put(event(0, MAX_EVENT_BYTES - 96 - 1))
    assert outbox.put_event(event(1, 1)), "there was one byte left"
    assert not outbox.put_event(event(2, 1))
    assert (outbox.shed, len(outbox)) == (1, 2)
    outbox.take(1, 2)
    outbox.confirm(2)
    assert outbox.put_event(event(3, 1))


def test_waiting_events_are_counted_however_they_came() -> None:
    outbox = Outbox()
    for number in range(MAX_EVENTS - 1):
        outbox.put(event(number, 1))
    assert outbox.put_event(event(0, 1))
    assert not outbox.put_event(event(0, 1))
    outbox.limit(1 << 20)
    assert not outbox.put_event(event(0, 1)), "counted anew, with the same result"
    taken = outbox.take(1 << 30, 1)
    assert taken is not None
    assert outbox.put_event(event(0, 1)), "one is on its way"
    assert not outbox.put_event(event(0, 1))


def test_results_are_known_until_they_are_confirmed() -> None:
    outbox = Outbox()
    outbox.put(RunResult("a", True))
    outbox.put(RunResult("b", True, attempt=2))
    assert (outbox.unsent_results, outbox.unconfirmed_results) == (2, {"a", "b"})
    assert outbox.unconfirmed_attempts == {("a", 0), ("b", 2)}
    assert (outbox.holds_result_of("b", 2), outbox.holds_result_of("b"), outbox.holds_result_of("a")) == (True, False, True)
    outbox.take(1, 1)
    assert (outbox.unsent_results, outbox.unconfirmed_results) == (1, {"a", "b"})
    outbox.resume(0)
    assert outbox.unsent_results == 2
    outbox.resume(1)
    assert (outbox.unsent_results, outbox.unconfirmed_attempts) == (1, {("b", 2)})


def test_a_plain_peer_may_have_lost_what_was_written_just_before() -> None:
    def written(*at_s: float) -> Outbox:
        outbox = Outbox()
        for number, now_s in enumerate(at_s):
            outbox.put(result(str(number), 10))
            outbox.put(event(number))
            for _ in range(2):
                taken = outbox.take(1, 1)
                assert taken is not None
                outbox.wrote(taken, now_s)
        return outbox

    outbox = written(1000.0, 1000.0 + UNSURE_S - 1, 1000.0 + UNSURE_S)
    assert (outbox.unconfirmed_results, outbox._bytes, len(outbox)) == (frozenset(), 0, 0)
    outbox.resume_plain(1000.0 + UNSURE_S, peer_ended=False)
    assert outbox.unconfirmed_results == {"1", "2"}, "the first was written so long ago that a fault would have shown"
    assert outbox._bytes == 2 * size_of(result("1"))
    taken = outbox.take(1 << 20, 1)
    assert taken is not None
    assert taken == Taken(3, (result("1"),))
    outbox = written(1000.0)
    outbox.resume_plain(1000.0, peer_ended=True)
    assert len(outbox) == 0, "a peer that ended the stream has read what was written"
    outbox = written(*(1000.0,) * (MAX_UNSURE + 5))
    outbox.resume_plain(1000.0, peer_ended=False)
    assert len(outbox) == MAX_UNSURE
    assert outbox.unsent_results == MAX_UNSURE


def test_written_messages_are_forgotten_up_to_the_last_of_them() -> None:
    outbox, told = Outbox(), []
    for number in range(ROOM_MESSAGES):
        outbox.put(event(number))
    outbox.on_room(lambda: told.append(1))
    taken = outbox.take(1 << 30, 3)
    assert taken is not None
    outbox.wrote(Taken(1, taken.messages[:2]), 0.0)
    assert told == [1]
    outbox.resume(0)
    again = outbox.take(1 << 30, 1)
    assert again is not None
    assert again == Taken(3, (event(2),))


def test_what_is_unconfirmed_is_bounded() -> None:
    outbox = Outbox()
    for number in range(MAX_UNCONFIRMED + 10):
        outbox.put(event(number))
    taken = outbox.take(1 << 30, MAX_UNCONFIRMED + 10)
    assert taken is not None
    assert len(taken.messages) == MAX_UNCONFIRMED
    assert outbox.take(1 << 30) is None
    outbox.confirm(2)
    more = outbox.take(1 << 30)
    assert more is not None
    assert (more.first_seq, len(more.messages)) == (MAX_UNCONFIRMED + 1, 2)


def test_numbers_in_one_batch_have_no_gap() -> None:
    outbox = Outbox()
    for run_id in "abc":
        outbox.put(result(run_id))
        taken = outbox.take(1, 1)
        assert taken is not None
        outbox.wrote(taken, 1000.0)
    outbox.put(event(1))
    outbox.take(1, 1)
    outbox.put(event(2))
    outbox.resume_plain(1000.0, peer_ended=False)
    first = outbox.take(1 << 20)
    assert first is not None
    assert (first.first_seq, len(first.messages)) == (1, 5)
    outbox = Outbox()
    for number in range(2):
        outbox.put(result(str(number)))
        outbox.put(event(number))
    while (taken := outbox.take(1, 1)) is not None:
        outbox.wrote(taken, 1000.0)
    outbox.put(event(2))
    outbox.resume_plain(1000.0, peer_ended=False)
    seen = []
    while (taken := outbox.take(1 << 20)) is not None:
        seen.append((taken.first_seq, len(taken.messages)))
    assert seen == [(1, 1), (3, 1), (5, 1)]


def test_limits_of_content() -> None:
    assert Outbox(LIMIT).largest_bytes == LIMIT - OVERHEAD_BYTES
    assert Outbox(1000).largest_bytes == 750
    outbox = Outbox(1000)
    assert (outbox.fits(750), outbox.fits(751)) == (True, False)
    assert outbox.put_event(Event("r", "custom", b"x" * 750))
    assert not outbox.put_event(Event("r", "custom", b"x" * 751))
    assert not outbox.limit(2000)
    assert outbox.limit_bytes == 1000, "a limit that was learned is never forgotten"


def test_a_limit_makes_what_is_left_small_and_counts_its_bytes() -> None:
    outbox = Outbox()
    outbox.put(result("large", 6_000_000))
    outbox.put(result("failed", 10))
    outbox.put(event(1, 5_000_000))
    assert not outbox.limit(LIMIT), "nothing of it was on a stream"
    assert outbox.shed == 1
    taken = outbox.take(1 << 30)
    assert taken is not None
    assert taken.messages == (too_large_result("large", 6_000_000, LIMIT), result("failed", 10), Unknown())
    assert outbox._bytes == sum(size_of(message) for message in taken.messages)
    outbox.confirm(3)
    assert outbox._bytes == 0


def test_a_failure_is_sent_as_it_is_and_a_spoiled_run_fails_once() -> None:
    outbox = Outbox(LIMIT)
    outbox.put(Event("r", "output.delta", b"x" * 5_000_000))
    outbox.put(RunResult("r", False, b"", "broken", "internal", attempt=1))
    outbox.put(RunResult("r", True, b"again", attempt=2))
    taken = outbox.take(1 << 30)
    assert taken is not None
    assert taken.messages == (
        Unknown(),
        RunResult("r", False, b"", "broken", "internal", attempt=1),
        RunResult("r", True, b"again", attempt=2),
    )
    outbox.put(Event("s", "output.delta", b"x" * 5_000_000))
    outbox.put(RunResult("s", True, b"", attempt=3))
    taken = outbox.take(1 << 30)
    assert taken is not None
    spoiled = size_of(Event("s", "output.delta", b"x" * 5_000_000))
    assert taken.messages[1] == too_large_result("s", spoiled, LIMIT, 3)
