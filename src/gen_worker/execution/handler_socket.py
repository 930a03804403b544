"""The handler's end of a realtime session: frames in order, none lost, bounded in both directions.

    client's side (executor's loop)                          handler's side (tenant's loop)
    frame_in -> [at most 256 frames or 17 MiB] ------------> iter_bytes
    Client.send <- [at most 64 frames or 1 MiB] <----------- send_bytes, send_json: they wait while the client does not take frames

The two sides share deques and counters. Each counter has one writer, and each side wakes the other only when it waits.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import msgspec

from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.realtime import RealtimeSocket
from gen_worker.execution.mailbox import Mailbox
from gen_worker.texts import class_name
from gen_worker.wire.realtime import WINDOW_BYTES, WINDOW_FRAMES

INBOUND_FRAMES = WINDOW_FRAMES
OUTBOUND_FRAMES = 64
OUTBOUND_BYTES = 1 << 20
_encode_json = msgspec.json.Encoder(order="sorted").encode


class FrameSink(Protocol):
    """Receives what a handler sends, and is told what it reads, on the executor's loop."""

    @property
    def largest_bytes(self) -> int:
        """The maximum size of a frame in bytes. Read from the handler's thread."""
        ...

    def send(self, data: bytes, *, is_text: bool, taken: Callable[[], None]) -> None:
        """Pass on one frame; call `taken` once it is on its way."""
        ...

    def took(self, size_bytes: int) -> None:
        """The handler has begun to work on the next waiting frame, which has this size."""
        ...


class HandlerSocket(RealtimeSocket):
    """`frame_in` and the other parts of the executor's side have no underscore and are not in `RealtimeSocket`."""

    def __init__(self, sink: FrameSink, mailbox: Mailbox) -> None:
        self.closed_by_handler = False
        self.waiting = 0  # frames received that the handler has not begun to work on
        self.waiting_bytes = 0
        self._working_since_s: float | None = None
        self._sink = sink
        self._mailbox = mailbox
        self._ctx: ActionContext | None = None
        self._left = False
        self._ended = False
        self._inbound: deque[bytes] = deque()
        self._sent = self._sent_bytes = 0
        self._taken = self._taken_bytes = 0
        self._news = _Bell()
        self._room = _Bell()

    # The handler's side.

    async def send_bytes(self, data: bytes) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"send_bytes takes bytes, got {class_name(data)}; encode it first, or send it by send_json")
        await self._send(bytes(data), is_text=False)

    async def send_json(self, obj: Any) -> None:
        await self._send(_encode_json(obj), is_text=True)

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        while True:
            while self._inbound:
                data = self._inbound.popleft()
                self._working_since_s = time.monotonic()
                self._mailbox.post(self._begun_with, len(data))
                yield data
            if self._is_over():
                return
            await self._wait(self._news, lambda: bool(self._inbound))

    async def close(self) -> None:
        self.closed_by_handler = True
        self._news.ring_here()
        self._room.ring_here()

    # The client's side.

    def begin(self, ctx: ActionContext) -> Callable[[], float | None]:
        """The handler is about to be called with this context. Returns a function: since when the handler has been
        working (monotonic seconds), None while it waits.
        """
        self._ctx = None if self._ended else ctx
        self._working_since_s = time.monotonic()
        if self._left:
            ActionContext.cancel(ctx)
        return lambda: self._working_since_s

    def frame_in(self, data: bytes, max_frames: int = INBOUND_FRAMES) -> bool:
        """A frame for the handler; returns False and does not accept it when too many wait already."""
        if self.waiting >= max_frames or (self.waiting and self.waiting_bytes + len(data) > WINDOW_BYTES):
            return False
        self.waiting += 1
        self.waiting_bytes += len(data)
        self._inbound.append(data)
        self._news.ring()
        return True

    def leave(self) -> None:
        """The client has left. The handler reads the frames that arrived, then its iteration ends. What it sends is dropped."""
        self._left = True
        if self._ctx is not None:
            ActionContext.cancel(self._ctx)  # called on the class, because the author may have changed the instance
        self.end()

    def end(self) -> None:
        """No more frames arrive, and none are sent."""
        self._ended = True
        self._ctx = None  # it refers back to the run
        self._news.ring()
        self._room.ring()

    def _begun_with(self, size_bytes: int) -> None:
        self.waiting -= 1
        self.waiting_bytes -= size_bytes
        self._sink.took(size_bytes)

    async def _send(self, data: bytes, *, is_text: bool) -> None:
        self._working_since_s = time.monotonic()
        largest_bytes = self._sink.largest_bytes
        if len(data) > largest_bytes:
            # Raise here, at the author's line: a value that cannot be sent must not get lost silently.
            raise ValueError(f"a frame of {len(data)} bytes; at most {largest_bytes} are sent. Send it in pieces, or save a file instead")
        while not self._is_over() and not self._has_room(len(data)):
            await self._wait(self._room, lambda: self._has_room(len(data)))
        if self._is_over():
            return
        self._sent += 1
        self._sent_bytes += len(data)
        self._mailbox.post(self._deliver, data, is_text)

    def _deliver(self, data: bytes, is_text: bool) -> None:
        if not self._ended:
            self._sink.send(data, is_text=is_text, taken=lambda: self._was_taken(len(data)))

    def _was_taken(self, size_bytes: int) -> None:
        self._taken += 1
        self._taken_bytes += size_bytes
        self._room.ring()

    async def _wait(self, bell: "_Bell", is_there: Callable[[], bool]) -> None:
        self._working_since_s = None
        await bell.wait(lambda: is_there() or self._is_over())
        self._working_since_s = time.monotonic()

    def _is_over(self) -> bool:
        return self._ended or self.closed_by_handler

    def _has_room(self, size_bytes: int) -> bool:
        """Whether a frame may be sent now. A single frame always may, whatever its size."""
        frames, waiting_bytes = self._sent - self._taken, self._sent_bytes - self._taken_bytes
        return not frames or (frames < OUTBOUND_FRAMES and waiting_bytes + size_bytes <= OUTBOUND_BYTES)


class _Bell:
    """Wakes the handler's tasks from the executor's loop. It rings only for tasks that wait, because a wake-up is expensive."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted = False

    async def wait(self, is_there: Callable[[], bool]) -> None:
        """Wait for the next ring, unless `is_there()` already holds."""
        self._loop = asyncio.get_running_loop()
        self._event.clear()
        # Register before looking: something that comes between the look and the wait then rings.
        self._wanted = True
        if not is_there():
            await self._event.wait()

    def ring(self) -> None:
        loop = self._loop
        if self._wanted and loop is not None:
            self._wanted = False
            with contextlib.suppress(RuntimeError):  # the author has closed the loop that the handler waited on
                loop.call_soon_threadsafe(self._event.set)

    def ring_here(self) -> None:
        """Ring from the handler's own loop."""
        self._event.set()
