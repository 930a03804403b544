"""`GET /v1/{owner}/{endpoint}/{function}[:tag]`: a websocket to a handler on one of the endpoint's workers.

Errors before the upgrade are problems. Errors that a page should be able to read are close codes: too many waiting
runs, a used-up budget. From then on the session is open, even while it waits for a worker: messages stay with the
client until a worker has it.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.callers import invoker_of, traceparent_of
from gen_orchestrator.api.runs import RunRoutes, function_and_tag
from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain.access import Key
from gen_orchestrator.domain.runs import PRIORITIES, Run
from gen_orchestrator.hub.registry import Resolved
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.live_session import LiveSession
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.run_ids import new_run_id
from gen_worker.http.asgi import Request, RequestError, check_page
from gen_worker.http.hosts import HostPolicy
from gen_worker.http.sessions import MAX_TIMEOUT_MS, close_code, refuse, wanted_id
from gen_worker.http.websocket import WebSocket, accept_fields
from gen_worker.log import Log
from gen_worker.names import did_you_mean
from gen_worker.wire.realtime import MAX_FRAME_BYTES

START_TIMEOUT_S = 300.0  # how long a client waits for a worker if neither it nor the function sets a limit
_NO_PAYLOAD = msgspec.msgpack.encode({})


class SessionRoutes:
    """`idle_s`: how long a session may be without a message; 0: no limit."""

    def __init__(self, runs: RunRoutes, dispatcher: Dispatcher, keys: Keys, hosts: HostPolicy, log: Log, *, idle_s: float) -> None:
        self._runs = runs
        self._keys = keys
        self._dispatcher = dispatcher
        self._hosts = hosts
        self._log = log
        self._idle_s = idle_s

    async def open(self, request: Request) -> None:
        """Accept a session as a run, and answer 101."""
        check_page(request, self._hosts)
        owner, endpoint = request.parts["owner"], request.parts["endpoint"]
        function, tag = function_and_tag(request.parts["function"])
        resolved = self._runs.resolve(request, owner, endpoint, function, tag, is_session=True)
        if not resolved.settings.is_session:
            detail = f"GET is not allowed at {request.scope['path'][:200]}, which is not a websocket; allowed: POST, OPTIONS"
            raise RequestError(405, "method_not_allowed", detail, headers={"allow": "POST, OPTIONS"})
        fields = accept_fields(request)
        run = _new_run(request, resolved, owner, endpoint, function)
        try:
            submitted = await self._runs.submit(run, resolved)
        except RequestError as exc:
            if exc.status != 429:
                raise
            self._log.warning("session.refused", function=f"{owner}/{endpoint}/{function}", reason=exc.request_code)
            refuse(request, exc.request_code)
            return
        open_run = submitted.open
        if not submitted.is_new or open_run is None or open_run.session is None:
            raise RequestError(409, "conflict", f"a run with the id {run.id!r} already exists", error="duplicate_run_id")
        client = _Client(open_run, open_run.session, self._dispatcher)
        socket = client.socket = WebSocket(client, max_message_bytes=MAX_FRAME_BYTES, idle_s=self._idle_s)
        open_run.session.on_flood = lambda: client.end("slow_consumer")
        try:
            request.scope["upgrade"](fields, socket)
        except BaseException:
            client.left()
            raise
        self._log.info("session.opened", run_id=run.id, function=f"{owner}/{endpoint}/{function}", caller=caller_of(request).name)
        open_run.session.join(client)
        if (key := self._keys.behind(run.invoker_id)) is not None:
            self._end_with(key, client)

    def _end_with(self, key: Key, client: "_Client") -> None:
        """A session lasts no longer than its key. (`KeyRoutes.revoke` ends those that are open then.)"""
        now_s = time.time()
        if key.revoked_at:  # after the request was checked
            client.end("key_revoked")
        elif key.expires_at:
            client.expires = asyncio.get_running_loop().call_later(max(0.0, key.expires_at - now_s), client.end, "key_expired")


class _Client:
    """Connects a session and its websocket in both directions."""

    socket: WebSocket
    expires: asyncio.TimerHandle | None = None

    def __init__(self, open_run: OpenRun, session: LiveSession, dispatcher: Dispatcher) -> None:
        self._open_run = open_run
        self._session = session
        self._dispatcher = dispatcher

    # Reports of the session.

    def send(self, data: bytes, *, is_text: bool, taken: Callable[[], None]) -> None:
        self.socket.send(data, is_text=is_text, taken=taken)

    def go_on(self) -> None:
        if self.socket.holds:
            self.socket.go_on()

    def close(self, reason: str) -> None:
        if self.expires is not None:
            self.expires.cancel()
        self.socket.close(close_code(reason), reason)

    # Reports of the websocket.

    def message(self, data: bytes) -> bool:
        return self._session.offer(data)

    def too_large(self) -> None:
        self.end("frame_too_large")

    def left(self) -> None:
        self._dispatcher.sessions.left(self._open_run)

    def idle(self) -> None:
        if self._open_run.is_sent:
            self.end("idle_timeout")
        else:
            self.socket.touch()  # it waits for a worker, which has a limit of its own

    def stopping(self) -> None:
        self.end("worker_draining")

    def end(self, reason: str) -> None:
        self._dispatcher.sessions.end(self._open_run, reason)


def _new_run(request: Request, resolved: Resolved, owner: str, endpoint: str, function: str) -> Run:
    query, settings, now = request.query(), resolved.settings, time.time()
    run_id = wanted_id(query)
    priority = query.get("priority", "normal")
    if priority not in PRIORITIES:
        near = did_you_mean(priority[:40], PRIORITIES)
        raise RequestError(400, "validation", f"priority={priority[:40]!r}.{near} Expected one of: {', '.join(PRIORITIES)}")
    timeout_ms = request.number(query.get("timeout_ms", "0"), "timeout_ms", MAX_TIMEOUT_MS)
    start_ms = request.number(query.get("start_timeout_ms", "0"), "start_timeout_ms", MAX_TIMEOUT_MS)
    return Run(
        id=run_id or new_run_id(),
        owner=owner,
        endpoint=endpoint,
        function=function,
        tag=resolved.tag,
        release_id=resolved.release_id,
        payload=_NO_PAYLOAD,
        created_at=now,
        max_attempts=1,
        priority=priority,
        timeout_ms=timeout_ms or round(settings.timeout_s * 1000),
        expires_at=now + (start_ms / 1000 or settings.start_timeout_s or START_TIMEOUT_S),
        invoker_id=invoker_of(request),
        traceparent=traceparent_of(request),
    )
