"""Forwards requests from a standby node to the leader, with headers, body and answer unchanged, streamed both ways.

A request goes only to the address in the lease row, and only once: a forwarded request is never forwarded again.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import httpcore
from starlette.types import Receive, Scope, Send

MARK = b"x-cozy-forwarded"
CONNECT_S = 2.0
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade",
     b"host", b"expect", b"proxy-connection", MARK}
)  # fmt: skip


class NotReachedError(Exception):
    """The leader was not reached, so it has seen nothing of the request."""


class BrokenOffError(Exception):
    """The connection to the leader broke in the middle. `started`: the caller already has the beginning of an answer."""

    def __init__(self, why: str, *, started: bool) -> None:
        super().__init__(why)
        self.started = started


class Forwarder:
    """Keeps connections to the leader."""

    def __init__(self) -> None:
        self._pool = httpcore.AsyncConnectionPool(max_connections=None, max_keepalive_connections=64, keepalive_expiry=5.0)

    async def forward(self, base_url: str, scope: Scope, receive: Receive, send: Send, replaced: Coroutine[Any, Any, None]) -> None:
        """Answer with the answer of the node at `base_url`. `NotReachedError` before anything of the body was read;
        `BrokenOffError` also when `replaced` returns, because a hanging leader, or one whose machine is gone, would
        never finish its answer.
        """
        body = _Body(receive)
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP]
        headers.append((MARK, b"1"))
        fields = dict(scope["headers"])
        has_body = b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0"
        if has_body and b"content-length" not in fields:
            headers.append((b"transfer-encoding", b"chunked"))
        query = scope["query_string"]
        raw = scope.get("raw_path") or scope["path"].encode()
        url = httpcore.URL(base_url)
        target = httpcore.URL(
            scheme=url.scheme, host=url.host, port=url.port, target=raw.partition(b"?")[0] + (b"?" + query if query else b"")
        )
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        exchange = asyncio.ensure_future(self._exchange(scope["method"], target, headers, body if has_body else None, send, started))
        leaving = asyncio.ensure_future(body.left(at_once=not has_body))
        moving = asyncio.ensure_future(replaced)
        try:
            await asyncio.wait([exchange, leaving, moving], return_when=asyncio.FIRST_COMPLETED)
            if exchange.done():
                exchange.result()
            elif moving.done():
                raise BrokenOffError("another node leads now", started=started.done())
        finally:
            for task in (exchange, leaving, moving):
                task.cancel()
            await asyncio.gather(exchange, leaving, moving, return_exceptions=True)

    async def close(self) -> None:
        await self._pool.aclose()

    async def _exchange(
        self,
        method: str,
        url: httpcore.URL,
        headers: list[tuple[bytes, bytes]],
        body: "_Body | None",
        send: Send,
        started: "asyncio.Future[None]",
    ) -> None:
        timeouts = {"connect": CONNECT_S, "pool": CONNECT_S, "write": 60.0}
        try:
            async with self._pool.stream(
                method, url, headers=headers, content=body.pieces() if body is not None else None, extensions={"timeout": timeouts}
            ) as answer:
                fields = [(name.lower(), value) for name, value in answer.headers if name.lower() not in HOP_BY_HOP]
                started.set_result(None)
                await send({"type": "http.response.start", "status": answer.status, "headers": fields})
                async for piece in answer.aiter_stream():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as exc:
            raise NotReachedError(str(exc)) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as exc:
            raise BrokenOffError(f"{type(exc).__name__}: {exc}", started=started.done()) from None


class _Body:
    """The request's body, piece by piece, followed by the caller's disconnect."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone = False

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            while not self._gone:
                message = await self._receive()
                self._gone = message["type"] == "http.disconnect"
                if message.get("body"):
                    yield message["body"]
                if not message.get("more_body"):
                    return
        finally:
            if not self._read.done():
                self._read.set_result(None)

    async def left(self, *, at_once: bool) -> None:
        """Return when the caller has disconnected: checked after the body was read, or `at_once` when nobody reads the body."""
        if not at_once:
            await self._read
        while not self._gone:
            self._gone = (await self._receive())["type"] == "http.disconnect"
