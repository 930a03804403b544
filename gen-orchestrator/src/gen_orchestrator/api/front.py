"""The HTTP application of a node. While the node leads it serves its own routes; otherwise it forwards to the leader.

    /livez, /readyz                  answered here; readyz names the role
    this node leads                  serves its routes
    another node leads               forwarded to it (`forward.py`); a read is retried at the next leader if this one is lost
    nobody leads, or none answers    waits as long as a takeover takes, then 503 with Retry-After
    a single node that starts        503 with Retry-After at once: imports of functions may take any time
    a node that drains               as before, but /readyz is 503, so that load balancers choose another node

Requests in progress end when the leadership ends: with 503 if nothing was sent yet, else the connection closes and the caller
resumes its stream.
"""

import asyncio
from collections.abc import Callable

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gen_orchestrator.api.forward import MARK, BrokenOffError, Forwarder, NotReachedError
from gen_orchestrator.api.tunnel import Tunnels
from gen_orchestrator.scheduling.standing import Standing
from gen_orchestrator.store.base import Leader
from gen_worker.front_doors.errors import error_answer
from gen_worker.http.asgi import DisconnectedError, Request, RequestError, check_caller, check_page
from gen_worker.http.hosts import HostPolicy

WAIT_S = 7.0  # a lease, a poll, and the time a new leader needs to begin
LOOK_S = 0.25
STARTS = "the platform is starting: it has not read its functions yet; try again when /readyz answers 200"
DRAINS = "this node is stopping; its active runs may finish"
NOBODY_LEADS = "no orchestrator leads at present; one will lead within seconds after the store answers"
UNKNOWN = "the leader was lost in the middle: it is unknown whether the request was done; send it again with the same Idempotency-Key"


class Front:
    """One for each node. `stands_by`: other nodes may lead before it does, and requests are forwarded to them. `trouble` says why the
    store of this leader accepts no writes.
    """

    def __init__(self, standing: Standing, hosts: HostPolicy, trouble: Callable[[], str] = lambda: "", *, stands_by: bool = True) -> None:
        self._trouble = trouble
        self._standing = standing
        self._starts = not stands_by
        self._drains = False
        self._hosts = hosts
        self._forwarder = Forwarder()
        self._tunnels = Tunnels()
        self._app: ASGIApp | None = None
        self._answering: set[asyncio.Task[object]] = set()
        self._ended: set[asyncio.Task[object]] = set()

    def open(self, app: ASGIApp) -> None:
        """This node leads: its own routes answer."""
        self._app = app
        self._starts = False
        self._standing.tell()

    def shut(self) -> None:
        """This node no longer leads: end the requests that its own routes are answering."""
        self._app = None
        for task in list(self._answering):
            self._ended.add(task)
            task.cancel()

    def drain(self) -> None:
        """This node is about to stop. It still answers."""
        self._drains = True

    async def close(self) -> None:
        self._tunnels.close()
        await self._forwarder.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        app = self._app
        if app is not None and scope["path"] != "/readyz":
            await self._here(app, scope, receive, send)
            return
        request = Request({"path_params": {}, **scope}, receive, send)
        try:
            check_caller(request, self._hosts)
            if scope["path"] in ("/livez", "/readyz") and scope["method"] not in ("GET", "HEAD"):
                raise RequestError(405, "method_not_allowed", f"{scope['method']} is not allowed here", headers={"allow": "GET, HEAD"})
            if scope["path"] == "/livez":
                await request.answer(200, b'{"ok":true}')
            elif self._starts:
                raise _unavailable(STARTS, error="starting")  # clients wait for this word: nothing of the request was done
            elif scope["path"] == "/readyz":
                await self._readyz(request)
            else:
                await self._elsewhere(request)
        except DisconnectedError:
            return
        except RequestError as exc:
            await _refuse(request, exc)

    async def _here(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        self._answering.add(task)
        try:
            await app(scope, receive, noted)
        except asyncio.CancelledError:
            if task not in self._ended or started:
                raise
            task.uncancel()
            await _refuse(Request({"path_params": {}, **scope}, receive, send), _unavailable(UNKNOWN))
        finally:
            self._answering.discard(task)
            self._ended.discard(task)

    async def _elsewhere(self, request: Request) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + WAIT_S
        while True:
            app, leader = self._app, self._standing.leader
            if app is not None:
                await self._here(app, request.scope, request.receive, request.send)
                return
            if leader is not None and leader.http_url and not request.header(MARK):
                try:
                    await self._carry(leader, request)
                except NotReachedError:
                    pass  # killed a moment ago, and named until its lease expires
                except BrokenOffError as exc:
                    if exc.started:
                        return  # an incomplete answer: the connection closes
                    if not _only_reads(request):
                        raise _unavailable(UNKNOWN) from None
                else:
                    return
            if loop.time() > until_s:
                raise _unavailable(NOBODY_LEADS)
            await self._standing.changed(LOOK_S)

    async def _carry(self, leader: Leader, request: Request) -> None:
        if "upgrade" in request.scope and request.header(b"upgrade").strip().lower() == "websocket":
            check_page(request, self._hosts)
            await self._tunnels.carry(leader.http_url, request, self._standing.replaced(leader))
            return
        replaced = self._standing.replaced(leader)
        await self._forwarder.forward(leader.http_url, request.scope, request.receive, request.send, replaced)

    async def _readyz(self, request: Request) -> None:
        leader = self._standing.leader
        if self._drains:
            raise _unavailable(DRAINS)
        if self._app is None and leader is None:
            raise _unavailable(NOBODY_LEADS)
        body: dict[str, object] = {"ok": True, "role": "leader"}
        if self._app is None and leader is not None:
            body = {"ok": True, "role": "standby", "leader": leader.node_id}
        elif trouble := self._trouble():  # active runs continue, and reads are answered
            body["store"] = trouble
        await request.answer(200, msgspec.json.encode(body))


def _only_reads(request: Request) -> bool:
    """Whether repeating the request does no harm, and nothing of it was consumed by the first try."""
    has_body = request.header(b"content-length") not in ("", "0") or request.header(b"transfer-encoding")
    return request.scope["method"] in ("GET", "HEAD") and not has_body


def _unavailable(why: str, error: str | None = None) -> RequestError:
    return RequestError(503, "not_ready", why, error=error, headers={"retry-after": "1"})


async def _refuse(request: Request, exc: RequestError) -> None:
    path = request.scope["path"]
    await request.answer(exc.status, *error_answer(path, exc.problem(path), dict(exc.headers or {})))
