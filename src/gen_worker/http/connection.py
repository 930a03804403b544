"""One HTTP/1.1 connection: parsed by httptools, bounded, with an ASGI application behind it. uvicorn's server accepts for it.

uvicorn's own connection bounds neither the bytes nor the number of headers nor the time that they take, answers errors as plain text, and
spends half of an echo's time on what this server does not use (a timer for each request, checks of headers that we wrote ourselves).

    head ---> body ---> answer ---> head ...      A request that comes before the last one is answered waits, unread beyond 64 KiB.

What is refused is answered once, as a problem, and the connection closed; never in the middle of another answer.
"""

import asyncio
import time
from collections import deque
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools
import msgspec
from starlette.types import ASGIApp, Message

from gen_worker.http.crowd import ConnectionLimits, Crowd
from gen_worker.http.problems import PROBLEM_JSON, problem

BUFFERED_BYTES = 64 << 10
MAX_PIPELINED = 16
CLOSE_S = 10.0
LINGER_S = 2.0
DROPPED_BYTES = 256 << 10
CHUNK_FRAME_BYTES = 16  # of framing that a byte of a chunked body may take
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_NO_BODY = (204, 304)
_DISCONNECT: Message = {"type": "http.disconnect"}


class _RefusedError(Exception):
    """The head or body breaks a bound. Raised through the parser."""


class Connection(asyncio.Protocol):
    """Made by uvicorn for each connection; `server_state` is uvicorn's list of who is there, for its shutdown."""

    def __init__(self, app: ASGIApp, crowd: Crowd, server_state: Any) -> None:
        self._app = app
        self._crowd = crowd
        self._limits = crowd.limits
        self._state = server_state
        self._loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpRequestParser(self)
        self.address = ""
        self._exchange: Exchange | None = None  # the one that is being answered
        self._waiting: deque[Exchange] = deque()
        self._reading: Exchange | None = None  # the one whose body is coming
        self._refusal: tuple[int, str, str] | None = None
        self._closing = False
        self.since_s = time.monotonic()
        self._head_bytes = 0
        self._began = False
        self._framing_bytes = self._body_bytes = 0
        self._unread_bytes = self._dropped_bytes = 0
        self.drained: asyncio.Event | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        peer, here = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.client = (peer[0], peer[1]) if isinstance(peer, tuple) else None
        self.server = (here[0], here[1]) if isinstance(here, tuple) else None
        self.address = self.client[0] if self.client else ""
        if not self._crowd.join(self):
            self._refuse(503, "too_many_connections", "all connections of this server are at work; try again later")
            return
        self._state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        self._state.connections.discard(self)
        self._closing = True
        for exchange in (self._exchange, self._reading, *self._waiting):
            if exchange is not None:
                exchange.disconnect()
        self._waiting.clear()
        self._exchange = self._reading = None
        self.resume_writing()
        self._parser = None  # it refers to this object

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        size_bytes, body_bytes = len(data), self._body_bytes
        if self._reading is None:
            if not self._began:
                self._began, self.since_s = True, time.monotonic()
            self._head_bytes += size_bytes
        try:
            self._parser.feed_data(data)
            if self._reading is None:
                if self._head_bytes > self._limits.head_bytes:
                    self._refusal = (431, "head_too_large", f"the request's head has more than {self._limits.head_bytes} bytes")
                    raise _RefusedError
            else:
                self._framing_bytes += size_bytes - (self._body_bytes - body_bytes)
                if self._framing_bytes > 2 * self._limits.head_bytes + CHUNK_FRAME_BYTES * self._body_bytes:
                    self._refusal = (400, "invalid_request", "the body's chunks have more framing than content")
                    raise _RefusedError
        except httptools.HttpParserUpgrade:
            # Nothing to upgrade to: the request is answered as it stands, and what follows it is not HTTP.
            last = self._waiting[-1] if self._waiting else self._exchange
            if last is not None:
                last.keep_alive = False
            self.transport.pause_reading()
        except (httptools.HttpParserError, _RefusedError):
            self._refuse(*(self._refusal or (400, "invalid_request", "this is not a valid HTTP/1.1 request")))

    def pause_writing(self) -> None:
        self.drained = asyncio.Event()
        self._unread_bytes, self.since_s = self.transport.get_write_buffer_size(), time.monotonic()

    def resume_writing(self) -> None:
        if self.drained is not None:
            drained, self.drained = self.drained, None
            drained.set()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects = False
        self._trailers = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:
            self._trailers += 1
            if self._trailers > self._limits.headers:
                self._refuse_head(f"more than {self._limits.headers} trailers")
            return
        name = name.lower()
        self._headers.append((name, value))
        if len(self._headers) > self._limits.headers:
            self._refuse_head(f"more than {self._limits.headers} headers")
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects = True

    def on_headers_complete(self) -> None:
        head_bytes = len(self._url) + sum([len(name) + len(value) for name, value in self._headers])
        if head_bytes > self._limits.head_bytes:
            self._refuse_head(f"more than {self._limits.head_bytes} bytes")
        parser = self._parser
        url = httptools.parse_url(self._url)
        path = url.path.decode("ascii")
        version = parser.get_http_version()
        exchange = Exchange(self, keep_alive=version == "1.1" and parser.should_keep_alive(), expects=self._expects)
        exchange.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": "http",
            "root_path": "",
            "method": parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self._headers,
            "state": {},
            "respond": exchange.respond,
        }
        self._reading = exchange
        self._crowd.busy(self)
        if self._exchange is None:
            self._begin(exchange)
            return
        self._waiting.append(exchange)
        if len(self._waiting) >= MAX_PIPELINED:
            self.transport.pause_reading()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        exchange = self._reading
        if exchange is None:
            return
        if exchange.complete:  # what comes after the answer is dropped, but for a while only
            self._dropped_bytes += len(body)
            if self._dropped_bytes > DROPPED_BYTES:
                self._close()
        else:
            exchange.body += body
            exchange.wake()
            if len(exchange.body) > BUFFERED_BYTES:
                self.transport.pause_reading()

    def on_message_complete(self) -> None:
        exchange, self._reading = self._reading, None
        self._head_bytes = self._framing_bytes = self._body_bytes = 0
        self._began = False
        if exchange is not None:
            exchange.more_body = False
            exchange.wake()
            if exchange.complete:
                self._dropped_bytes = 0
                if not exchange.keep_alive:
                    self._close()
                self._went_idle()

    # What exchanges call.

    def answered(self, exchange: "Exchange") -> None:
        """The answer is written whole."""
        if self._closing:
            return
        if self._reading is exchange:
            # Closing now would reset the connection under what the client still sends, and it would lose the answer.
            self._exchange, self.since_s = None, time.monotonic()
            self.transport.resume_reading()
            return
        if not exchange.keep_alive:
            self._close()
            return
        self._exchange = None
        if self._waiting:
            self._begin(self._waiting.popleft())
        else:
            self._went_idle()
        self.transport.resume_reading()

    # What uvicorn and the crowd call.

    def shutdown(self) -> None:
        """Finish what is being answered, then close."""
        if self._exchange is None:
            self._close()
        else:
            for exchange in (self._exchange, *self._waiting):
                exchange.keep_alive = False

    def close_idle(self) -> None:
        self._close()

    def check_time(self, now_s: float, limits: ConnectionLimits) -> None:
        waited_s = now_s - self.since_s
        if self._closing:
            if waited_s > CLOSE_S:  # the client does not take the rest of its answer
                self.transport.abort()
        elif self.drained is not None:
            unread_bytes = self.transport.get_write_buffer_size()
            if unread_bytes != self._unread_bytes:
                self._unread_bytes, self.since_s = unread_bytes, now_s
            elif waited_s > limits.unread_s:
                self.transport.abort()
        elif self._exchange is None and self._reading is None:
            if self._began and waited_s > limits.head_s:
                self._refuse(408, "request_timeout", f"the request's head was not whole within {limits.head_s:.0f} s")
            elif not self._began and waited_s > limits.idle_s:
                self._close()
        elif self._exchange is None and waited_s > LINGER_S:  # answered already, and the body does not end
            self._close()

    def _went_idle(self) -> None:
        if self._exchange is None:
            self.since_s = time.monotonic()
            self._crowd.idle(self)

    def _begin(self, exchange: "Exchange") -> None:
        self._exchange = exchange
        task = self._loop.create_task(exchange.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _refuse_head(self, why: str) -> None:
        self._refusal = (431, "head_too_large", f"the request has {why}")
        raise _RefusedError

    def _refuse(self, status: int, code: str, detail: str) -> None:
        if self._closing:
            return
        self._waiting.clear()
        if self._reading is not None and self._reading.complete:  # all is said
            self._close()
            return
        exchange = self._exchange
        if exchange is not None and (exchange is not self._reading or exchange.started):
            # It is being answered, and in the middle of an answer nothing else can be said: it is the last one.
            exchange.keep_alive = False
            self.transport.pause_reading()
            return
        if exchange is not None:
            exchange.disconnect()  # its body will never be whole
        body = msgspec.json.encode(problem(status, code, detail))
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (PROBLEM_JSON, len(body))
        self.transport.write(_STATUS_LINES[status] + head + body)
        self._close()

    def _close(self) -> None:
        if not self._closing:
            self._closing, self.since_s = True, time.monotonic()
            self._crowd.busy(self)  # it has its place until it is gone
            self.transport.close()


class Exchange:
    """One request and its answer."""

    scope: dict[str, Any]

    def __init__(self, connection: Connection, *, keep_alive: bool, expects: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
        self._expects = expects
        self.body = bytearray()
        self.more_body = True
        self._told = False  # the application has had the end of the body
        self.started = self.complete = False
        self._gone = False
        self._chunked = False
        self._left_bytes = 0
        self._news: asyncio.Future[None] | None = None

    async def run(self, app: ASGIApp) -> None:
        """Have the application answer; close where it does not finish."""
        try:
            await app(self.scope, self.receive, self.send)
        finally:
            self.scope.pop("respond", None)  # it refers to this object
            if not self.complete:
                self._give_up()

    def wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def disconnect(self) -> None:
        """Nothing more comes or can be said."""
        self._gone = True
        self.wake()

    async def receive(self) -> Message:
        """The next piece of the body; after the last one, the client's leaving or the end of the answer."""
        connection = self._connection
        while True:
            if self._gone or self.complete:
                return _DISCONNECT
            if not self._told and (self.body or not self.more_body):
                piece, self.body = bytes(self.body), bytearray()
                self._told = not self.more_body
                if self.more_body:
                    connection.transport.resume_reading()
                return {"type": "http.request", "body": piece, "more_body": self.more_body}
            if self._expects:
                self._expects = False
                connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._news = connection._loop.create_future()
            try:
                await self._news
            finally:
                self._news = None

    def respond(self, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        """The whole answer in one write."""
        if self._gone:
            return
        self.started = True
        lines = [_STATUS_LINES[status], *[b"%b: %b\r\n" % field for field in fields], self._end_of_head(fields)]
        if self.scope["method"] != "HEAD" and status not in _NO_BODY:
            lines.append(body)
        self._connection.transport.write(b"".join(lines))
        self._completed()

    async def send(self, message: Message) -> None:
        """ASGI's way to answer."""
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
                self.keep_alive = False  # it ends early, and the client has to notice
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
        lines = [_STATUS_LINES[status], *[b"%b: %b\r\n" % field for field in fields], self._end_of_head(fields)]
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
        """The application has ended without an answer."""
        if self.started:
            self._connection.transport.abort()
        if self.started or self._gone:
            return
        self.keep_alive = False
        body = msgspec.json.encode(problem(500, "internal", "internal error"))
        self.respond(500, [(b"content-type", PROBLEM_JSON), (b"content-length", b"%d" % len(body))], body)
