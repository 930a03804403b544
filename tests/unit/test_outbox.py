"""The worker's outbox: bounds, shedding, room."""

from gen_worker.wire.messages import Event, RunResult
from gen_worker.wire.outbox import MAX_EVENTS, ROOM_MESSAGES, Outbox


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
