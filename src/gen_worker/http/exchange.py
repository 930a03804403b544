"""One request and its answer on our own connection: ASGI's two calls, the complete answer at once, or another protocol instead."""

import asyncio
from typing import Any, Protocol

import msgspec
from starlette.types import ASGIApp, Message

from gen_worker.http.direct import DirectAnswer
from gen_worker.http.phrases import PHRASES
from gen_worker.http.problems import PROBLEM_JSON, problem
from gen_worker.http.upgraded import Upgraded

STATUS_LINES = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in PHRASES.items()}
_NO_BODY = (204, 304)
_DISCONNECT: Message = {"type": "http.disconnect"}


class Wire(Protocol):
    """The connection as its exchanges see it."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    drained: asyncio.Event | None

    def answered(self, exchange: "Exchange") -> None: ...

    def switch(self, protocol: Upgraded) -> None: ...


class Exchange:
    """One request and its answer."""

    scope: dict[str, Any]

    def __init__(self, connection: "Wire", *, keep_alive: bool, expects: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
        self._expects = expects
        self.body = bytearray()
        self.more_body = True
        self._told = False  # whether the application was told the end of the body
        self._received = False  # whether it received a part of the body
        self.started = self.complete = False
        self._gone = False
        self._chunked = False
        self._left_bytes = 0
        self._news: asyncio.Future[None] | None = None
        self._direct: DirectAnswer | None = None

    async def run(self, app: ASGIApp) -> None:
        """Run the application; close the connection if it does not finish its answer."""
        try:
            await app(self.scope, self.receive, self.send)
        finally:
            self.scope.pop("respond", None)  # they refer to this object
            self.scope.pop("upgrade", None)
            self.scope.pop("direct", None)
            self.finish_direct()  # no other thread writes from here on
            if not self.complete:
                self._give_up()

    def wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def disconnect(self) -> None:
        """Nothing more can be received or sent."""
        self._gone = True
        if self._direct is not None:
            self._direct.take_back()
        self.wake()

    def offer_upgrade(self) -> None:
        """The client asks for another protocol: the application may accept by `scope["upgrade"]`."""
        if self.scope["http_version"] == "1.1":
            self.scope["upgrade"] = self.upgrade

    def upgrade(self, fields: list[tuple[bytes, bytes]], protocol: "Upgraded") -> None:
        """Answer 101, and hand over the connection. If the client has already left, the protocol is told."""
        if self._gone:
            protocol.connection_lost(None)
            return
        self.started = self.complete = True
        self._connection.transport.write(b"".join([STATUS_LINES[101], *[b"%b: %b\r\n" % field for field in fields], b"\r\n"]))
        self._connection.switch(protocol)

    async def receive(self) -> Message:
        """The next piece of the body; after the last one, waits for the client to disconnect or the answer to end."""
        connection = self._connection
        while True:
            if self._gone or self.complete:
                return _DISCONNECT
            if not self._told and (self.body or not self.more_body):
                piece, self.body = bytes(self.body), bytearray()
                self._told, self._received = not self.more_body, True
                if self.more_body:
                    connection.transport.resume_reading()
                return {"type": "http.request", "body": piece, "more_body": self.more_body}
            if self._expects:
                self._expects = False
                connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._news = connection.loop.create_future()
            try:
                await self._news
            finally:
                self._news = None

    def whole_body(self, max_bytes: int) -> bytes | None:
        """The complete body; None when it is larger, is not here yet, or was partly received."""
        if self.more_body or self._told or self._gone or self._received or len(self.body) > max_bytes:
            return None
        self._told = True
        body, self.body = bytes(self.body), bytearray()
        return body

    def respond(self, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send the complete answer with one write."""
        if self._gone or self.finish_direct():
            return
        self.started = True
        self._connection.transport.write(self._whole(status, fields, body))
        self._completed()

    def direct(self) -> DirectAnswer | None:
        """The right to write the complete answer from another thread; call `finish_direct` afterwards. None when the
        loop must write it.
        """
        transport = self._connection.transport
        if (
            self._gone
            or self.started
            or self.more_body
            or self._expects
            or self._connection.drained is not None
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            return None
        sock = transport.get_extra_info("socket")
        if sock is None:
            return None
        self._direct = DirectAnswer(sock.fileno(), self._whole)
        return self._direct

    def finish_direct(self) -> bool:
        """Withdraw the right, and send the rest. False when nothing was written: the request is still to be answered."""
        direct, self._direct = self._direct, None
        rest = None if direct is None else direct.take_back()
        if rest is None:
            return False
        if not self._gone:
            self.started = True
            if rest:
                self._connection.transport.write(rest)
            self._completed()
        return True

    def _whole(self, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        lines = [STATUS_LINES[status], *[b"%b: %b\r\n" % field for field in fields], self._end_of_head(fields)]
        if self.scope["method"] != "HEAD" and status not in _NO_BODY:
            lines.append(body)
        return b"".join(lines)

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        if self._connection.drained is not None:
            await self._connection.drained.wait()
        if self._gone:
            return
        if not self.started:
            self._start(message["status"], list(message.get("headers", ())))
            return
        if self.complete:
            raise RuntimeError("the answer is complete already")
        body, more = message.get("body", b""), message.get("more_body", False)
        write = self._connection.transport.write
        if self.scope["method"] == "HEAD":
            self._left_bytes = 0
        elif self._chunked:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            write(piece if more else piece + b"0\r\n\r\n")
        else:
            self._left_bytes -= len(body)
            if self._left_bytes < 0:
                raise RuntimeError("the body is longer than its content-length")
            write(body)
        if not more:
            if self._left_bytes:
                self.keep_alive = False  # the answer ends early, and the client has to notice
            self._completed()

    def _start(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        length = next((value for name, value in fields if name.lower() == b"content-length"), None)
        if length is not None:
            self._left_bytes = int(length)
        elif status not in _NO_BODY:
            self._chunked = self.scope["http_version"] != "1.0"
            if self._chunked:
                fields.append((b"transfer-encoding", b"chunked"))
            else:
                self._left_bytes = 1 << 62
        lines = [STATUS_LINES[status], *[b"%b: %b\r\n" % field for field in fields], self._end_of_head(fields)]
        self._connection.transport.write(b"".join(lines))

    def _end_of_head(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        if (b"connection", b"close") in fields:
            self.keep_alive = False
            return b"\r\n"
        return b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"

    def _completed(self) -> None:
        self.complete = True
        self.wake()
        self._connection.answered(self)

    def _give_up(self) -> None:
        """The application ended without an answer."""
        if self.started:
            self._connection.transport.abort()
        if self.started or self._gone:
            return
        self.keep_alive = False
        body = msgspec.json.encode(problem(500, "internal", "internal error"))
        self.respond(500, [(b"content-type", PROBLEM_JSON), (b"content-length", b"%d" % len(body))], body)
