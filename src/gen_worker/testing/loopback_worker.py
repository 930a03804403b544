"""A worker's stream as a loopback scheduler sees it, and the client's end of a realtime session on it."""

import asyncio
from collections import deque

from gen_worker.transport.grpc_server import ServerStream
from gen_worker.transport.stream import StreamOverError
from gen_worker.wire import codec
from gen_worker.wire.messages import (
    REALTIME_CREDIT,
    CloseRealtime,
    RealtimeFrame,
    Registration,
    Resources,
    Single,
)
from gen_worker.wire.scheduler_session import SchedulerSession

ACK_DELAY_S = 0.005
FINISH_TIMEOUT_S = 1.0
SEND_BYTES = 256 << 10


class LoopbackWorker:
    """A worker's stream."""

    def __init__(self, stream: ServerStream, session: SchedulerSession) -> None:
        self.stream = stream
        self.session = session
        self.registrations: list[Registration] = []
        self.writer: asyncio.Task[None] | None = None
        self._raw: deque[bytes] = deque()
        self._closing = False
        self._news = asyncio.Event()
        self._ack_timer: asyncio.TimerHandle | None = None

    @property
    def resources(self) -> Resources:
        return self.registrations[-1].resources

    @property
    def counts_frames(self) -> bool:
        return REALTIME_CREDIT in self.session.extensions

    def send(self, message: Single) -> None:
        """Send any message, as it is."""
        self.session.send(message)
        self._news.set()

    def send_raw(self, data: bytes) -> None:
        """Send bytes as a message, whatever they are."""
        self._raw.append(data)
        self._news.set()

    def poke(self) -> None:
        """Something may be there to send."""
        if self.session.is_urgent:
            self._news.set()
        elif self.session.owes and self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_DELAY_S, self._ack_now)

    async def write(self) -> None:
        """Send what there is, for as long as the stream lives."""
        try:
            while not self._closing:
                await self._news.wait()
                self._news.clear()
                while self._raw:
                    await self.stream.send(self._raw.popleft())
                while (message := self.session.outgoing(SEND_BYTES)) is not None:
                    await self.stream.send(codec.encode(message))
                if self._ack_timer is not None and not self.session.owes:
                    self._ack_timer.cancel()  # the acknowledgement went along
                    self._ack_timer = None
        except StreamOverError:
            return

    async def finish(self) -> None:
        """Send what is owed, acknowledgements above all, and nothing after it."""
        self._closing = True
        self._news.set()
        if self.writer is not None:
            await asyncio.wait([self.writer], timeout=FINISH_TIMEOUT_S)

    def _ack_now(self) -> None:
        self._ack_timer = None
        self._news.set()


class LoopbackRealtime:
    """The client's end of a realtime session."""

    def __init__(self, worker: LoopbackWorker, session_id: str) -> None:
        self.session_id = session_id
        self.reason: str | None = None
        self.worker = worker
        self.frames: asyncio.Queue[RealtimeFrame | None] = asyncio.Queue()
        self._credit = 0
        self._credited = asyncio.Event()

    async def send(self, data: bytes, *, is_text: bool = False) -> None:
        """Send a frame; waits for the handler's credit, where the worker gives any. `ConnectionError` once the session is over."""
        while self.worker.counts_frames and self._credit <= 0 and self.reason is None:
            self._credited.clear()
            await self._credited.wait()
        if self.reason is not None:
            raise ConnectionError(f"the session is over: {self.reason}")
        self._credit -= 1
        self.worker.send(RealtimeFrame(self.session_id, data, is_text))

    async def receive(self, timeout_s: float = 30) -> RealtimeFrame | None:
        """The next frame; None when the session is over."""
        async with asyncio.timeout(timeout_s):
            return await self.frames.get()

    async def close(self, timeout_s: float = 30) -> str:
        """Leave, and wait for the worker's word on how the session ended."""
        self.worker.send(CloseRealtime(self.session_id, "client_left"))
        async with asyncio.timeout(timeout_s):
            while self.reason is None and await self.frames.get() is not None:
                pass
        return self.reason or ""

    def grant(self, frames: int) -> None:
        """The handler takes so many more frames."""
        self._credit += frames
        self._credited.set()

    def end(self, reason: str) -> None:
        """The worker has ended the session."""
        self.reason = reason
        self.frames.put_nowait(None)
        self._credited.set()
