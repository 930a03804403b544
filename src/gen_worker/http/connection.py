"""One HTTP/1.1 connection: parsed by httptools, bounded, with an ASGI application behind it. uvicorn's server accepts
the connections.

uvicorn's own connection bounds neither the bytes or number of headers nor the time they take. It answers errors as
plain text, and spends half of an echo's time on things this server does not use (a timer for each request, checks of
headers that we wrote ourselves).

    head ---> body ---> answer ---> head ...      A request that arrives before the last one is answered waits, unread beyond 64 KiB.

When a client keeps sending without reading its answers, the server stops reading from it: no request begins while
answers are unsent. Received bytes are parsed in pieces, so that about 16 requests wait, not everything that the system
delivers at once.

A refused request is answered once, with a problem, and the connection closes; never in the middle of another answer.
"""

import asyncio
import time
from collections import deque
from typing import Any, cast

import httptools
import msgspec
from starlette.types import ASGIApp

from gen_worker.http.crowd import MIN_BODY_BYTES_S, STALLED_S, ConnectionLimits, Crowd
from gen_worker.http.exchange import STATUS_LINES, Exchange
from gen_worker.http.heads import RefusedError, check_coding, scope_of
from gen_worker.http.problems import PROBLEM_JSON, problem
from gen_worker.http.upgraded import Upgraded

BUFFERED_BYTES = 64 << 10
MAX_PIPELINED = 16
PIECE_BYTES = 16 << 10
CLOSE_S = 10.0
LINGER_S = 2.0
# Many clients send the whole body before they read an answer. If the connection closed earlier, such a client would see
# a reset instead of its 404.
DROPPED_BYTES = 32 << 20
INVALID = (400, "invalid_request", "this is not a valid HTTP/1.1 request")
HALF_CLOSED_S = 0.5  # how long an answer may take that a client waits for who has closed its own side
CHUNK_FRAME_BYTES = 16  # framing bytes allowed for each byte of a chunked body


class Connection(asyncio.Protocol):
    """Created by uvicorn for each connection; `server_state` is uvicorn's list of connections, for its shutdown."""

    def __init__(self, app: ASGIApp, crowd: Crowd, server_state: Any) -> None:
        self._app = app
        self._crowd = crowd
        self._limits = crowd.limits
        self._state = server_state
        self.loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpRequestParser(self)
        self.address = ""
        self._exchange: Exchange | None = None  # being answered
        self._waiting: deque[Exchange] = deque()
        self._reading: Exchange | None = None  # its body is being received
        self._closing = False
        self.since_s = time.monotonic()
        self._head_bytes = 0
        self._began = False
        self._framing_bytes = self._body_bytes = self._declared_bytes = 0
        self._ended = 0  # requests received completely
        self._unread_bytes = self._dropped_bytes = 0
        self.drained: asyncio.Event | None = None
        self._unparsed = b""  # waits until fewer requests are waiting
        self._behind: bytearray | None = None  # bytes after a request that asks for another protocol

    # Callbacks from asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it
        peer, here = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.client = (peer[0], peer[1]) if isinstance(peer, tuple) else None
        self.server = (here[0], here[1]) if isinstance(here, tuple) else None
        self.address = self.client[0] if self.client else ""
        if not self._crowd.join(self):
            self._refuse(503, "too_many_connections", "all connections of this server are busy; try again later")
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
        self._unparsed = b""
        self._exchange = self._reading = None
        self.resume_writing()
        self._parser = None  # it refers to this object

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._behind is not None:
            self._add_behind(data)
            return
        if self._unparsed or len(data) > PIECE_BYTES:
            self._unparsed += data
            self._parse_on()
        else:
            self._parse(data)

    def _parse_on(self) -> None:
        """Parse the waiting bytes piece by piece while few requests are waiting."""
        while self._unparsed and not self._closing:
            if len(self._waiting) >= MAX_PIPELINED:
                self.transport.pause_reading()
                return
            # Bytes that certainly belong to a body begin no request, however many they are.
            size_bytes = max(PIECE_BYTES, self._declared_bytes - self._body_bytes) if self._reading is not None else PIECE_BYTES
            piece, self._unparsed = self._unparsed[:size_bytes], self._unparsed[size_bytes:]
            self._parse(piece)
            if self._behind is not None:
                behind, self._unparsed = self._unparsed, b""
                self._add_behind(behind)

    def _parse(self, data: bytes) -> None:
        size_bytes, body_bytes, ended = len(data), self._body_bytes, self._ended
        if self._reading is None:
            if not self._began:
                self._began, self.since_s = True, time.monotonic()
            self._head_bytes += size_bytes
        try:
            self._parser.feed_data(data)
            if self._reading is None:
                if self._head_bytes > self._limits.head_bytes:
                    raise RefusedError(431, "head_too_large", f"the request's head has more than {self._limits.head_bytes} bytes")
                return
            self._crowd.receiving(self)
            if ended == self._ended:  # otherwise the piece contains the end of one body and the beginning of another
                self._framing_bytes += size_bytes - (self._body_bytes - body_bytes)
                if self._framing_bytes > 2 * self._limits.head_bytes + CHUNK_FRAME_BYTES * self._body_bytes:
                    raise RefusedError(400, "invalid_request", "the body's chunks have more framing than content")
        except httptools.HttpParserUpgrade as exc:
            # What follows is not HTTP: it belongs to the protocol that the request asks for. If no handler upgrades,
            # the request is answered as it is, and is the last one.
            last = self._waiting[-1] if self._waiting else self._exchange
            if last is not None:
                last.keep_alive = False
                last.offer_upgrade()
            self._behind = bytearray()
            self._add_behind(data[exc.args[0] :])
        except (httptools.HttpParserError, RefusedError) as exc:
            cause = exc if isinstance(exc, RefusedError) else exc.__context__  # the parser wraps what its callbacks raise
            self._refuse(*(cause.refusal if isinstance(cause, RefusedError) else INVALID))

    def eof_received(self) -> bool:
        """The client sends no more. It may have left, which looks the same until something is written, or wait for its answers, as `nc -N`
        does: answers that are whole soon are written, and the rest is cancelled. Whether the transport stays open.
        """
        if self._exchange is None or self._reading is not None or self._behind is not None:
            return False
        last = self._waiting[-1] if self._waiting else self._exchange
        last.keep_alive = False
        self.loop.call_later(HALF_CLOSED_S, self._end_half_closed)
        return True

    def _end_half_closed(self) -> None:
        if self._exchange is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        self.drained = asyncio.Event()
        self._unread_bytes, self.since_s = self.transport.get_write_buffer_size(), time.monotonic()

    def resume_writing(self) -> None:
        if self.drained is not None:
            drained, self.drained = self.drained, None
            drained.set()
            if self._exchange is None and not self._closing:
                self._next()

    # Callbacks from the parser.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects = False
        self._trailers = self._declared_bytes = 0

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
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            self._declared_bytes = int(value)
        elif name == b"transfer-encoding":
            check_coding(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects = True

    def on_headers_complete(self) -> None:
        # The bytes received since the last request, plus at most one piece that began before its end. Most heads are far below the limit.
        if self._head_bytes + PIECE_BYTES > self._limits.head_bytes:
            head_bytes = len(self._url) + sum([len(name) + len(value) for name, value in self._headers])
            if head_bytes > self._limits.head_bytes:
                self._refuse_head(f"more than {self._limits.head_bytes} bytes")
        parser = self._parser
        version = parser.get_http_version()
        exchange = Exchange(self, keep_alive=version == "1.1" and parser.should_keep_alive(), expects=self._expects)
        exchange.scope = scope_of(version, parser.get_method(), self._url, self._headers, self.server, self.client)
        exchange.scope |= {"respond": exchange.respond, "direct": exchange}
        self._reading = exchange
        self._crowd.busy(self)
        if self._exchange is None and self.drained is None:
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
        if exchange.complete:  # bytes after the answer are dropped, but only for a while
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
        self._crowd.received(self)
        self._head_bytes = self._framing_bytes = self._body_bytes = 0
        self._ended += 1
        self._began = False
        if exchange is not None:
            exchange.more_body = False
            exchange.wake()
            if exchange.complete:
                self._dropped_bytes = 0
                if not exchange.keep_alive:
                    self._close()
                self._went_idle()

    # Called by exchanges.

    def answered(self, exchange: "Exchange") -> None:
        """The answer is completely written."""
        if self._closing:
            return
        if self._reading is exchange:
            # Closing now would reset the connection while the client is still sending, and it would lose the answer.
            self._exchange, self.since_s = None, time.monotonic()
            self.transport.resume_reading()
            return
        if not exchange.keep_alive:
            self._close()
            return
        self._exchange = None
        self._next()

    def switch(self, protocol: Upgraded) -> None:
        """From now on the connection belongs to another protocol."""
        behind, self._closing, self._exchange = bytes(self._behind or b""), True, None
        self._crowd.leave(self)
        self._state.connections.discard(self)
        self._parser = None
        transport = self.transport
        transport.set_protocol(protocol)
        protocol.take_over(transport, self._crowd, self._state.connections, self.address)
        if behind:
            protocol.data_received(behind)
        if not transport.is_closing():
            protocol.go_on()

    # Called by uvicorn and the crowd.

    def shutdown(self) -> None:
        """Finish the current answer, then close."""
        if self._exchange is None:
            self._close()
        else:
            for exchange in (self._exchange, *self._waiting):
                exchange.keep_alive = False

    def close_idle(self) -> None:
        self._close()

    def close_stalled(self, began_s: float, now_s: float) -> bool:
        exchange = self._reading
        if exchange is None or self._closing or (exchange.started and not exchange.complete):
            return False
        # an earlier request is being answered, or nobody reads what was received
        if self._exchange not in (None, exchange) or exchange.body:
            return False
        if now_s - began_s - self._body_bytes / MIN_BODY_BYTES_S < STALLED_S:
            return False
        self._refuse(408, "request_timeout", "the request's body arrived too slowly while others waited for a connection")
        return True

    def check_time(self, now_s: float, limits: ConnectionLimits) -> None:
        waited_s = now_s - self.since_s
        if self._closing:
            if waited_s > CLOSE_S:  # the client does not read the rest of its answer
                self.transport.abort()
        elif self.drained is not None:
            unread_bytes = self.transport.get_write_buffer_size()
            if unread_bytes != self._unread_bytes:
                self._unread_bytes, self.since_s = unread_bytes, now_s
            elif waited_s > limits.unread_s:
                self.transport.abort()
        elif self._exchange is None and self._reading is None:
            if self._began and waited_s > limits.head_s:
                self._refuse(408, "request_timeout", f"the request's head was not complete within {limits.head_s:.0f} s")
            elif not self._began and waited_s > limits.idle_s:
                self._close()
        elif self._exchange is None and waited_s > LINGER_S:  # answered already, but the body does not end
            self._close()

    def _next(self) -> None:
        """Begin the request that has waited longest, unless answers are unsent, and continue reading."""
        if not self._waiting:
            self._went_idle()
        elif self.drained is None:
            self._begin(self._waiting.popleft())
        self._parse_on()
        if not self._unparsed and len(self._waiting) < MAX_PIPELINED and not self._closing:
            self.transport.resume_reading()

    def _add_behind(self, data: bytes) -> None:
        assert self._behind is not None
        self._behind += data
        self.transport.pause_reading()

    def _went_idle(self) -> None:
        if self._exchange is None:
            self.since_s = time.monotonic()
            self._crowd.idle(self, self.since_s)

    def _begin(self, exchange: "Exchange") -> None:
        self._exchange = exchange
        task = self.loop.create_task(exchange.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _refuse_head(self, why: str) -> None:
        raise RefusedError(431, "head_too_large", f"the request has {why}")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        if self._closing:
            return
        self._waiting.clear()
        self._unparsed = b""
        if self._reading is not None and self._reading.complete:  # everything is said
            self._close()
            return
        exchange = self._exchange
        if exchange is not None and (exchange is not self._reading or exchange.started):
            # It is being answered, and nothing else can be said in the middle of an answer: it is the last one.
            exchange.keep_alive = False
            self.transport.pause_reading()
            return
        if exchange is not None:
            exchange.disconnect()  # its body will never be complete
        body = msgspec.json.encode(problem(status, code, detail))
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (PROBLEM_JSON, len(body))
        self.transport.write(STATUS_LINES[status] + head + body)
        self._close()

    def _close(self) -> None:
        if not self._closing:
            self._closing, self.since_s = True, time.monotonic()
            self._crowd.busy(self)  # it keeps its place until it is gone
            self._crowd.received(self)
            self.transport.close()
