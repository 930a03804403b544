"""Decides when a request is sent again: after a lost connection, or a status that may pass (listed in `net.retry`).

A create carries its Idempotency-Key, and all other requests only read or cancel, so sending them again is safe. Without
a key a create is sent again only if the server cannot have accepted it: it was never reached, or it answered 429. For a
run that was accepted, or may have been (the connection broke after the request was sent), there is more patience, so
that a restarted server is waited for. A server that was never reached is given up soon. A server that says that it is
starting is waited for longer, because importing functions takes time.
"""

import random
from collections.abc import Callable

import msgspec

from gen_worker.client.answers import is_starting, refusal
from gen_worker.client.effects import Answer, Flow, LostError, Pause, Request, opened, send
from gen_worker.client.errors import GatewayError, UnreachableError
from gen_worker.net.retry import PASSING, RetryPolicy

SILENCE_COUNTS = 7  # a try that timed out, after most of a minute, counts like this many quick failures
START_PAUSE_S = 1.0  # between tries while the server is starting, unless it says how long
_random = random.Random()  # noqa: S311 - spreads tries


class Patience(msgspec.Struct, frozen=True):
    """`asking`: for a request that may be new to the server. `following`: for an accepted run, about a minute without
    contact. `starting_s`: how long to wait in all for a server that is starting.

    `on_pause` is called before each wait with its seconds and its reason: `UnreachableError`, or the server's refusal.
    """

    asking: RetryPolicy = RetryPolicy(tries=5, first_pause_s=0.1, max_pause_s=5.0, max_asked_s=60.0)
    following: RetryPolicy = RetryPolicy(tries=20, first_pause_s=0.1, max_pause_s=5.0, max_asked_s=60.0)

    on_pause: Callable[[float, GatewayError], object] | None = None
    starting_s: float = 300.0

    def tries(self, *, following: bool, repeatable: bool = True) -> "Tries":
        return Tries(self, following=following, repeatable=repeatable)


class Tries:
    """Counts failures in a row and says how long to wait; a success resets the count."""

    def __init__(self, patience: Patience, *, following: bool, repeatable: bool) -> None:
        self._patience = patience
        self._policy = patience.following if following else patience.asking
        self._repeatable = repeatable
        self._failures = 0
        self._starting_s = 0.0

    def succeeded(self) -> None:
        self._failures = 0

    def lost(self, lost: LostError) -> Flow[None]:
        """Like `after`, for a lost connection. Once a request was sent, the server may have accepted it."""
        if lost.sent:
            self._policy = self._patience.following
        if lost.silent:
            self._failures += SILENCE_COUNTS - 1
        yield from self.after(unreachable(lost), untaken=not lost.sent)

    def after(self, error: GatewayError, *, untaken: bool) -> Flow[None]:
        """Pause before the next try; raises `error` when there is none. `untaken`: the server has certainly not acted."""
        self._failures += 1
        may_help = isinstance(error, UnreachableError) or error.status in PASSING
        pause_s = self._policy.pause_s(self._failures, error.retry_after_s, _random) if may_help else None
        if pause_s is None or not (self._repeatable or untaken):
            raise error
        yield from self._pause(pause_s, error)

    def refused(self, answer: Answer, *, untaken: bool = False) -> Flow[None]:
        """Like `after`, for an answer whose status may pass."""
        error = refusal(answer)
        if not is_starting(answer):
            yield from self.after(error, untaken=untaken or answer.status == 429)
            return
        asked_s = START_PAUSE_S if error.retry_after_s is None else error.retry_after_s
        pause_s = self._policy.pause_s(1, asked_s, _random)
        if pause_s is not None:
            pause_s = max(pause_s, self._policy.first_pause_s)  # `Retry-After: 0` would be asked without end
        if pause_s is None or self._starting_s + pause_s > self._patience.starting_s:
            raise error
        self._starting_s += pause_s
        yield from self._pause(pause_s, error)

    def _pause(self, pause_s: float, error: GatewayError) -> Flow[None]:
        if self._patience.on_pause is not None:
            self._patience.on_pause(pause_s, error)
        yield Pause(pause_s)


def ask(request: Request, patience: Patience, *, following: bool = False, repeatable: bool = True) -> Flow[Answer]:
    """An answer that retries would not change: 2xx, a run, or a refusal. `UnreachableError` when none arrived."""
    tries = patience.tries(following=following, repeatable=repeatable)
    while True:
        try:
            answer = yield from send(request)
        except LostError as lost:
            yield from tries.lost(lost)
            continue
        if answer.status not in PASSING or _is_run(answer):
            return answer
        try:
            yield from tries.refused(answer)
        except GatewayError:
            return answer  # the caller interprets it


def open_stream(request: Request, patience: Patience, *, following: bool = False, repeatable: bool = True) -> Flow[Answer]:
    """The head of an answer that retries would not change; the caller reads its body."""
    tries = patience.tries(following=following, repeatable=repeatable)
    while True:
        try:
            answer = yield from opened(request)
        except LostError as lost:
            yield from tries.lost(lost)
            continue
        if answer.status not in PASSING or _is_run(answer):
            return answer
        yield from tries.refused(answer)


def unreachable(lost: LostError) -> UnreachableError:
    return UnreachableError(lost.why, code="unreachable", hint="" if lost.sent else "is it running, and is the address right?")


def _is_run(answer: Answer) -> bool:
    """Whether a refusal's body is a run that failed: a function's error is no reason to retry."""
    head = answer.body[:4096].lstrip()
    return head.startswith(b'{"id":') or (
        b'"run_id":"' in answer.body and b'"success":' in answer.body and b'"run_id":""' not in answer.body
    )
