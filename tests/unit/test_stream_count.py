"""How many streams a download keeps."""

from gen_worker.net.stream_count import NEAR_S, StreamCount


def test_next_door_one_stream_a_file_is_where_it_begins() -> None:
    assert StreamCount(4, 16, files=1).count == 1
    assert StreamCount(4, 16, files=3).count == 3
    assert StreamCount(4, 16, files=300).count == 4


def test_next_door_an_addition_that_does_not_pay_is_taken_back_for_good() -> None:
    count = StreamCount(4, 16, files=1)
    count.measured(1e9)
    assert count.count == 2
    count.measured(1.05e9)
    assert count.count == 1
    count.measured(9e9)
    assert count.count == 1


def test_next_door_additions_that_pay_stay() -> None:
    count = StreamCount(4, 16, files=1)
    seen = []
    for rate in (1e9, 2e9, 4e9, 4e9):
        count.measured(rate)
        seen.append(count.count)
    assert seen == [2, 4, 6, 4]


def test_far_away_it_begins_with_the_usual_number_and_never_goes_back() -> None:
    count = StreamCount(4, 16, files=1)
    assert not count.answered(NEAR_S)
    assert count.answered(0.025)
    assert not count.answered(0.025)
    assert (count.count, count.is_near) == (4, False)
    for rate in (1e8, 2e8, 2e8, 2e8, 3e8):
        count.measured(rate)
    assert count.count == 10


def test_one_late_answer_is_enough_after_it_had_settled_nearby() -> None:
    count = StreamCount(4, 16, files=1)
    count.measured(1e9)
    count.measured(1e9)
    assert count.answered(0.5)
    count.measured(2e9)
    assert count.count == 6


def test_never_more_than_allowed() -> None:
    count = StreamCount(4, 5, files=9)
    count.answered(1.0)
    for power in range(20):
        count.measured(2.0**power)
    assert count.count == 5
