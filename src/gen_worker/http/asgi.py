"""Requests and routes over Starlette's router: bounded bodies, answers in one piece, errors as problems.

Handlers are plain ASGI under Starlette's router. Its Request and Response classes are left out of the hot path: they cost a
third of an echo run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from gen_worker.errors import WorkerError

JSON = b"application/json"
BODY_TIMEOUT_S = 15.0
MIN_BYTES_PER_S = 65536


class DisconnectedError(Exception):
    """The client went away before its request was read."""


class RequestError(WorkerError):
    """A request that never became a run. `error` is the runner contract's word for it, where it has one."""

    error_type = "validation"

    def __init__(self, status: int, code: str, detail: str, *, error: str | None = None, hint: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.request_code = code
        self.error = error
        self.hint = hint


class Request:
    """One HTTP request: headers by lower-case name, the body on demand."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.parts: Mapping[str, str] = scope["path_params"]
        self._headers: dict[bytes, bytes] = dict(scope["headers"])

    def header(self, name: bytes) -> str:
        """A header's value, `""` when it is absent."""
        return self._headers.get(name, b"").decode("latin-1")

    def query(self) -> Mapping[str, str]:
        """Query parameters; the last of a name counts."""
        from starlette.datastructures import QueryParams

        return QueryParams(self.scope["query_string"])

    async def body(self, max_bytes: int) -> bytes:
        """The whole body. `RequestError` 413 as soon as it is known to be too large, 408 when it does not come."""
        reader = BodyReader(self, max_bytes)
        chunks = [await reader.next_chunk()]
        while not reader.ended:
            chunks.append(await reader.next_chunk())
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def answer(self, status: int, body: bytes, content_type: bytes = JSON, headers: Mapping[str, str] | None = None) -> None:
        """Send one complete response."""
        fields = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        if headers:
            fields += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": fields})
        await self.send({"type": "http.response.body", "body": b"" if self.scope["method"] == "HEAD" else body})

    async def start(self, content_type: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Begin a streamed 200 response."""
        fields = [(b"content-type", content_type), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        fields += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        await self.send({"type": "http.response.start", "status": 200, "headers": fields})

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a piece of a streamed response; waits while the client is slow."""
        await self.send({"type": "http.response.body", "body": data, "more_body": not last})


class BodyReader:
    """Reads a request's body piece by piece, within a size, and no slower than 64 KiB/s after the first 15 seconds."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        declared = request.header(b"content-length")
        if declared.isdigit() and int(declared) > max_bytes:
            raise too_large(int(declared), max_bytes)
        self._receive = request.receive
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._began_s = time.monotonic()
        self.ended = False

    async def next_chunk(self) -> bytes:
        """The next piece, maybe empty; `ended` is True after the last one."""
        try:
            message = await self._next_message()
        except TimeoutError:
            detail = f"the request body came too slowly: {self._size_bytes} bytes so far; send it within {BODY_TIMEOUT_S:.0f} s"
            raise RequestError(408, "request_timeout", detail) from None
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        chunk: bytes = message.get("body", b"")
        self._size_bytes += len(chunk)
        if self._size_bytes > self._max_bytes:
            raise too_large(self._size_bytes, self._max_bytes)
        self.ended = not message.get("more_body")
        return chunk

    async def _next_message(self) -> Message:
        receiving = self._receive()
        if not isinstance(receiving, Coroutine):
            return await receiving
        try:
            waits_for = receiving.send(None)
        except StopIteration as arrived:
            message: Message = arrived.value  # most bodies are there already, and a timer costs more than reading them
            return message
        left_s = self._began_s + BODY_TIMEOUT_S + self._size_bytes / MIN_BYTES_PER_S - time.monotonic()
        async with asyncio.timeout(left_s):
            return await _Resumed(receiving, waits_for)


class _Resumed:
    """A coroutine that has taken its first step already, as something to await."""

    def __init__(self, coroutine: Coroutine[Any, Any, Message], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        try:
            yield self._waits_for
        except BaseException:
            self._coroutine.close()
            raise
        return (yield from self._coroutine.__await__())


Handler = Callable[[Request], Awaitable[None]]
OnError = Callable[[Request, Exception], Awaitable[None]]


class Endpoint:
    """A handler as an ASGI application. Whatever it raises becomes an answer."""

    def __init__(self, handler: Handler, on_error: OnError) -> None:
        self._handler = handler
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            if scope["method"] == "POST":
                _refuse_other_sites(request)
            await self._handler(request)
        except DisconnectedError:
            return
        except Exception as exc:  # noqa: BLE001 - the top of a request: its failure is an answer, not the server's end
            await self._on_error(request, exc)


class Shortcut:
    """Sends the one busy route past the router, whose search costs a twentieth of an echo run; all else goes through it."""

    def __init__(self, method: str, prefix: str, parameter: str, handler: Handler, on_error: OnError, router: Router) -> None:
        self._method = method
        self._prefix = prefix
        self._parameter = parameter
        self._endpoint = Endpoint(handler, on_error)
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == self._method and scope["path"].startswith(self._prefix):
            rest = scope["path"][len(self._prefix) :]
            if rest and "/" not in rest:
                scope["path_params"] = {self._parameter: rest}
                await self._endpoint(scope, receive, send)
                return
        await self._router(scope, receive, send)


def build_router(routes: Sequence[tuple[str, str, Handler]], on_error: OnError) -> Router:
    """A router over `(methods, path, handler)`, methods separated by spaces; unknown paths and methods go to `on_error`."""

    async def nowhere(request: Request) -> None:
        raise RequestError(404, "not_found", f"there is nothing at {request.scope['path'][:200]}", hint="see /docs or /openapi.json")

    async def unknown(scope: Scope, receive: Receive, send: Send) -> None:
        await Endpoint(nowhere, on_error)({**scope, "path_params": {}}, receive, send)

    table: list[Route] = []
    for methods, path, handler in routes:
        table.append(Route(path, Endpoint(handler, on_error), methods=methods.split()))
    return Router(table, default=unknown, redirect_slashes=False)


def _refuse_other_sites(request: Request) -> None:
    """A page of another site must not act through the browser of whoever runs this server. Pages on this machine may."""
    origin = request.header(b"origin")
    if not origin:
        return
    site = urlsplit(origin)
    if site.netloc != request.header(b"host") and site.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise RequestError(
            403, "cross_site", f"requests from pages of {origin[:100]} are refused; call this server from its own page or a program"
        )


def too_large(size_bytes: int, max_bytes: int) -> RequestError:
    return RequestError(413, "too_large", f"request body of {size_bytes} bytes; at most {max_bytes} are accepted")
