"""Whether a request is retried, and how long to wait before: the one policy for listings, downloads, inputs and saved
files.

A retry may help when the connection broke, or when the server answered with a status in `PASSING`. The pause grows with
each failure in a row. A server that says how long to wait is obeyed: `Retry-After` (RFC 9110, 10.2.3: seconds or a
date), else `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers; Hugging Face sends them with every
answer). If it asks for more than `max_asked_s`, the request fails at once, because an earlier try would be refused
again.

Nothing here sleeps by itself: the caller passes a function that waits, so that a cancel ends a pause.
"""

import random
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec

from gen_worker.clock import Clock, SystemClock

T = TypeVar("T")
_random = random.Random()  # noqa: S311 - spreads tries; one for all, since seeding one for each run costs as much as decoding its payload

# The only list of statuses for temporary errors. 520 to 524 are Cloudflare's for an origin that is down or slow.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

_RATE_ITEM = re.compile(r"\s*(?:\"(?P<quoted>[^\"]*)\"|(?P<plain>[A-Za-z*][\w.*-]*))(?P<params>(?:\s*;\s*[a-z]+\s*=\s*[^;,]*)*)")
_OLD_RATE_ITEM = re.compile(r"(limit|remaining|reset)\s*=\s*(\d+)")


class PassingError(Exception):
    """The connection or the answer broke; another try may succeed."""


class HttpError(Exception):
    """The server refused. `asked_s`: seconds that it asks to wait, None when it does not say."""

    def __init__(self, status: int, host: str, asked_s: float | None = None, said: str = "") -> None:
        super().__init__(f"{host} answered HTTP {status}" + (f": {said}" if said else ""))
        self.status = status
        self.asked_s = asked_s


class RetryPolicy(msgspec.Struct, frozen=True):
    """`tries` in all. Pauses double from `first_pause_s` up to `max_pause_s`; each is multiplied by a random 0.5 to 1."""

    tries: int = 5
    first_pause_s: float = 0.2
    max_pause_s: float = 10.0
    max_asked_s: float = 330.0  # Hugging Face counts requests in windows of 300 s

    def pause_s(self, failures: int, asked_s: float | None, rng: random.Random) -> float | None:
        """Seconds to wait after this many failures in a row (at least 1); None: give up."""
        if failures >= self.tries or (asked_s is not None and asked_s > self.max_asked_s):
            return None
        if asked_s is not None:  # not earlier, and not all clients at the same moment
            return asked_s + rng.uniform(0.0, min(1.0, 0.1 * asked_s))
        return float(min(self.max_pause_s, self.first_pause_s * 2 ** min(failures - 1, 60)) * rng.uniform(0.5, 1.0))


def is_passing(error: Exception) -> bool:
    """Whether another try may succeed."""
    return isinstance(error, PassingError) or (isinstance(error, HttpError) and error.status in PASSING)


Wait = Callable[[float], bool]


class Retries:
    """A policy with its clock and its random numbers. `sleep(wait, seconds)` calls `wait(seconds)`; tests replace it."""

    def __init__(
        self,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        *,
        clock: Clock = SystemClock(),  # noqa: B008 - without state
        rng: random.Random | None = None,
        sleep: Callable[[Wait, float], bool] = lambda wait, seconds: wait(seconds),
    ) -> None:
        self.policy = policy
        self.clock = clock
        self._rng = rng or _random
        self._sleep = sleep

    def pause_s(self, failures: int, error: Exception) -> float | None:
        """Like `RetryPolicy.pause_s`; also None when no retry can help."""
        if not is_passing(error):
            return None
        return self.policy.pause_s(failures, getattr(error, "asked_s", None), self._rng)

    def wait(self, wait: Wait, seconds: float) -> bool:
        """Wait this long, or until `wait` returns True; returns whether it did."""
        return self._sleep(wait, seconds)

    def call(self, attempt: Callable[[], T], wait: Wait) -> T:
        """The result of the first try that succeeds; otherwise the error of the last one.

        `wait` waits for a number of seconds; returning True ends the tries. An example is `cancel.wait`.
        """
        failures = 0
        while True:
            try:
                return attempt()
            except (PassingError, HttpError) as exc:
                failures += 1
                pause_s = self.pause_s(failures, exc)
                if pause_s is None or self.wait(wait, pause_s):
                    raise


def asked_s(status: int, headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds that a server asks to wait, from the headers of its refusal (names in lower case); None when it does not say."""
    retry_after = headers.get("retry-after", "").strip()
    if retry_after:
        if (seconds := _number(retry_after)) is not None:
            return float(seconds)
        then_s = _unix_s(retry_after)
        if then_s is not None:
            # The server's clock may differ from ours: count from its own `Date`.
            now_s = _unix_s(headers.get("date", ""))
            return max(0.0, then_s - (now_s if now_s is not None else clock.unix_s()))
    return _rate_limit_s(status, headers)


def _rate_limit_s(status: int, headers: Mapping[str, str]) -> float | None:
    """`RateLimit: "api";r=0;t=55`: nothing is left for 55 s. Without `t` the policy's whole window counts (`w` of
    `RateLimit-Policy`). Drafts up to 06 wrote `limit=100, remaining=0, reset=55`, or three headers `RateLimit-Limit`
    and so on.
    """
    text = headers.get("ratelimit", "")
    windows = {name: params.get("w") for name, params in _rate_items(headers.get("ratelimit-policy", ""))}
    items = [(params.get("r"), params.get("t", windows.get(name))) for name, params in _rate_items(text) if params.keys() & {"r", "t"}]
    if not items:
        old = {name: _number(value) for name, value in _OLD_RATE_ITEM.findall(text)} or {
            part: _number(headers.get(f"ratelimit-{part}", "")) for part in ("remaining", "reset")
        }
        items = [(old.get("remaining"), old.get("reset"))]
    used_up = [reset for left, reset in items if reset is not None and left == 0]
    if not used_up and status == 429:  # refused because of the limit, whatever the counter says
        used_up = [reset for _, reset in items if reset is not None]
    return float(max(used_up)) if used_up else None


def _rate_items(text: str) -> list[tuple[str, dict[str, int]]]:
    found = []
    for item in _RATE_ITEM.finditer(text):
        params = {}
        for part in item["params"].split(";"):
            name, _, value = part.partition("=")
            if (number := _number(value)) is not None:
                params[name.strip()] = number
        found.append((item["quoted"] if item["quoted"] is not None else item["plain"], params))
    return found


def _number(text: str) -> int | None:
    """ASCII digits as a number, at most 10^9: more is as good as for ever."""
    text = text.strip()
    return min(int(text[:12]), 10**9) if text.isascii() and text.isdigit() else None


def _unix_s(text: str) -> float | None:
    """An HTTP date (RFC 9110, 5.6.7) in seconds since 1970."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
