"""A TCP proxy on 127.0.0.1 that cuts, freezes and redirects connections, like a bad network."""

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Passes bytes on to `target` until told otherwise."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.connections = 0
        self.cut_after: int | None = None  # bytes from the dialling side, for the next connection
        self.refuse = False
        self._open: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Reset all connections."""
        for pair in list(self._open):
            self._reset(pair)

    def freeze(self) -> None:
        """Pass nothing on, in either direction, and say nothing about it: a half-open connection."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            if self.refuse:
                raise OSError("refused")
            host, _, port = self.target.rpartition(":")
            up_reader, up_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        pair = (writer, up_writer)
        self._open.add(pair)
        limit, self.cut_after = self.cut_after, None
        await asyncio.gather(self._pass(reader, up_writer, pair, limit), self._pass(up_reader, writer, pair, None))

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        limit: int | None,
    ) -> None:
        passed = 0
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                if limit is not None and passed + len(data) > limit:
                    writer.write(data[: limit - passed])
                    await writer.drain()
                    await asyncio.sleep(0.01)  # waits: nothing depends on it; mostly, what was passed on arrives before the reset
                    break
                passed += len(data)
                writer.write(data)
                await writer.drain()
        except (OSError, ConnectionError):
            pass
        self._reset(pair)

    def _reset(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        if pair in self._open:
            self._open.discard(pair)
            for writer in pair:
                sock = writer.get_extra_info("socket")
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
