"""What the websockets of realtime sessions share in the dev runner and on the platform: options, reasons, close codes, refusals."""

from collections.abc import Mapping

from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.websocket import WebSocket, accept_fields
from gen_worker.names import RUN_ID_RULE, is_run_id
from gen_worker.wire.realtime import MAX_FRAME_BYTES

MAX_TIMEOUT_MS = 7 * 24 * 3600 * 1000  # a week

FAILED = 1011  # the handler failed: `error:ValueError`
# RFC 6455, 7.4.1; 1012 "service restart" and 1013 "try again later" are from its registry.
CLOSE_CODES: Mapping[str, int] = {
    "completed": 1000,
    "closed": 1000,
    "worker_draining": 1001,
    "idle_timeout": 1008,
    "key_revoked": 1008,
    "key_expired": 1008,
    "slow_consumer": 1008,
    "frame_too_large": 1009,
    "worker_lost": 1012,
    "leader_lost": 1012,
    "expired": 1013,
    "max_concurrency_reached": 1013,
    "function_concurrency_reached": 1013,
    "overloaded": 1013,
    "budget_exhausted": 1013,
}


def wanted_id(query: Mapping[str, str]) -> str:
    """The session's id that the caller has chosen in the query; empty if none. `RequestError` 400 for one that is no id."""
    run_id = query.get("run_id", "")
    if run_id and not is_run_id(run_id):
        raise RequestError(400, "validation", f"run_id {run_id[:100]!r}; {RUN_ID_RULE}", error="invalid_run_id")
    return run_id


def close_code(reason: str) -> int:
    """The close code of a session that ends for this reason."""
    return CLOSE_CODES.get(reason, FAILED)


def refuse(request: Request, reason: str) -> None:
    """Open the websocket and close it at once: a page can read a close code, but not the status of a handshake."""
    fields = accept_fields(request)
    socket = WebSocket(_Nobody(), max_message_bytes=MAX_FRAME_BYTES)
    request.scope["upgrade"](fields, socket)
    socket.close(close_code(reason), reason)


class _Nobody:
    """Listens to a websocket that is closed as soon as it is open."""

    def message(self, data: bytes) -> bool:
        return True

    def too_large(self) -> None:
        """Does nothing: the websocket is closed already."""

    def left(self) -> None:
        """Does nothing: the client was expected to leave."""

    def idle(self) -> None:
        """Does nothing: the websocket is closed already."""

    def stopping(self) -> None:
        """Does nothing: the websocket is closed already."""
