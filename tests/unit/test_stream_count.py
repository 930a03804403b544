"""How many streams a download has."""

from gen_worker.net.stream_count import NEAR_RANGE_BYTES, NEAR_S, RANGE_BYTES, StreamCount


def test_next_door_it_begins_with_few() -> None:
    assert StreamCount(4, 16, files=1).count == 1
    assert StreamCount(4, 16, files=300).count == 4
    assert StreamCount(4, 1, files=3).count == 1


def test_it_adds_for_as_long_as_each_addition_pays() -> None:
    count = StreamCount(4, 16, files=1)
    seen = []
    for rate in (1e9, 2e9, 3e9, 3.1e9, 3.2e9, 2e9):
        count.measured(rate)
        seen.append(count.count)
    assert seen == [2, 3, 4, 4, 4, 4]


def test_far_away_it_begins_with_the_usual_number() -> None:
    count = StreamCount(4, 16, files=1)
    assert not count.answered(NEAR_S)
    assert count.answered(0.025)
    assert not count.answered(0.025)
    assert count.count == 4
    for rate in (1e8, 2e8, 2e8, 2e8, 3e8):
        count.measured(rate)
    assert count.count == 10


def test_never_more_than_allowed() -> None:
    count = StreamCount(4, 5, files=9)
    count.answered(1.0)
    for power in range(20):
        count.measured(2.0**power)
    assert count.count == 5


def test_much_at_once_is_asked_of_a_server_that_is_known_to_be_near() -> None:
    count = StreamCount(4, 16, files=1)
    assert count.range_bytes == RANGE_BYTES
    count.answered(NEAR_S)
    assert count.range_bytes == NEAR_RANGE_BYTES
    count.answered(0.025)
    assert count.range_bytes == RANGE_BYTES
