"""Which models a worker expects to need next, and what it does about it."""

import random

from gen_worker.residency.foresight import Foresight, Tally, is_worth_it


def test_what_always_follows_is_foreseen_after_it_was_seen_twice() -> None:
    foresight = Foresight()
    for name in "abcab":
        foresight.used(name)
    assert foresight.next() == []  # c has followed b once
    for name in "cab":
        foresight.used(name)
    (expected,) = foresight.next()
    assert expected.name == "c"
    assert 0.5 < expected.probability < 0.7  # there is not much to go by
    for name in "cab" * 30:
        foresight.used(name)
    assert foresight.next()[0].probability > 0.9


def test_what_follows_now_counts_more_than_what_followed_then() -> None:
    foresight = Foresight()
    for _ in range(20):
        foresight.used("a")
        foresight.used("b")
    for _ in range(10):
        foresight.used("a")
        foresight.used("c")
    foresight.used("a")
    assert [item.name for item in foresight.next()] == ["c"]


def test_where_nothing_follows_from_anything_nothing_is_foreseen() -> None:
    foresight, dice, foreseen = Foresight(), random.Random(1), 0
    for _ in range(500):
        foresight.used(dice.choice("abcdefgh"))
        foreseen += bool(foresight.next())
    assert foreseen < 50


def test_a_gain_has_to_be_worth_the_harm() -> None:
    assert is_worth_it(0.9, reload_s=10.0, harm_s=0.0)
    assert is_worth_it(0.8, reload_s=10.0, harm_s=10.0)  # as much as it gains, but only one time in five
    assert not is_worth_it(0.6, reload_s=10.0, harm_s=10.0)
    assert is_worth_it(0.6, reload_s=10.0, harm_s=4.0)
    assert not is_worth_it(0.4, reload_s=10.0, harm_s=0.0)
    assert not is_worth_it(0.9, reload_s=10.0, harm_s=None)  # there is no room
    assert not is_worth_it(0.9, reload_s=0.0, harm_s=0.0)  # nothing is known of it, or it is there


def test_what_was_long_ago_counts_less() -> None:
    """The first three say nothing, because the count fades; then the last ones outweigh those before."""
    tally = Tally()
    for number in range(3):
        tally.loaded(str(number), 1000, 0.0)
        tally.gone(str(number))
    assert tally.pays, "1 + 0.9 + 0.81 is fewer than 3"
    tally.loaded("3", 1000, 0.0)
    tally.gone("3")
    assert not tally.pays
    for number in range(4, 8):
        tally.loaded(str(number), 1000, 0.0)
        tally.used(str(number), 1.0)
        assert tally.pays == (number >= 6), "the third use makes it more than half, of what is remembered"


def test_it_stops_when_less_than_half_is_used_and_tries_again_later() -> None:
    tally = Tally()
    assert tally.pays
    tally.loaded("a", 1000, 0.0)
    tally.used("a", 5.0)
    tally.used("a", 6.0)  # counted once
    assert (tally.loaded_bytes, tally.used_bytes, tally.pays) == (1000, 1000, True)
    tally.loaded("a", 1000, 7.0)
    tally.used("a", 8.0)
    for name in "bc":
        tally.loaded(name, 1000, 10.0)
    tally.gone("c")  # evicted before anybody came
    assert tally.pays
    tally.used("e", 700.0)  # b was wanted by nobody for ten minutes
    assert not tally.pays
    assert (tally.loaded_bytes, tally.used_bytes) == (4000, 2000)
    for _ in range(100):
        tally.forgive()
    assert tally.pays


def test_where_the_bounds_lie() -> None:
    assert is_worth_it(0.5, reload_s=1.0, harm_s=0.0)
    assert not is_worth_it(0.75, reload_s=1.0, harm_s=1.0), "the gain must be more than three times the harm"
    assert is_worth_it(0.76, reload_s=1.0, harm_s=1.0)


def test_the_first_model_follows_none() -> None:
    foresight = Foresight()
    foresight.used("a")
    assert foresight._after == {}
    assert foresight.next() == []


def test_what_was_loaded_ahead_may_be_used_for_ten_minutes() -> None:
    tally = Tally()
    for name in "abcd":
        tally.loaded(name, 1000, 1000.0)
    for name in "ab":
        tally.used(name, 1600.0)
    assert tally.used_bytes == 2000, "ten minutes after, at another time than the clock's first"
    for name in "cd":
        tally.used(name, 1600.1)
    assert tally.used_bytes == 2000
