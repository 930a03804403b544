"""Which address is tried next, and how long to wait."""

import random

import pytest

from gen_worker.runtime.seeds import MAX_HINTS_IN_A_ROW, MAX_LEARNED, Backoff, Seeds


def round_of(seeds: Seeds) -> list[str]:
    found = []
    while (address := seeds.next()) is not None:
        found.append(address)
    return found


def test_a_round_tries_each_address_once_in_order() -> None:
    seeds = Seeds(["a:1", " b:2 ", "", "a:1", "c:3"])
    assert round_of(seeds) == ["a:1", "b:2", "c:3"]
    assert seeds.next() is None
    seeds.new_round()
    assert round_of(seeds) == ["a:1", "b:2", "c:3"]
    seeds.new_round(first="b:2")
    assert round_of(seeds) == ["b:2", "a:1", "c:3"]


def test_a_named_leader_goes_first_once_and_joins_the_front() -> None:
    seeds = Seeds(["a:1", "b:2"])
    assert seeds.next() == "a:1"
    seeds.hint("l:9", secure=False)
    assert round_of(seeds) == ["l:9", "b:2"]
    seeds.new_round()
    assert round_of(seeds) == ["l:9", "a:1", "b:2"]


def test_circles_end_the_round() -> None:
    seeds = Seeds(["a:1", "b:2"])
    dialled = 0
    while (address := seeds.next()) is not None:
        dialled += 1
        seeds.hint("b:2" if address == "a:1" else "a:1", secure=False)
    assert dialled == MAX_HINTS_IN_A_ROW + 1


def test_what_is_learned_is_bounded() -> None:
    seeds = Seeds(["a:1"])
    for number in range(100):
        seeds.hint(f"l:{number}", secure=True)
    assert len(seeds.known()) == MAX_LEARNED + 1
    assert seeds.known()[0] == "l:99"
    assert seeds.must_be_secure("l:99")
    assert not seeds.must_be_secure("l:1"), "forgotten with its address"


def test_the_policy_of_the_naming_stream_holds_for_the_named() -> None:
    seeds = Seeds(["a:1"])
    seeds.hint("l:1", secure=True)
    seeds.hint("l:1", secure=False)
    seeds.hint("a:1", secure=True)
    assert seeds.must_be_secure("l:1")
    assert not seeds.must_be_secure("a:1"), "a configured address keeps its own policy"


def test_no_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="SCHEDULER_PUBLIC_ADDR"):
        Seeds(["", " "])


def test_backoff_doubles_up_to_its_cap() -> None:
    rng = random.Random(1)
    backoff = Backoff(5, 60, 0)
    assert [backoff.delay_s(attempt, rng) for attempt in range(1, 7)] == [5, 10, 20, 40, 60, 60]
    assert Backoff(5, 0, 0).delay_s(8, rng) == 640
    assert Backoff(5, 60, 0).delay_s(10_000, rng) == 60
    delays = [Backoff(5, 60, 1).delay_s(1, rng) for _ in range(200)]
    assert 5 <= min(delays) < 5.2
    assert 5.8 < max(delays) <= 6


def test_a_scheduler_that_is_there_is_dialled_again_soon_however_short_its_streams() -> None:
    rng = random.Random(1)
    backoff = Backoff(5, 60, 0)
    assert [backoff.redial_s(short, rng) for short in range(8)] == [0, 0.25, 0.5, 1, 2, 4, 5, 5]
    assert backoff.redial_s(10_000, rng) == 5
    assert Backoff(0.1, 60, 0).redial_s(3, rng) == 0.1
    assert 0 < Backoff(5, 60, 1).redial_s(0, rng) <= 1
