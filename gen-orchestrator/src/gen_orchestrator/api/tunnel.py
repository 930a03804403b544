"""Carries a websocket from a standby node to the leader: bytes in both directions, unread and unchanged.

    client --request--> here --the same, marked--> leader
           <---101----       <--------101--------            (any other answer is passed on, and nothing is carried)
           <===bytes==>      <=======bytes=======>           each side is read as fast as the other one accepts

When one side ends, the other ends, too. Pings, limits and close codes are the leader's.
"""

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any, cast
from urllib.parse import urlsplit

from gen_orchestrator.api.forward import CONNECT_S, HOP_BY_HOP, MARK, BrokenOffError, NotReachedError
from gen_worker.http.asgi import Request
from gen_worker.http.crowd import ConnectionLimits
from gen_worker.http.upgraded import Upgraded

MAX_HEAD_BYTES = 64 << 10
MAX_ANSWER_BYTES = 1 << 20
ANSWER_S = 60.0  # the leader commits the session before it answers
# Checked here, where the page's host is known.
_OF_PAGES = frozenset({b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"})


class Tunnels:
    """One for each node. Its open tunnels end with it."""

    def __init__(self) -> None:
        self._watches: set[asyncio.Task[None]] = set()

    async def carry(self, base_url: str, request: Request, replaced: Coroutine[Any, Any, None]) -> None:
        """Ask the node at `base_url`, and answer with its answer. A tunnel then lasts until either side ends or
        `replaced` returns. `NotReachedError` when that node has seen nothing of it, `BrokenOffError` when the
        connection broke.
        """
        watch = asyncio.ensure_future(replaced)
        try:
            far = await _connect(base_url)
            far.send(_head(base_url, request))
            try:
                async with asyncio.timeout(ANSWER_S):
                    status, fields, rest = await far.answer()
            except TimeoutError:
                raise BrokenOffError("the leader did not answer", started=False) from None
            if status != 101:
                of_body = (b"content-type", b"content-length")
                headers = {name.decode(): value.decode("latin-1") for name, value in fields if name not in of_body}
                kind = dict(fields).get(b"content-type", b"application/json")
                far.close()
                await request.answer(status, rest, kind, headers)
                return
            near = _Near(far)
            request.scope["upgrade"](fields, near)
            far.join(near, rest)
        except BaseException:
            watch.cancel()
            raise
        task = asyncio.create_task(_watch(watch, far, near), name="tunnel")
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    def close(self) -> None:
        for task in self._watches:
            task.cancel()


async def _watch(replaced: "asyncio.Future[None]", far: "_Far", near: "_Near") -> None:
    """End the tunnel when another node leads: a hanging leader, or one whose machine is gone, would never end it."""
    try:
        await asyncio.wait([replaced, far.gone], return_when=asyncio.FIRST_COMPLETED)
    finally:
        replaced.cancel()
        far.close()
        near.close()


async def _connect(base_url: str) -> "_Far":
    url = urlsplit(base_url)
    context = ssl.create_default_context() if url.scheme == "https" else None
    try:
        async with asyncio.timeout(CONNECT_S):
            _, far = await asyncio.get_running_loop().create_connection(
                _Far, url.hostname or "", url.port or (443 if context else 80), ssl=context
            )
    except (OSError, TimeoutError) as exc:
        raise NotReachedError(str(exc)) from None
    return far


def _head(base_url: str, request: Request) -> bytes:
    scope = request.scope
    raw = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    kept = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP | _OF_PAGES]
    own = [(b"host", urlsplit(base_url).netloc.encode()), (b"connection", b"upgrade"), (b"upgrade", b"websocket"), (MARK, b"1")]
    lines = [b"GET %b HTTP/1.1" % (raw + query), *[b"%b: %b" % field for field in (*own, *kept)], b"", b""]
    return b"\r\n".join(lines)


class _Far(asyncio.Protocol):
    """The connection to the leader: first its answer, then bytes for the client."""

    def __init__(self) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._near: _Near | None = None
        self._received = bytearray()
        self._news = asyncio.Event()

    async def answer(self) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers, and what follows: for a 101 the tunnel's first bytes, otherwise the body."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            await self._more(MAX_HEAD_BYTES)
        first, *lines = bytes(self._received[:end]).split(b"\r\n")
        del self._received[: end + 4]
        try:
            status = int(first.split(b" ")[1])
        except (IndexError, ValueError):
            raise BrokenOffError(f"the leader answered {first[:100]!r}", started=False) from None
        found = [line.partition(b":") for line in lines]
        fields = [(name.strip().lower(), value.strip()) for name, _, value in found]
        if status == 101:
            return status, fields, bytes(self._received)
        length = int(dict(fields).get(b"content-length", b"0"))
        while len(self._received) < length:
            await self._more(MAX_ANSWER_BYTES)
        return status, [field for field in fields if field[0] not in HOP_BY_HOP], bytes(self._received[:length])

    def join(self, near: "_Near", rest: bytes) -> None:
        """The client's side is connected."""
        self._near = near
        self._received.clear()
        if rest:
            near.send(rest)
        if self.gone.done():
            near.close()

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause(self, *, is_full: bool) -> None:
        """Stop reading while the client accepts nothing."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if is_full else self._transport.resume_reading)()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it

    def data_received(self, data: bytes) -> None:
        if self._near is not None:
            self._near.send(data)
        else:
            self._received += data
            self._news.set()

    def pause_writing(self) -> None:
        if self._near is not None:
            self._near.pause(is_full=True)

    def resume_writing(self) -> None:
        if self._near is not None:
            self._near.pause(is_full=False)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        self._news.set()

    async def _more(self, most: int) -> None:
        if self.gone.done():
            raise BrokenOffError("the leader closed the connection", started=False)
        if len(self._received) > most:
            raise BrokenOffError("the leader's answer is too long", started=False)
        self._news.clear()
        await self._news.wait()


class _Near(Upgraded):
    """The connection to the client."""

    def __init__(self, far: _Far) -> None:
        super().__init__()
        self._far = far
        self._held = False

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause(self, *, is_full: bool) -> None:
        self._held = is_full
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if is_full else self._transport.resume_reading)()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def go_on(self) -> None:
        if self._transport is not None and not self._held and not self._transport.is_closing():
            self._transport.resume_reading()

    # Callbacks from asyncio.

    def data_received(self, data: bytes) -> None:
        self._far.send(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._far.pause(is_full=True)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._far.pause(is_full=False)

    def lost(self) -> None:
        self._far.close()

    # Called by uvicorn and the crowd.

    def shutdown(self) -> None:
        self.close()

    def check_time(self, now_s: float, limits: ConnectionLimits) -> None:
        if self._transport is not None and self._is_full and self.unread_for(now_s) > limits.unread_s:
            self._transport.abort()
