"""A worker's stream as a loopback scheduler sees it, and the client's end of a realtime session on it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from gen_worker.transport.grpc_server import ServerStream
from gen_worker.transport.worker_stream import Memories, Take, WorkerStream
from gen_worker.wire.messages import CloseRealtime, Message, RealtimeCredit, RealtimeFrame, Registration


class LoopbackWorker(WorkerStream):
    """A worker's stream, with additions for tests: all registrations, and a way to send anything."""

    def __init__(self, stream: ServerStream, memories: Memories, *, extensions: bool, on_message: Callable[[Any], None]) -> None:
        super().__init__(stream, memories, extensions=extensions)
        self.registrations: list[Registration] = []
        self._on_message = on_message
        self._raw: deque[bytes] = deque()

    def send_raw(self, data: bytes) -> None:
        """Send bytes as a message, whatever they are."""
        self._raw.append(data)
        self._news.set()

    def _receive(self, message: Message, take: Take) -> bool:
        self._on_message(message)
        return super()._receive(message, take)

    def _outgoing(self) -> bytes | None:
        return self._raw.popleft() if self._raw else super()._outgoing()


class LoopbackRealtime:
    """The client's end of a realtime session."""

    def __init__(self, worker: LoopbackWorker, session_id: str) -> None:
        self.session_id = session_id
        self.reason: str | None = None
        self.worker = worker
        self.frames: asyncio.Queue[RealtimeFrame | None] = asyncio.Queue()
        self.credit = 0
        self._credited = asyncio.Event()

    async def send(self, data: bytes, *, is_text: bool = False) -> None:
        """Send a frame; waits for the handler's credit if the worker gives any. `ConnectionError` once the session is over."""
        while self.worker.counts_frames and self.credit <= 0 and self.reason is None:
            self._credited.clear()
            await self._credited.wait()
        if self.reason is not None:
            raise ConnectionError(f"the session is over: {self.reason}")
        self.credit -= 1
        self.worker.send(RealtimeFrame(self.session_id, data, is_text))

    async def receive(self, timeout_s: float = 30) -> RealtimeFrame | None:
        """The next frame; None when the session is over."""
        async with asyncio.timeout(timeout_s):
            frame = await self.frames.get()
        if frame is not None and self.worker.counts_frames_back:
            self.worker.send(RealtimeCredit(self.session_id, 1))
        return frame

    async def close(self, timeout_s: float = 30) -> str:
        """Leave, and wait for the worker's report of how the session ended."""
        self.worker.send(CloseRealtime(self.session_id, "client_left"))
        async with asyncio.timeout(timeout_s):
            while self.reason is None and await self.receive() is not None:
                pass
        return self.reason or ""

    def grant(self, frames: int) -> None:
        """The handler can take this many more frames."""
        self.credit += frames
        self._credited.set()

    def end(self, reason: str) -> None:
        """The worker has ended the session."""
        self.reason = reason
        self.frames.put_nowait(None)
        self._credited.set()
