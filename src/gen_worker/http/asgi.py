"""Requests and routes over Starlette's router: bounded bodies, answers in one piece, errors as problems.

Handlers are plain ASGI under Starlette's router. Its Request and Response classes are not used on the hot path: they
cost a third of an echo run.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from types import CoroutineType, MappingProxyType
from typing import Any

import msgspec
from starlette.datastructures import QueryParams
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gen_worker.errors import FieldError, WorkerError
from gen_worker.http.crowd import MIN_BODY_BYTES_S
from gen_worker.http.direct import DirectAnswer
from gen_worker.http.exchange import Exchange
from gen_worker.http.headers import whole_number
from gen_worker.http.hosts import HostPolicy
from gen_worker.http.problems import Problem, problem

JSON = b"application/json"
NO_BODY = (204, 304)
BODY_TIMEOUT_S = 15.0


class DisconnectedError(Exception):
    """The client closed the connection before its request was read."""


# Headers with one value (RFC 9110, 5.3: only headers that are lists may be repeated), as far as a server of ours decides by them.
SINGLE = (
    *(b"authorization", b"content-length", b"content-range", b"content-type", b"host", b"idempotency-key", b"if-modified-since"),
    *(b"if-range", b"if-unmodified-since", b"last-event-id", b"origin", b"range", b"sec-fetch-site", b"x-cozy-owner"),
)


class RequestError(WorkerError):
    """A request that never became a run. `error`, `hint` and `cli_hint` are the fields of `Problem`."""

    error_type = "validation"

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        error: str | None = None,
        hint: str | None = None,
        cli_hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)
        self.headers = headers or {}
        self.status = status
        self.request_code = code
        self.error = error
        self.hint = hint
        self.cli_hint = cli_hint

    def problem(self, instance: str) -> Problem:
        """The problem that answers the request at this path."""
        body = problem(self.status, self.request_code, str(self), error=self.error, hint=self.hint, instance=instance, errors=self.errors)
        return body if self.cli_hint is None else msgspec.structs.replace(body, cli_hint=self.cli_hint)


class Request:
    """One HTTP request: headers by lower-case name, the body on demand."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.parts: Mapping[str, str] = scope["path_params"]
        headers = scope["headers"]
        self._headers: dict[bytes, bytes] = dict(headers)
        self._repeats = len(self._headers) != len(headers)

    def header(self, name: bytes) -> str:
        """A header's value, `""` when absent. Repeated headers are joined as a list (RFC 9110, 5.3)."""
        value = self._headers.get(name)
        if value is None:
            return ""
        if self._repeats:
            value = b", ".join([each for key, each in self.scope["headers"] if key == name])
        return value.decode("latin-1")

    def has_header(self, name: bytes) -> bool:
        return name in self._headers

    def check_single(self) -> None:
        """`RequestError` 400 for a repeated header that has one value: another program on the way may have read another
        one. Headers that are lists may be repeated.
        """
        if self._repeats:
            names = [name for name, _ in self.scope["headers"]]
            for name in SINGLE:
                if (count := names.count(name)) > 1:
                    shown = name.decode()
                    raise RequestError(400, "validation", f"{count} headers {shown!r}; expected one", error="repeated_header")

    def query(self) -> Mapping[str, str]:
        """Query parameters; the last value of a repeated name counts."""
        return QueryParams(self.scope["query_string"])

    def number(self, text: str, name: str, most: int) -> int:
        """An integer in the query; `RequestError` 400 for anything else."""
        found = whole_number(text)
        if found is None or found > most:
            raise RequestError(400, "validation", f"{name}={text[:20]!r}; expected a whole number from 0 to {most}")
        return found

    async def body(self, max_bytes: int) -> bytes:
        """The whole body. `RequestError` 413 as soon as it is known to be too large, 408 when it does not arrive in time."""
        exchange: Exchange | None = self.scope.get("direct")
        if exchange is not None and b"content-encoding" not in self._headers:
            whole = exchange.whole_body(max_bytes)  # true for most bodies: already received, and within bounds
            if whole is not None:
                return whole
        reader = BodyReader(self, max_bytes)
        chunks = [await reader.next_chunk()]
        while not reader.ended:
            chunks.append(await reader.next_chunk())
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def answer(self, status: int, body: bytes, content_type: bytes = JSON, headers: Mapping[str, str] | None = None) -> None:
        """Send one complete response."""
        # No body, so no header describes one: `content-length: 0` would be untrue for 304, and is forbidden for 204 (RFC 9110, 8.6).
        fields = answer_fields(body, content_type) if status not in NO_BODY else []
        if headers:
            fields += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        respond = self.scope.get("respond")  # our own server writes it with one call
        if respond is not None:
            respond(status, fields, body)
            return
        await self.send({"type": "http.response.start", "status": status, "headers": fields})
        await self.send({"type": "http.response.body", "body": b"" if self.scope["method"] == "HEAD" else body})

    async def left(self) -> None:
        """Return when the client has disconnected. Call it only after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def direct(self) -> DirectAnswer | None:
        """The right to answer from another thread; call `finish_direct` afterwards. None when only the loop can answer."""
        exchange: Exchange | None = self.scope.get("direct")
        return None if exchange is None else exchange.direct()

    def finish_direct(self) -> bool:
        """Whether the right was used, so that the request is answered; otherwise the right is withdrawn."""
        exchange: Exchange | None = self.scope.get("direct")
        return exchange is not None and exchange.finish_direct()

    async def start(self, content_type: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Begin a streamed 200 response."""
        fields = [(b"content-type", content_type), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        fields += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        await self.send({"type": "http.response.start", "status": 200, "headers": fields})

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a piece of a streamed response; waits while the client is slow."""
        await self.send({"type": "http.response.body", "body": data, "more_body": not last})


def answer_fields(body: bytes, content_type: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of every complete answer."""
    return [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]


class BodyReader:
    """Reads a request's body piece by piece, up to a size limit, and no slower than 64 KiB/s after the first 15 seconds."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        declared = request.header(b"content-length")
        if declared.isascii() and declared.isdigit():
            size_bytes = int(declared[-4000:])  # int() refuses longer numbers; leading zeros do not matter
            if size_bytes > max_bytes or len(declared) > 4000:
                raise too_large(min(size_bytes, 1 << 63), max_bytes)
        coding = request.header(b"content-encoding")
        if coding and coding.lower() != "identity":
            raise RequestError(415, "unsupported_coding", f"content-encoding {coding[:40]!r}: send the body as it is, without a coding")
        self._receive = request.receive
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._began_s = time.monotonic()
        self.ended = False

    async def next_chunk(self) -> bytes:
        """The next piece, possibly empty; `ended` is True after the last one."""
        try:
            message = await self._next_message()
        except TimeoutError:
            detail = f"the request body arrived too slowly: {self._size_bytes} bytes so far; send it within {BODY_TIMEOUT_S:.0f} s"
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
        if type(receiving) is not CoroutineType:
            return await receiving
        try:
            waits_for = receiving.send(None)
        except StopIteration as arrived:
            message: Message = arrived.value  # most bodies are already here, and a timer costs more than reading them
            return message
        left_s = self._began_s + BODY_TIMEOUT_S + self._size_bytes / MIN_BODY_BYTES_S - time.monotonic()
        async with asyncio.timeout(left_s):
            return await _Resumed(receiving, waits_for)


class _Resumed:
    """An awaitable for a coroutine that has already taken its first step."""

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
    """A handler as an ASGI application. Anything it raises becomes an answer."""

    def __init__(self, handler: Handler, on_error: OnError, hosts: HostPolicy) -> None:
        self._handler = handler
        self._on_error = on_error
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            check_caller(request, self._hosts)
            await self._handler(request)
        except DisconnectedError:
            return
        except Exception as exc:  # noqa: BLE001 - the top of a request: its failure is an answer, not the server's end
            await self._on_error(request, exc)


class Shortcut:
    """Sends the one busy route past the router, whose search costs 5 % of an echo run; all others go through the router."""

    def __init__(self, method: str, prefix: str, parameter: str, endpoint: Endpoint, router: Router) -> None:
        self._method = method
        self._prefix = prefix
        self._parameter = parameter
        self._endpoint = endpoint
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == self._method and scope["path"].startswith(self._prefix):
            rest = scope["path"][len(self._prefix) :]
            if rest and "/" not in rest:
                scope["path_params"] = {self._parameter: rest}
                await self._endpoint(scope, receive, send)
                return
        await self._router(scope, receive, send)


class _ByMethod:
    """The handlers of one path. OPTIONS lists the allowed methods; so does 405, the problem for any other method."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    async def __call__(self, request: Request) -> None:
        method = request.scope["method"]
        handler = self.handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            allowed = ", ".join([*self.handlers, *(["HEAD"] if "GET" in self.handlers else []), "OPTIONS"])
            if method == "OPTIONS":
                await request.answer(204, b"", headers={"allow": allowed})
                return
            detail = f"{method} is not allowed at {request.scope['path'][:200]}; allowed: {allowed}"
            raise RequestError(405, "method_not_allowed", detail, headers={"allow": allowed})
        await handler(request)


class _WholePath(Route):
    """Matches whole paths: Starlette's regular expressions overlook a newline at the end, and match none in a `{name:path}`."""

    def __init__(self, path: str, endpoint: ASGIApp, never: Collection[str]) -> None:
        super().__init__(path, endpoint)
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z", re.DOTALL)
        self._never = never

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if self._never and match is not Match.NONE:
            first: str = next(iter(found["path_params"].values()))
            if first in self._never:
                return Match.NONE, {}
        return match, found


def build_router(
    routes: Sequence[tuple[str, str, Handler]],
    on_error: OnError,
    hosts: HostPolicy,
    never: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Router:
    """A router over `(method, path, handler)`; GET also answers HEAD. Unknown paths and methods go to `on_error`.

    `never`: values, by path, that its first parameter never has, because other paths begin with them.
    """

    async def nowhere(request: Request) -> None:
        # Without an `error`, which each 404 about a missing thing has. This is how clients recognise a path that the
        # server does not know.
        raise RequestError(404, "not_found", f"nothing at {request.scope['path'][:200]}", hint="see /docs or /openapi.json")

    async def unknown(scope: Scope, receive: Receive, send: Send) -> None:
        await Endpoint(nowhere, on_error, hosts)({**scope, "path_params": {}}, receive, send)

    table: dict[str, _ByMethod] = {}
    for method, path, handler in routes:
        table.setdefault(path, _ByMethod()).handlers[method] = handler
    found = [_WholePath(path, Endpoint(handlers, on_error, hosts), never.get(path, ())) for path, handlers in table.items()]
    return Router(found, default=unknown, redirect_slashes=False)


def check_caller(request: Request, hosts: HostPolicy) -> None:
    """Refuse requests that name another server, actions that another site's page requests through the user's browser,
    and headers that say two things where one is meant.
    """
    request.check_single()
    host = request.header(b"host")
    if not host and request.scope["http_version"] != "1.0":
        raise RequestError(400, "missing_host", "the request has no Host header")
    if host and not hosts.serves(host):
        raise RequestError(
            421,
            "misdirected",
            f"this server is not {host[:100]!r}; it answers to localhost and to the address it listens on",
            hint="name another host at the server's start with: --allow-host NAME",
        )
    if (request.has_header(b"origin") or request.has_header(b"sec-fetch-site")) and request.scope["method"] not in ("GET", "HEAD"):
        check_page(request, hosts)


def check_page(request: Request, hosts: HostPolicy) -> None:
    """Refuse requests by a page of another site. For websockets, too: browsers let any page open one to any server, by
    GET, and read it.
    """
    host = request.header(b"host")
    origin = request.header(b"origin")
    if not origin:
        if request.header(b"sec-fetch-site").strip().lower() in ("cross-site", "same-site"):
            raise RequestError(403, "cross_site", "requests from pages of other sites are refused")
        return
    try:
        own = hosts.is_own_page(origin, host)
    except ValueError as exc:
        raise RequestError(400, "invalid_origin", str(exc)) from None
    if not own:
        raise RequestError(
            403, "cross_site", f"requests from pages of {origin[:100]} are refused; call this server from its own page or a program"
        )


def too_large(size_bytes: int, max_bytes: int) -> RequestError:
    return RequestError(413, "too_large", f"request body of {size_bytes} bytes; at most {max_bytes} are accepted")
