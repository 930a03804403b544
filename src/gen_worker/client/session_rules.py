"""What a realtime session is to its caller, without I/O: options, the request that opens it, the meaning of its end.

A session is opened once. A try that fails before it is open leaves nothing behind, so it is repeated with a new id, as
other requests are.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypedDict
from urllib.parse import urlencode

import msgspec

from gen_worker.client.answers import refusal
from gen_worker.client.effects import Answer, Flow, LostError, Request, opened
from gen_worker.client.errors import NotFoundError, SessionError
from gen_worker.client.flows import Flows, is_no_route
from gen_worker.client.targets import Target
from gen_worker.client.tries import unreachable
from gen_worker.contract.run import MAX_MESSAGE_BYTES
from gen_worker.names import did_you_mean
from gen_worker.net.retry import PASSING

NORMAL, GOING_AWAY, TOO_LARGE = 1000, 1001, 1009
LOST = 1006  # RFC 6455, 7.4.1: no Close frame came
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class SessionOptions(TypedDict, total=False):
    """Options of a session, by name.

    `timeout_s`: the session is ended after this many seconds. `start_timeout_s`: how long it waits for a worker.
    `priority`: `high`, `normal` or `low`. A dev runner supports only `timeout_s` and ignores the others.
    """

    timeout_s: float
    start_timeout_s: float
    priority: str


class SessionEnd(msgspec.Struct, frozen=True):
    """How a session ended: the websocket's close code and reason. 1000 is a normal end, 1006 a lost connection."""

    code: int
    reason: str = ""

    @property
    def is_normal(self) -> bool:
        return self.code == NORMAL


class Opening(msgspec.Struct, frozen=True):
    """A session that is about to open."""

    target: Target
    options: Mapping[str, Any]

    def path(self, run_id: str, *, is_runner: bool) -> str:
        """The path and query of its websocket."""
        query: dict[str, Any] = {"run_id": run_id}
        for name in ("timeout", "start_timeout"):
            if (seconds := self.options.get(f"{name}_s")) and (name == "timeout" or not is_runner):
                query[f"{name}_ms"] = max(1, round(seconds * 1000))
        if (priority := self.options.get("priority")) and not is_runner:
            query["priority"] = priority
        path = f"/v1/realtime/{self.target.runner_path.rpartition('/')[2]}" if is_runner else self.target.platform_path
        return f"{path}?{urlencode(query)}"


class _Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    timeout_s: float = 0.0
    start_timeout_s: float = 0.0
    priority: str = ""


def opening_of(target: Target, given: SessionOptions) -> Opening:
    """A session from its caller's arguments; `TypeError` before anything is sent."""
    for name in given:
        if name not in SessionOptions.__annotations__:
            known = ", ".join(SessionOptions.__annotations__)
            raise TypeError(f"unknown option {name!r}.{did_you_mean(name, SessionOptions.__annotations__)} Options: {known}")
    try:
        msgspec.convert(dict(given), _Options)
    except msgspec.ValidationError as exc:
        raise TypeError(f"options of the session: {exc}") from None
    return Opening(target, dict(given))


def opened_session(flows: Flows, opening: Opening, connect_timeout_s: float) -> Flow[str]:
    """Open the websocket, at the platform's path or at a dev runner's. Returns the id of the session's run.

    `GatewayError` when the server refuses it.
    """
    if opening.target.owner and not flows.is_runner:
        run_id, answer = yield from _asked(flows, lambda run_id: opening.path(run_id, is_runner=False), connect_timeout_s)
        if not is_no_route(answer):
            return _taken(answer, run_id)
    run_id, answer = yield from _asked(flows, lambda run_id: opening.path(run_id, is_runner=True), connect_timeout_s)
    if is_no_route(answer):
        hint = "a platform expects owner/endpoint/function[:tag]; only `cozyctl dev` accepts a bare name"
        raise NotFoundError(f"this server has no websocket {str(opening.target)!r}", code="not_found", status=404, hint=hint)
    flows.is_runner = True
    return _taken(answer, run_id)


def _asked(flows: Flows, path: Callable[[str], str], timeout_s: float) -> Flow[tuple[str, Answer]]:
    """The answer to a handshake, which is repeated as long as that may help: a failed one has opened nothing."""
    tries = flows.patience.tries(following=False)
    while True:
        run_id, nonce = secrets.token_hex(16), base64.b64encode(secrets.token_bytes(16))
        try:
            answer = yield from opened(_handshake(flows, path(run_id), nonce, timeout_s))
        except LostError as lost:
            yield from tries.after(unreachable(lost), untaken=True)
            continue
        if answer.status == 101 and answer.headers.get("sec-websocket-accept", "").encode() != accept_of(nonce):
            answer = Answer(502, answer.headers, b"the answer to the websocket's handshake is wrong")
        if answer.status not in PASSING:
            return run_id, answer
        yield from tries.refused(answer, untaken=True)


def _handshake(flows: Flows, path: str, nonce: bytes, timeout_s: float) -> Request:
    headers = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": nonce.decode(),
    }
    return flows.request("GET", path, headers, read_timeout_s=timeout_s)


def accept_of(nonce: bytes) -> bytes:
    """What a server that understood the handshake answers (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(nonce + _GUID, usedforsecurity=False).digest())


def _taken(answer: Answer, run_id: str) -> str:
    if answer.status != 101:
        raise refusal(answer)
    return run_id


_AGAIN = {1001, 1012, 1013}  # going away, service restart, try again later
_SAID = {
    "worker_draining": "the server or its worker is stopping",
    "worker_lost": "the session's worker is gone",
    "leader_lost": "the node that held the session is gone",
    "idle_timeout": "no message was sent for too long",
    "slow_consumer": "this client read too slowly",
    "frame_too_large": "a message was too large",
    "expired": "no worker was free in time",
    "key_revoked": "the key that opened the session was revoked",
    "key_expired": "the key that opened the session has expired",
    "error:CanceledError": "the session's run was cancelled",
    "error:DeadlineError": "the session's time was up",
    "connection_lost": "the connection broke",
}


def error_of(end: SessionEnd, run_id: str) -> SessionError:
    """The error for a session that has ended, as its caller gets it."""
    said = _SAID.get(end.reason)
    if said is None and end.reason.startswith("error:"):
        said = f"the handler raised {end.reason.removeprefix('error:')}"
    detail = f"the session ended: {said or end.reason or f'close code {end.code}'}"
    if end.is_normal:
        detail = "the session is over"
    hint = "open a new session" if end.code in _AGAIN else ""
    if end.reason == "frame_too_large":
        hint = f"a message has at most {MAX_MESSAGE_BYTES} bytes; send larger ones in pieces"
    return SessionError(
        detail, code="session_ended", hint=hint, run_id=run_id, close_code=end.code, reason=end.reason, retryable=end.code in _AGAIN
    )
