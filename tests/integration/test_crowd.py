"""Which connection is closed for a new one when a server has no more room: an idle one, never one that is sending or being answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from gen_worker.http.connection import Connection
from gen_worker.http.crowd import ConnectionLimits, Crowd

PLACES = 4
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server:
    """Answers with the length of a body; under /held only once `release` is set, and then it looks at the body."""

    def __init__(self, port: int, release: asyncio.Event) -> None:
        self.port = port
        self.release = release
        self.held = asyncio.Semaphore(0)
        self.writers: list[asyncio.StreamWriter] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/held":
            self.held.release()
            await self.release.wait()
        size_bytes, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size_bytes += len(message["body"])
            more = message["more_body"]
        body = str(size_bytes).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    async def begin(self, path: str, length: int, sent: int) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode() + b"a" * sent)
        self.writers.append(writer)
        return reader, writer

    async def status(self, client: Client) -> int:
        return int((await client[0].readline()).split()[1])

    async def until_answered(self) -> None:
        """A whole request on a new connection, until there is a place."""
        async with asyncio.timeout(60):
            while True:
                client = await self.begin("/", 5, 5)
                status = await self.status(client)
                if status == 200:
                    return
                assert status == 503
                await asyncio.sleep(0.02)  # waits: a body counts as stalled after a while


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    crowd = Crowd(ConnectionLimits(connections=PLACES))
    state = SimpleNamespace(connections=set(), tasks=set())
    found = Server(0, asyncio.Event())
    server = await asyncio.get_running_loop().create_server(lambda: Connection(found.app, crowd, state), "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for writer in found.writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_who_sends_or_is_answered_keeps_its_place() -> None:
    async with serving() as server:
        fast = await server.begin("/", 200_000_000, 10_000_000)  # far ahead of the rate that is asked for, for minutes
        answered = await server.begin("/held", 5, 5)
        not_taken = await server.begin("/held", 100_000, 50_000)  # it is the function that does not take what came
        for _ in "ab":
            await server.held.acquire()
        await fast[1].drain()
        stalled = await server.begin("/", 1000, 10)
        await server.until_answered()
        assert await server.status(stalled) == 408
        assert b"others waited for a connection" in await stalled[0].read()
        for _ in range(3):
            await server.until_answered()
        server.release.set()
        assert await server.status(answered) == 200
        not_taken[1].write(b"a" * 50_000)
        assert await server.status(not_taken) == 200
        assert not fast[0].at_eof()


async def test_who_is_idle_for_longer_than_a_body_stalls_goes_first() -> None:
    async with serving() as server:
        idle = await server.begin("/", 5, 5)
        assert await server.status(idle) == 200
        clients = [await server.begin("/", 1000, number) for number in range(PLACES - 1)]
        await server.until_answered()
        await asyncio.wait_for(idle[0].read(), 60)  # to its end
        first = asyncio.create_task(server.status(clients[0]))
        while not first.done():
            await server.until_answered()
        assert await first == 408


async def test_where_all_are_at_work_a_new_one_is_refused() -> None:
    async with serving() as server:
        held = [await server.begin("/held", 5, 5) for _ in range(PLACES)]
        for _ in held:
            await server.held.acquire()
        refused = await server.begin("/", 5, 5)
        assert await server.status(refused) == 503
        server.release.set()
        assert [await server.status(client) for client in held] == [200] * PLACES
