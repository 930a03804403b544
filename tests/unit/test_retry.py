"""Which requests are retried, and when."""

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


def test_what_an_error_says() -> None:
    error = HttpError(503, "hub", 7.0, "try later")
    assert (str(error), error.status, error.asked_s) == ("hub answered HTTP 503: try later", 503, 7.0)
    assert (str(HttpError(500, "hub")), HttpError(500, "hub").asked_s) == ("hub answered HTTP 500", None)
    assert not is_passing(ValueError())


def test_the_default_policy() -> None:
    assert RetryPolicy() == RetryPolicy(tries=5, first_pause_s=0.2, max_pause_s=10.0, max_asked_s=330.0)

    class Top(random.Random):
        def random(self) -> float:
            return 1.0

    top = Top()
    pauses = [RetryPolicy(tries=100).pause_s(failures, None, top) for failures in (1, 2, 3, 6, 7, 99, 100)]
    assert pauses == [0.2, 0.4, 0.8, 6.4, 10.0, 10.0, None]
    assert [RetryPolicy().pause_s(1, asked, top) for asked in (0.0, 5.0, 10.0, 330.0, 330.1)] == [0.0, 5.5, 11.0, 331.0, None]


def test_other_errors_end_the_tries() -> None:
    retries = Retries(RetryPolicy(tries=3, first_pause_s=1.0), sleep=lambda wait, seconds: False)
    assert retries.pause_s(1, ValueError("x")) is None
    assert retries.pause_s(1, HttpError(404, "hub")) is None
    assert retries.pause_s(3, PassingError()) is None
    assert 0.5 <= (retries.pause_s(1, PassingError()) or 0) <= 1.0
    assert 7.0 <= (retries.pause_s(1, HttpError(503, "hub", 7.0)) or 0) <= 7.7
    tries = []

    def attempt() -> None:
        tries.append(1)
        raise PassingError(str(len(tries)))

    with pytest.raises(PassingError, match="3"):
        retries.call(attempt, lambda seconds: False)
    assert len(tries) == 3


def test_what_is_waited_on_gets_the_pause() -> None:
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return False

    assert not Retries().wait(wait, 1.5)
    assert waited == [1.5]
    assert Retries().wait(lambda seconds: True, 1.0)


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {"ratelimit": "api;r=0;t=55"}, 55.0),  # a name without quotes
        (429, {"ratelimit": '"";r=0;t=55', "ratelimit-policy": '"";w=300'}, 55.0),
        (429, {"ratelimit": '"";r=0', "ratelimit-policy": '"";w=300'}, 300.0),
        (429, {"ratelimit": '"api";r=0;t=5=6'}, None),
        (429, {"ratelimit": '"api";r=0;q=5'}, None),
        (429, {"ratelimit": '"a";t=9, "b";t=7'}, 9.0),
        (503, {"ratelimit": '"a";t=9'}, None),
        (429, {"ratelimit": '"a";r=0', "ratelimit-policy": '"b";w=300'}, None),
        (429, {"ratelimit": "a;r=0", "ratelimit-policy": "a;w=10, b;w=300"}, 10.0),
        (503, {"ratelimit": "limit=100, remaining=0, reset=50"}, 50.0),
        (503, {"ratelimit": "limit=100, remaining=1, reset=50"}, None),
        (429, {"ratelimit": "limit = 100, remaining = 1, reset = 50"}, 50.0),
        (503, {"ratelimit-remaining": "0", "ratelimit-reset": "50"}, 50.0),
        (503, {"ratelimit-reset": "50"}, None),
        (503, {"retry-after": "9" * 10}, 1e9),
        (503, {"retry-after": "9" * 9}, 999_999_999.0),
        (503, {"retry-after": "1000000001"}, 1e9),
        (503, {"retry-after": "0" * 11 + "12"}, 1.0),
        (503, {"retry-after": " 7 "}, 7.0),
        (503, {"retry-after": "soon", "ratelimit": '"api";r=0;t=55'}, 55.0),
        (503, {"retry-after": formatdate(NOW_S + 5, usegmt=True), "date": "yesterday"}, 5.0),
    ],
)  # fmt: skip
def test_more_that_a_server_asks_for(status: int, headers: dict[str, str], expected: float | None) -> None:
    assert asked_s(status, headers, FixedClock()) == expected
