"""Decisions about webhooks: which events of a run are sent, when a delivery is retried, and which hosts are paused.

    pending --2xx--> delivered
       |  \\--410, or the last try failed--> failed
       +--anything else--> pending, later

Due times (`next_at`, `open_until`) are of a calendar that nobody sets (`SteadyCalendar`), other times of the clock on the wall. The next
leader's calendar may be another, and what it finds is brought within reach of it (`within_reach`).

A delivery is written in the transaction that ends its run, so a crash loses none. Its id is made from the run and the event, and stays the
same over all tries, so a receiver can ignore duplicates.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

import msgspec

STARTED: Final = "started"
ENDED: Final = "ended"
FINAL_EVENTS: Final = ("succeeded", "failed", "canceled", "expired")
EVENTS: Final = (STARTED, *FINAL_EVENTS)
# The schedule proposed by Standard Webhooks: ten tries in about three days.
DELAYS_S: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
JITTER: Final = 0.1
GONE: Final = 410
AT_ONCE_PER_HOST: Final = 4
MAX_FAILURES: Final = 5
FIRST_PAUSE_S: Final = 30.0
MAX_PAUSE_S: Final = 600.0


class Target(msgspec.Struct, frozen=True):
    """What a run's caller requested. No `events` means: the end of the run, however it ends. `predictions`: the base
    URL of predictions; if set, the receiver gets the run as a prediction.
    """

    url: str
    events: tuple[str, ...] = ()
    predictions: str = ""

    def wants(self, event: str) -> bool:
        """Whether the receiver wants this event: `started`, or an end such as `succeeded` or `failed`."""
        return event in (self.events or FINAL_EVENTS)


class Try(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request. `status` 0: no answer came; `error` says why."""

    at: float
    took_ms: int
    status: int = 0
    error: str = ""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message to a receiver. `moment` is `started` or `ended`; `state` is `pending`, `delivered`, `failed` or `unwanted`."""

    id: str
    run_id: str
    moment: str
    created_at: float
    state: str = "pending"
    next_at: float = 0.0
    tries: tuple[Try, ...] = ()


AGAIN: Final = ".again-"
MAX_AGAIN: Final = 20


def again(there: Sequence[Delivery], delivery: Delivery, at: float, due: float) -> Delivery:
    """A repeated delivery, made on request; `ValueError` while the delivery is still pending, or when it was repeated
    too often.

    `there` are all deliveries of its run. Receivers see the id of the first one (`message_id`).
    """
    first = message_id(delivery.id)
    same = [each for each in there if message_id(each.id) == first]
    if waiting := [each for each in same if each.state == "pending"]:
        raise ValueError(f"delivery {waiting[0].id} is still pending: it is retried automatically")
    if len(same) > MAX_AGAIN:
        raise ValueError(f"delivery {first} was made again {len(same) - 1} times; at most {MAX_AGAIN} are kept")
    return Delivery(id=f"{first}{AGAIN}{len(same)}", run_id=delivery.run_id, moment=delivery.moment, created_at=at, next_at=due)


def message_id(delivery_id: str) -> str:
    """The value of `webhook-id`: the same however often a message is delivered."""
    return delivery_id.partition(AGAIN)[0]


_target = msgspec.json.Decoder(Target).decode


def read_target(webhook: bytes) -> Target:
    """The target as stored with a run."""
    return _target(webhook)


def delivery_at(moment: str, run_id: str, webhook: bytes, at: float, due: float) -> Delivery | None:
    """The delivery for a moment of a run, due at `due`; None when its caller did not request it."""
    if not webhook:
        return None
    target = read_target(webhook)
    events = (STARTED,) if moment == STARTED else FINAL_EVENTS
    if not any(target.wants(event) for event in events):
        return None
    return Delivery(id=f"{run_id}.{moment}", run_id=run_id, moment=moment, created_at=at, next_at=due)


def after_try(delivery: Delivery, made: Try, random: Random, now: float) -> Delivery:
    """The delivery after one more request, made now."""
    tries = (*delivery.tries, made)
    if 200 <= made.status < 300:
        return msgspec.structs.replace(delivery, state="delivered", tries=tries)
    if made.status == GONE or len(tries) > len(DELAYS_S):
        return msgspec.structs.replace(delivery, state="failed", tries=tries)
    delay_s = DELAYS_S[len(tries) - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    return msgspec.structs.replace(delivery, next_at=now + delay_s, tries=tries)


def within_reach(delivery: Delivery, now: float) -> Delivery:
    """A delivery from another calendar: its next try is moved to no later than the longest pause allows."""
    longest_s = max(MAX_PAUSE_S, DELAYS_S[min(len(delivery.tries), len(DELAYS_S)) - 1] * (1 + JITTER) if delivery.tries else 0.0)
    return delivery if delivery.next_at <= now + longest_s else msgspec.structs.replace(delivery, next_at=now + longest_s)


def has_room(free: int, *, of_owner: int, of_host: int) -> bool:
    """Whether one more request may begin, with `free` places left, `of_owner` requests of its owner and `of_host` to its host
    under way.

    An owner holds at most as many places as it leaves free. So one owner alone gets half of them, each of two a third, and an
    owner that holds none gets any free one, however many messages of others wait.
    """
    return of_owner < free and of_host < AT_ONCE_PER_HOST


class Breaker(msgspec.Struct, frozen=True):
    """One host: failures in a row, and until when it is paused (0: not paused)."""

    failures: int = 0
    open_until: float = 0.0

    def after(self, now: float, *, answered: bool) -> "Breaker":
        """The state after a request. From the fifth failure in a row on there is a pause, twice as long each time; one answer ends it."""
        if answered:
            return Breaker()
        failures = self.failures + 1
        if failures < MAX_FAILURES:
            return Breaker(failures)
        pause_s: float = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - MAX_FAILURES, 10))
        return Breaker(failures, now + pause_s)


def is_open(breakers: Mapping[str, Breaker], host: str, now: float) -> float:
    """Until when a host is paused; 0 when it may be called."""
    until = breakers.get(host, _CLOSED).open_until
    return until if until > now else 0.0


_CLOSED = Breaker()
