"""A connected pair of streams in one process, for tests and for a worker inside its scheduler's process."""

import asyncio
from collections import deque

from gen_worker.transport.stream import Ended, Lost, StreamOverError


class _Pipe:
    """One direction: bounded, in order."""

    def __init__(self, capacity: int) -> None:
        self.items: deque[bytes] = deque()
        self.capacity = capacity
        self.changed = asyncio.Condition()
        self.over: Ended | None = None


class MemoryStream:
    """One end of a pair. `cut` breaks both ends; `finish` ends the stream the way a server does."""

    def __init__(self, out: _Pipe, into: _Pipe) -> None:
        self._out = out
        self._in = into

    async def send(self, data: bytes) -> None:
        pipe = self._out
        async with pipe.changed:
            await pipe.changed.wait_for(lambda: pipe.over is not None or len(pipe.items) < pipe.capacity)
            if pipe.over is not None:
                raise StreamOverError(str(pipe.over))
            pipe.items.append(data)
            pipe.changed.notify_all()

    async def receive(self) -> bytes | None:
        pipe = self._in
        async with pipe.changed:
            await pipe.changed.wait_for(lambda: pipe.over is not None or bool(pipe.items))
            if not pipe.items:
                return None
            data = pipe.items.popleft()
            pipe.changed.notify_all()
            return data

    @property
    def ended(self) -> Ended:
        return self._in.over or Lost("open")

    async def finish(self, ended: Ended | None = None) -> None:
        """End the stream; messages already sent still arrive."""
        for pipe in (self._in, self._out):
            async with pipe.changed:
                pipe.over = pipe.over or ended or Lost("OK", by_peer=True)
                pipe.changed.notify_all()

    async def cut(self) -> None:
        """Break the stream; messages in transit are lost."""
        for pipe in (self._in, self._out):
            async with pipe.changed:
                pipe.items.clear()
                pipe.over = pipe.over or Lost("connection cut")
                pipe.changed.notify_all()


def memory_pair(capacity: int = 64) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of one stream; each direction holds `capacity` messages."""
    forth, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(forth, back), MemoryStream(back, forth)
