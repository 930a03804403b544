"""One websocket (RFC 6455): frames by wsproto, bounded in both directions, with pings, after one of our requests was
upgraded.

    open ---> closing (our Close frame is on its way) ---> gone
      +-----> gone (the client has closed, vanished, or broken the protocol; or it no longer answers pings)

Reading stops while the listener accepts no message, so that messages for a slow handler stay with the client. `send`
calls back when a frame is on its way to a client that reads. No extension is offered: a compressed message can be a
thousand times larger than its bytes on the wire.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import time
from collections.abc import Callable
from typing import Protocol

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.crowd import ConnectionLimits
from gen_worker.http.upgraded import Upgraded

CLOSE_S = 5.0  # time for the client's Close frame after ours, while it reads
# The one subprotocol that is accepted. It changes nothing: a page offers it together with `cozy.key.KEY`, because it
# cannot send a header with a websocket.
PROTOCOL = "cozy.realtime"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class Listener(Protocol):
    """Callbacks of a websocket."""

    def message(self, data: bytes) -> bool:
        """A complete message; False while there is no room: it is offered again after `go_on`."""
        ...

    def too_large(self) -> None:
        """A message exceeds the size limit; it is dropped."""
        ...

    def left(self) -> None:
        """The client is gone. Called once, also after `close`."""
        ...

    def idle(self) -> None:
        """No message has gone either way for `idle_s`."""
        ...

    def stopping(self) -> None:
        """The server shuts down."""
        ...


def accept_fields(request: Request) -> list[tuple[bytes, bytes]]:
    """The header fields of the answer that opens a websocket; `RequestError` 426 or 400 for a request that does not ask
    for one, or wrongly.
    """
    upgrades = [name.strip().lower() for name in request.header(b"upgrade").split(",")]
    version = request.header(b"sec-websocket-version").strip()
    if "upgrade" not in request.scope or request.scope["method"] != "GET" or "websocket" not in upgrades or version != "13":
        headers = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
        raise RequestError(426, "upgrade_required", "this is a websocket, version 13; connect to it with ws://", headers=headers)
    key = request.header(b"sec-websocket-key").strip()
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise RequestError(400, "invalid_request", f"sec-websocket-key {key[:40]!r}: expected 16 bytes in base64")
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    fields = [(b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"sec-websocket-accept", base64.b64encode(digest))]
    return [*fields, (b"sec-websocket-protocol", PROTOCOL.encode())] if PROTOCOL in offered_protocols(request) else fields


def offered_protocols(request: Request) -> list[str]:
    """The subprotocols that a client offers, in its order."""
    return [each.strip() for each in request.header(b"sec-websocket-protocol").split(",") if each.strip()]


class WebSocket(Upgraded):
    """Lives on the loop. `idle_s`: how long it may be without a message either way; 0: forever."""

    def __init__(self, listener: Listener, *, max_message_bytes: int, idle_s: float = 0.0) -> None:
        super().__init__()
        self._idle_s = idle_s
        self._active_s = time.monotonic()
        self._listener = listener
        self._max_message_bytes = max_message_bytes
        self._frames = Connection(ConnectionType.SERVER)
        self._message = bytearray()  # received so far
        self._held: bytes | None = None  # complete, and not accepted yet
        self._closing = self._told = False
        self._on_room: list[Callable[[], None]] = []
        self._heard_s = time.monotonic()
        self._pinged_s: float | None = None

    @property
    def holds(self) -> bool:
        """Whether a message waits for room; reading waits, too."""
        return self._held is not None

    def send(self, data: bytes, *, is_text: bool, taken: Callable[[], None]) -> None:
        """Send a message; `taken` is called when it is on its way, or never will be. Nothing is sent after `close`."""
        if self._closing or self._gone:
            taken()
            return
        self._active_s = time.monotonic()
        self._write(TextMessage(data.decode()) if is_text else BytesMessage(data))
        if self._is_full:
            self._on_room.append(taken)
        else:
            taken()

    def touch(self) -> None:
        """Count as if a message had gone now."""
        self._active_s = time.monotonic()

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame with the reason, wait briefly for the client's own, then close."""
        if self._closing or self._gone:
            return
        self._closing, self._since_s = True, time.monotonic()
        self._held = None
        self._message.clear()
        self._write(CloseConnection(code, reason))
        # soon, because we may be in the middle of reading; the client's Close may have arrived already
        asyncio.get_running_loop().call_soon(self.go_on)

    def go_on(self) -> None:
        """There is room again: continue reading, starting with the waiting message."""
        if self._gone:
            return
        held, self._held = self._held, None
        if held is not None:
            if not self._closing and not self._listener.message(held):
                self._held = held
                return
            self.touch()
        self._read()
        if self._held is None and self._transport is not None and not self._gone:
            self._transport.resume_reading()

    # Callbacks from asyncio.

    def data_received(self, data: bytes) -> None:
        self._heard_s, self._pinged_s = time.monotonic(), None
        if self._frames.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
            self._frames.receive_data(data)
            if self._held is None:
                self._read()

    def lost(self) -> None:
        self._held = None
        self._message.clear()
        self.resume_writing()
        self._tell()

    def resume_writing(self) -> None:
        super().resume_writing()
        waiting, self._on_room = self._on_room, []
        for taken in waiting:
            taken()

    # Called by uvicorn and the crowd.

    def shutdown(self) -> None:
        self._listener.stopping()

    def check_time(self, now_s: float, limits: ConnectionLimits) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._idle_s and not self._closing and self._held is None and now_s - self._active_s > self._idle_s:
            self._listener.idle()
        elif self._is_full or self._closing:
            if self.unread_for(now_s) > (CLOSE_S if self._closing else limits.unread_s):
                transport.abort()
        elif self._pinged_s is not None:
            if now_s - self._pinged_s > limits.ping_s and self._held is None:  # otherwise its pong may be behind data that we do not read
                transport.abort()
        elif now_s - self._heard_s > limits.ping_s:
            self._pinged_s = now_s
            self._write(Ping())

    def _read(self) -> None:
        """Handle the received bytes up to a message that is not accepted yet. At most one received piece stays unparsed."""
        for event in self._frames.events():
            self._handle(event)
            if self._held is not None:
                if self._transport is not None:
                    self._transport.pause_reading()
                return

    def _handle(self, event: Event) -> None:
        match event:
            case TextMessage() | BytesMessage():
                if not self._closing:
                    self._add(event.data.encode() if isinstance(event.data, str) else event.data, ends=event.message_finished)
            case Ping():
                self._write(event.response())
            case CloseConnection():
                if self._frames.state is ConnectionState.REMOTE_CLOSING:
                    self._write(event.response())
                elif self._frames.state is ConnectionState.OPEN:  # how wsproto reports a broken frame
                    self._write(CloseConnection(event.code, event.reason))
                self._leave()

    def _add(self, data: bytes | bytearray, *, ends: bool) -> None:
        self._message += data
        if len(self._message) > self._max_message_bytes:
            self._message.clear()
            self._listener.too_large()
        elif ends:
            self._active_s = time.monotonic()
            whole = bytes(self._message)
            self._message.clear()
            if not self._listener.message(whole):
                self._held = whole

    def _leave(self) -> None:
        """The client has closed: close the connection when it has read what was written."""
        self._closing, self._since_s = True, time.monotonic()
        if self._transport is not None:
            self._transport.close()
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._listener.left()

    def _write(self, event: Event) -> None:
        if self._transport is not None and not self._transport.is_closing():
            with contextlib.suppress(LocalProtocolError):  # for example a ping after a Close
                self._transport.write(self._frames.send(event))
