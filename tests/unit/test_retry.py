"""Which requests are tried again, and when."""

import random
from email.utils import formatdate

import pytest

from gen_worker.net.retry import PASSING, HttpError, PassingError, Retries, RetryPolicy, asked_s, is_passing

NOW_S = 1_800_000_000.0


class FixedClock:
    def now_s(self) -> float:
        return 5.0

    def unix_s(self) -> float:
        return NOW_S


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {}, None),
        (503, {"retry-after": "7"}, 7.0),
        (503, {"retry-after": " 0 "}, 0.0),
        (429, {"retry-after": formatdate(NOW_S + 90, usegmt=True)}, 90.0),
        (429, {"retry-after": formatdate(NOW_S - 90, usegmt=True)}, 0.0),
        # A server whose clock is an hour behind: it counts from its own date.
        (429, {"retry-after": formatdate(NOW_S - 3570, usegmt=True), "date": formatdate(NOW_S - 3600, usegmt=True)}, 30.0),
        (503, {"retry-after": "Friday, 15-Jan-27 08:01:30 GMT"}, 90.0),  # RFC 850, which RFC 9110 still has
        (429, {"retry-after": "soon"}, None),
        (429, {"retry-after": "-3"}, None),
        (429, {"retry-after": "1.5"}, None),
        (429, {"retry-after": "\u00b2"}, None),
        (429, {"retry-after": "9" * 5000}, 1e9),
        (429, {"ratelimit": '"api";r=0;t=55'}, 55.0),
        (429, {"ratelimit": '"api" ; r=0 ; t=55'}, 55.0),
        (429, {"ratelimit": '"pages";r=12;t=9, "resolvers";r=0;t=240'}, 240.0),
        (429, {"ratelimit": '"api";r=3;t=55'}, 55.0),
        (500, {"ratelimit": '"api";r=3;t=55'}, None),  # said with every answer; it is not why this one failed
        (503, {"ratelimit": '"api";r=0;t=55'}, 55.0),
        (429, {"ratelimit": '"api";r=0', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}, 300.0),
        (429, {"ratelimit": "limit=100, remaining=0, reset=50"}, 50.0),
        (429, {"ratelimit-limit": "100", "ratelimit-remaining": "0", "ratelimit-reset": "50"}, 50.0),
        (429, {"ratelimit-remaining": "0", "ratelimit-reset": "\u00b2"}, None),
        (429, {"ratelimit": "limit=1, remaining=0, reset=" + "9" * 5000}, 1e9),
        (429, {"ratelimit-reset": "9" * 5000}, 1e9),
        (429, {"ratelimit": '"a";r=0;t=' + "9" * 5000}, 1e9),
        (429, {"ratelimit": '"a";r=0;t=5' * 3000}, 5.0),
        (429, {"ratelimit": "nonsense", "ratelimit-policy": ";;;=,\""}, None),
        (429, {"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3.0),
    ],
)  # fmt: skip
def test_what_a_server_asks_for(status: int, headers: dict[str, str], expected: float | None) -> None:
    assert asked_s(status, headers, FixedClock()) == expected


def test_pauses_grow_are_spread_and_end() -> None:
    policy, rng = RetryPolicy(tries=6, first_pause_s=1.0, max_pause_s=5.0), random.Random(1)
    for failures, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (5, 5.0)):
        found = [policy.pause_s(failures, None, rng) for _ in range(200)]
        assert all(pause is not None and most / 2 <= pause <= most for pause in found)
        assert len(set(found)) > 100
    assert policy.pause_s(6, None, rng) is None
    assert policy.pause_s(10**6, None, rng) is None


def test_the_servers_own_wish_counts_within_bounds() -> None:
    policy, rng = RetryPolicy(max_asked_s=300.0), random.Random(1)
    assert all(55.0 <= (policy.pause_s(1, 55.0, rng) or 0) <= 56.0 for _ in range(100))
    assert policy.pause_s(1, 301.0, rng) is None, "a try before that would be refused"
    assert policy.pause_s(5, 1.0, rng) is None


@pytest.mark.parametrize("status", sorted(PASSING))
def test_a_call_goes_on_until_it_succeeds(status: int) -> None:
    errors: list[Exception] = [HttpError(status, "hub"), PassingError("cut"), HttpError(status, "hub", 8.0)]
    slept: list[float] = []
    retries = Retries(RetryPolicy(first_pause_s=1.0), rng=random.Random(3), sleep=lambda wait, seconds: slept.append(seconds) or wait(0))

    def attempt() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    assert retries.call(attempt, lambda seconds: False) == "done"
    assert 0.5 <= slept[0] <= 1.0 <= slept[1] <= 2.0
    assert 8.0 <= slept[2] <= 9.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 501, 505])
def test_other_refusals_count_at_once(status: int) -> None:
    tries = []

    def attempt() -> None:
        tries.append(1)
        raise HttpError(status, "hub")

    with pytest.raises(HttpError, match=f"hub answered HTTP {status}") as refused:
        Retries().call(attempt, lambda seconds: False)
    assert (len(tries), is_passing(refused.value)) == (1, False)


def test_a_cancel_ends_the_tries() -> None:
    tries = []

    def attempt() -> None:
        tries.append(1)
        raise PassingError("cut")

    with pytest.raises(PassingError):
        Retries().call(attempt, lambda seconds: True)
    assert len(tries) == 1
