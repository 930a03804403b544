"""`AsyncSession`: a websocket to a realtime handler, on asyncio. Frames are by wsproto, the connection is httpcore's.

    new --open--> open --close, or the server's Close frame, or a lost connection--> over
                   |
                   +-- a task reads, up to `HELD_BYTES` or `HELD_MESSAGES` ahead of the caller. Then it stops, so the
                       server stops, so the handler waits.

Messages that arrived before the end are delivered first, then the end is told.
"""

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import msgspec
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from gen_worker.client.effects import Answer, LostError, Open, Pause, Request
from gen_worker.client.errors import SessionError
from gen_worker.client.flows import Flows
from gen_worker.client.session_rules import (
    GOING_AWAY,
    LOST,
    NORMAL,
    TOO_LARGE,
    Opening,
    SessionEnd,
    error_of,
    opened_session,
)
from gen_worker.client.settings import CONNECT_TIMEOUT_S
from gen_worker.contract.run import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from gen_worker.client.asynchronous_wire import Wire

T = TypeVar("T")
HELD_BYTES = 1 << 20
HELD_MESSAGES = 256
SILENCE_S = 30.0  # without a byte from the server; then a ping, and as long again for its answer
CLOSE_S = 5.0  # for the server's Close frame after ours
LEAVE_S = 1.0  # the same when an exception, such as Ctrl-C, ends the session
READ_BYTES = 256 << 10


class AsyncSession:
    """A realtime session. `async with client.session(ref) as session:` opens it, and closes it in the end.

    `id` names its run: `client.handle(session.id)`. `ended` is None while it is open. Tasks may share it: messages are sent in the order
    of the calls. Iterate in one task.
    """

    def __init__(self, wire: "Wire", flows: Flows, opening: Opening) -> None:
        self.id = ""
        self.ended: SessionEnd | None = None
        self._wire = wire
        self._flows = flows
        self._opening = opening
        self._frames = Connection(ConnectionType.CLIENT)
        self._response: Any = None  # what httpcore returned, once it is open
        self._pool: Any = None
        self._is_used = False
        self._reader: asyncio.Task[None] | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._held: deque[str | bytes] = deque()
        self._held_bytes = 0
        self._parts: list[Any] = []  # of the message that is arriving
        self._parts_bytes = 0
        self._closing = False
        self._changed = asyncio.Event()  # something was received, or it is over
        self._room = asyncio.Event()

    async def open(self) -> Self:
        """Open it. On the platform it is open before a worker has it; messages wait until then. `GatewayError` when it is refused."""
        if self._is_used:
            raise RuntimeError("this session was opened before; make another one")
        self._is_used = True
        flow = opened_session(self._flows, self._opening, CONNECT_TIMEOUT_S)
        try:
            effect = next(flow)
            while True:
                match effect:
                    case Open(request):
                        try:
                            answer = await self._handshake(request)
                        except LostError as lost:
                            effect = flow.throw(lost)
                        else:
                            effect = flow.send(answer)
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                        effect = flow.send(None)
                    case _:
                        raise AssertionError(effect)
        except StopIteration as stop:
            self.id = stop.value
        except BaseException:
            await self._drop()
            raise
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def send(self, data: str | bytes | bytearray | memoryview) -> None:
        """Send one message: text, or bytes. Waits while the handler has no room. `SessionError` when the session is over."""
        event = TextMessage(data=data) if isinstance(data, str) else BytesMessage(data=bytes(data))
        size_bytes = len(event.data.encode() if isinstance(event.data, str) else event.data)
        if size_bytes > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {size_bytes} bytes; at most {MAX_MESSAGE_BYTES} are possible, send it in pieces")
        self._check_open()
        await self._write(event)

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON text: plain values, Structs, dataclasses."""
        await self.send(msgspec.json.encode(value).decode())

    async def receive(self) -> str | bytes:
        """The next message: text as `str`, binary as `bytes`. `SessionError` when the session is over, however it ended."""
        while not self._held:
            if self.ended is not None or self._closing:
                raise error_of(self.ended or SessionEnd(NORMAL), self.id)
            if self._reader is None:
                raise RuntimeError("open the session first: async with client.session(...) as session")
            self._changed.clear()
            await self._changed.wait()
        message = self._held.popleft()
        self._held_bytes -= len(message)
        self._room.set()
        return message

    @overload
    async def receive_json(self, output: type[T]) -> T: ...
    @overload
    async def receive_json(self, output: None = None) -> Any: ...
    async def receive_json(self, output: Any = None) -> Any:
        """The next message, decoded as JSON; as an object of type `output`, if given."""
        message = await self.receive()
        return msgspec.json.decode(message) if output is None else msgspec.json.decode(message, type=output)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except Exception:
            if (self.ended is not None and self.ended.is_normal) or self._closing:
                raise StopAsyncIteration from None
            raise

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End the session: the handler reads what was sent, and then its iteration ends. Does nothing when it is over."""
        await self._close(code, reason, CLOSE_S)

    async def leave(self) -> None:
        """End the session because this program is leaving: its handler is told, and not waited for long."""
        await self._close(GOING_AWAY, "", LEAVE_S)

    async def _close(self, code: int, reason: str, patience_s: float) -> None:
        if self._reader is None:
            await self._drop()
            return
        if not self._closing and self.ended is None:
            self._closing = True
            self._held.clear()
            self._changed.set()
            self._room.set()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._write(CloseConnection(code=code, reason=reason)), patience_s)
        await asyncio.wait({self._reader}, timeout=patience_s)
        await self._drop()
        if self.ended is None:
            self._end(SessionEnd(code, reason))

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, kind: type[BaseException] | None, exc: object, trace: object) -> None:
        # In a task of its own: if this one is being cancelled, the Close frame must still go out.
        await asyncio.shield(asyncio.ensure_future(self.close() if kind is None else self.leave()))

    def __repr__(self) -> str:
        return f"AsyncSession({self.id!r})"

    async def _handshake(self, request: Request) -> Answer:
        await self._drop()
        self._pool, self._response, answer = await self._wire.upgrade(request)
        return answer

    def _check_open(self) -> None:
        if self.ended is not None or self._closing:
            raise error_of(self.ended or SessionEnd(NORMAL), self.id)
        if self._reader is None:
            raise RuntimeError("open the session first: async with client.session(...) as session")

    async def _write(self, event: Event) -> None:
        """Write a frame whole, even if the caller is cancelled meanwhile: half a frame would end the session."""
        task = asyncio.ensure_future(self._written(event))
        self._writing.add(task)
        task.add_done_callback(self._done_writing)
        await asyncio.shield(task)

    def _done_writing(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever sent it was told, unless cancelled

    async def _written(self, event: Event) -> None:
        async with self._turn:
            if self._response is None:
                raise error_of(self.ended or SessionEnd(NORMAL), self.id)
            try:
                data = self._frames.send(event)
            except LocalProtocolError:
                raise error_of(self.ended or SessionEnd(NORMAL), self.id) from None
            try:
                with self._wire.losses():
                    await self._response.extensions["network_stream"].write(data)
            except LostError:
                self._end(SessionEnd(LOST, "connection_lost"))
                assert self.ended is not None
                raise error_of(self.ended, self.id) from None

    async def _read(self) -> None:
        try:
            await self._read_all()
        except (LostError, SessionError):
            pass  # told by `_end`
        finally:
            self._end(SessionEnd(LOST, "connection_lost"))

    async def _read_all(self) -> None:
        stream = self._response.extensions["network_stream"]
        is_pinged = False
        while self._frames.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
            try:
                with self._wire.losses():
                    data = await stream.read(READ_BYTES, SILENCE_S)
            except LostError as lost:
                if not lost.silent or is_pinged:
                    raise
                is_pinged = True
                await self._write(Ping())
                continue
            is_pinged = False
            if not data:
                return
            self._frames.receive_data(data)
            for event in self._frames.events():
                if await self._handle(event):
                    return

    async def _handle(self, event: Event) -> bool:
        """Take one event; True when it was the last one."""
        match event:
            case TextMessage() | BytesMessage():
                await self._add(event)
            case Ping():
                with contextlib.suppress(Exception):
                    await self._write(event.response())
            case CloseConnection():
                # The code that counts is that of the side that closed first.
                if not self._closing:
                    self._end(SessionEnd(int(event.code), event.reason or ""))
                    with contextlib.suppress(Exception):
                        await self._write(event.response())
                else:
                    self._end(SessionEnd(NORMAL))
                return True
        return False

    async def _add(self, event: TextMessage | BytesMessage) -> None:
        if self._closing:
            return
        part = event.data if isinstance(event.data, str) else bytes(event.data)
        self._parts.append(part)
        self._parts_bytes += len(part)
        if self._parts_bytes > MAX_MESSAGE_BYTES:
            self._parts, self._parts_bytes = [], 0
            await self._write(CloseConnection(code=TOO_LARGE, reason="frame_too_large"))
            self._end(SessionEnd(TOO_LARGE, "frame_too_large"))
            return
        if not event.message_finished:
            return
        message: str | bytes = ("" if isinstance(part, str) else b"").join(self._parts)
        self._parts, self._parts_bytes = [], 0
        self._held.append(message)
        self._held_bytes += len(message)
        self._changed.set()
        while not self._closing and (self._held_bytes > HELD_BYTES or len(self._held) >= HELD_MESSAGES):
            self._room.clear()
            await self._room.wait()

    def _end(self, end: SessionEnd) -> None:
        if self.ended is None:
            self.ended = end
        self._changed.set()
        self._room.set()

    async def _drop(self) -> None:
        """Close the connection."""
        reader, self_task = self._reader, asyncio.current_task()
        if reader is not None and reader is not self_task and not reader.done():
            reader.cancel()
            await asyncio.wait({reader})
        response, self._response = self._response, None
        pool, self._pool = self._pool, None
        if response is not None:
            with contextlib.suppress(LostError), self._wire.losses():
                await response.aclose()
        if pool is not None:
            await pool.aclose()
