"""Requests to the application's own routes, from inside it.

A front door reaches a run like every caller: it calls the run's own route, in the name of its client. So keys, scopes,
limits and refusals are those of that route, and one door serves both the dev runner and the platform.

    client --request--> door --`ask`, same key--> POST /v1/run/..., GET /v1/files/...
    client <--its format-- door <--answer, piece by piece-- route
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Message

from gen_worker.http.asgi import DisconnectedError, Request

MAX_WAITING_PIECES = 16  # above this the route waits for its slow reader
LEAVE_S = 10.0
_CARRIED = frozenset({b"authorization", b"host", b"idempotency-key", b"traceparent", b"tracestate", b"user-agent"})
_SCOPE = ("type", "http_version", "asgi", "scheme", "client", "server", "extensions", "state")


class Answer:
    """The answer of a route. `status` and `headers` are known from the start."""

    def __init__(self, body: bytes) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._body: bytes | None = body
        self._abandoned = False
        self._started = asyncio.Event()
        self._left = asyncio.Event()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING_PIECES)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. `DisconnectedError` once `abandon` was called."""
        while True:
            piece = await self._pieces.get()
            if self._abandoned:
                raise DisconnectedError
            if piece is None:
                return
            yield piece

    async def body(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.pieces()])

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            self._started.set()
            return
        if message.get("body"):
            await self._put(message["body"])
        if not message.get("more_body"):
            await self._put(None)

    async def _put(self, piece: bytes | None) -> None:
        if not self._left.is_set():
            await self._pieces.put(piece)

    async def begun(self, task: "asyncio.Task[None]") -> None:
        """Wait for the head of the answer."""
        waiting = asyncio.ensure_future(self._started.wait())
        try:
            await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not self._started.is_set():
            task.result()
            raise RuntimeError("the route ended without an answer")

    def abandon(self) -> None:
        """The client of this answer has gone: the reader gets an error."""
        self._abandoned = True
        if self._pieces.empty():
            self._pieces.put_nowait(None)

    def leave(self) -> None:
        """Stop reading."""
        self._left.set()
        while not self._pieces.empty():  # a writer that waits for room continues
            self._pieces.get_nowait()


class Inside:
    """The application's own routes. `app` returns the application, because it is built after its front doors."""

    def __init__(self, app: Callable[[], ASGIApp]) -> None:
        self._app = app
        self._asked: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def ask(
        self, request: Request, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[Answer]:
        """Call a route in the name of the sender of `request`. For the route, leaving the block early is a client that
        disconnects.

        `path`: percent-encoded if needed, with its query.
        """
        plain, _, query = path.partition("?")
        fields = [(name, value) for name, value in request.scope["headers"] if name in _CARRIED]
        fields += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        if body:
            fields.append((b"content-length", b"%d" % len(body)))
        scope: dict[str, Any] = {
            **{name: request.scope[name] for name in _SCOPE if name in request.scope},
            "method": method,
            "path": unquote(plain),
            "raw_path": plain.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": fields,
            "path_params": {},
        }
        answer = Answer(body)
        task = asyncio.ensure_future(_as_coroutine(self._app(), scope, answer))
        self._asked.add(task)  # it may outlive a request that is cut off
        task.add_done_callback(self._asked.discard)
        try:
            await answer.begun(task)
            yield answer
        finally:
            answer.leave()
            await _end(task)

    async def get(self, request: Request, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """The whole answer to a GET: status, headers, body."""
        async with self.ask(request, "GET", path) as answer:
            return answer.status, answer.headers, await answer.body()


def in_path(name: str) -> str:
    """A name, encoded as a part of a path."""
    return quote(name, safe="")


async def _as_coroutine(app: ASGIApp, scope: dict[str, Any], answer: Answer) -> None:
    await app(scope, answer.receive, answer.send)


async def _end(task: "asyncio.Task[None]") -> None:
    """Let the route end by itself: it was told that its client left."""
    await asyncio.wait([task], timeout=LEAVE_S)
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # the application has reported it
