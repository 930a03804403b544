"""What a webhook contains, when a delivery is retried, and when a host is paused."""

from random import Random

import msgspec
import pytest

from gen_orchestrator.domain.webhooks import (
    DELAYS_S,
    MAX_AGAIN,
    MAX_PAUSE_S,
    Breaker,
    Delivery,
    Target,
    Try,
    after_try,
    again,
    delivery_at,
    has_room,
    is_open,
    message_id,
    within_reach,
)


def a_delivery(**changes: object) -> Delivery:
    fields: dict[str, object] = {"id": "r.ended", "run_id": "r", "moment": "ended", "created_at": 0.0}
    return Delivery(**{**fields, **changes})  # type: ignore[arg-type]


def test_without_a_filter_the_end_is_told() -> None:
    target = Target("https://x.example/")
    assert target.wants("succeeded")
    assert target.wants("expired")
    assert not target.wants("started")
    assert Target("https://x.example/", ("started",)).wants("started")


def test_only_wanted_moments_make_a_delivery() -> None:
    assert delivery_at("ended", "r", b"", 1.0, 1.0) is None
    assert delivery_at("started", "r", b'{"url":"u"}', 1.0, 1.0) is None
    assert delivery_at("ended", "r", b'{"url":"u","events":["started"]}', 1.0, 1.0) is None
    found = delivery_at("ended", "r", b'{"url":"u","events":["failed"]}', 1.0, 4.0)
    assert found is not None
    assert found == Delivery(id="r.ended", run_id="r", moment="ended", created_at=1.0, next_at=4.0)
    assert delivery_at("started", "r", b'{"url":"u","events":["started"]}', 2.0, 2.0) == Delivery(
        id="r.started", run_id="r", moment="started", created_at=2.0, next_at=2.0
    )


def test_tries_come_to_an_end() -> None:
    delivery, at = a_delivery(), 0.0
    for delay_s in DELAYS_S:
        delivery = after_try(delivery, Try(0.0, 5, 500), Random(1), at)
        assert delivery.state == "pending"
        assert 0.9 * delay_s <= delivery.next_at - at <= 1.1 * delay_s
        at = delivery.next_at
    assert len(delivery.tries) == len(DELAYS_S)
    assert after_try(delivery, Try(at, 5, 500), Random(1), at).tries == (*delivery.tries, Try(at, 5, 500))
    assert after_try(delivery, Try(at, 5, 500), Random(1), at).state == "failed"
    for status, state in ((199, "failed"), (200, "delivered"), (299, "delivered"), (300, "failed")):
        assert after_try(delivery, Try(at, 5, status), Random(1), at).state == state
    assert after_try(delivery, Try(at, 5, 204), Random(1), at).state == "delivered"
    assert after_try(a_delivery(), Try(0, 5, 410), Random(1), at).state == "failed"


def test_delays_differ_by_a_tenth_to_either_side() -> None:
    delays = [after_try(a_delivery(), Try(0.0, 5, 500), Random(seed), 0.0).next_at / DELAYS_S[0] for seed in range(100)]
    assert 0.9 <= min(delays) < 0.92
    assert 1.08 < max(delays) <= 1.1


def test_what_another_calendar_wrote_comes_within_reach() -> None:
    failed = (Try(0.0, 5, 500),)
    for tries, next_at, expected in (
        ((), 50.0, 50.0), ((), 3600.0, 10 + MAX_PAUSE_S), (failed, 7200.0, 10 + MAX_PAUSE_S), (failed * 3, 1900.0, 1900.0),
        (failed * 3, 9000.0, 10 + DELAYS_S[2] * 1.1), (failed * 9, 80_000.0, 80_000.0), (failed * 20, 200_000.0, 10 + DELAYS_S[-1] * 1.1),
    ):  # fmt: skip
        assert within_reach(a_delivery(tries=tries, next_at=next_at), 10.0).next_at == pytest.approx(expected), (len(tries), next_at)
    there = a_delivery(next_at=11.0)
    assert within_reach(there, 10.0) is there


def test_a_host_that_fails_is_left_alone_for_longer_and_longer() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker = breaker.after(10.0, answered=False)
        assert is_open({"h": breaker}, "h", 10.0) == 0
    pauses = []
    for _ in range(8):
        breaker = breaker.after(10.0, answered=False)
        pauses.append(breaker.open_until - 10.0)
    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600]
    assert is_open({"h": breaker}, "h", 11.0) == 610
    assert is_open({"h": breaker}, "h", 609.0) == 610
    assert is_open({"h": breaker}, "h", 610.0) == 0
    assert is_open({"h": breaker}, "h", 611.0) == 0
    assert breaker.after(20.0, answered=True) == Breaker()
    assert is_open({}, "h", 0.0) == 0


def test_a_delivery_is_made_again_under_the_id_of_the_first() -> None:
    first = a_delivery(state="delivered")
    second = again([first, a_delivery(id="r.started", moment="started")], first, 6.0, 7.0)
    assert second == Delivery(id="r.ended.again-1", run_id="r", moment="ended", created_at=6.0, next_at=7.0)
    assert (message_id(second.id), message_id(first.id)) == ("r.ended", "r.ended")
    second = msgspec.structs.replace(second, state="failed")
    assert again([first, second], second, 8.0, 8.0).id == "r.ended.again-2"
    pending = msgspec.structs.replace(second, state="pending")
    with pytest.raises(ValueError, match=r"^delivery r\.ended\.again-1 is still pending: it is retried automatically$"):
        again([first, pending], first, 8.0, 8.0)
    many = [first, *(a_delivery(id=f"r.ended.again-{number}", state="failed") for number in range(1, MAX_AGAIN + 1))]
    assert again(many[:-1], first, 8.0, 8.0).id == f"r.ended.again-{MAX_AGAIN}"
    with pytest.raises(ValueError, match=rf"^delivery r\.ended was made again {MAX_AGAIN} times; at most {MAX_AGAIN} are kept$"):
        again(many, first, 8.0, 8.0)


def test_no_owner_takes_all_places() -> None:
    def taken(*owners: str) -> dict[str, int]:
        """What each owner holds when they come one after the other, each for as much as it can get."""
        held = dict.fromkeys(owners, 0)
        for owner in owners:
            while has_room(16 - sum(held.values()), of_owner=held[owner], of_host=0):
                held[owner] += 1
        return held

    assert taken("a") == {"a": 8}
    assert taken("a", "b", "c") == {"a": 8, "b": 4, "c": 2}
    assert has_room(1, of_owner=0, of_host=0)
    assert not has_room(1, of_owner=1, of_host=0), "the last place is for somebody who holds none"
    assert not has_room(0, of_owner=0, of_host=0)
    assert not has_room(16, of_owner=4, of_host=4)


def test_places_are_shared_equally_in_time() -> None:
    held = {"a": 8, "b": 4, "c": 2, "d": 1}
    for _ in range(100):  # the one with the most ends a request; whoever has the least is asked first
        held[max(held, key=held.__getitem__)] -= 1
        for owner in sorted(held, key=held.__getitem__):
            if has_room(16 - sum(held.values()), of_owner=held[owner], of_host=0):
                held[owner] += 1
    assert max(held.values()) - min(held.values()) <= 1, held
