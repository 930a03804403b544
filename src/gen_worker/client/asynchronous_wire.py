"""Carries out flows on an event loop, over httpcore's connections."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any, Generic, TypeVar

import msgspec

from gen_worker.client.address import answer_of, lost, pool_options, read_address, to_httpcore
from gen_worker.client.effects import Answer, Close, Effect, Flow, Give, LostError, Open, Pause, Read, Request, Send
from gen_worker.client.settings import CONNECT_TIMEOUT_S

T = TypeVar("T")


class Driven(Generic[T]):
    """A running flow. `result` is set when `gives` has ended."""

    result: T

    def __init__(self, wire: "Wire", flow: Flow[T]) -> None:
        self._wire = wire
        self._flow = flow
        self._stream: Stream | None = None

    async def gives(self) -> AsyncGenerator[Any, None]:
        """The values that the flow yields."""
        flow = self._flow
        try:
            effect = next(flow)
            while True:
                reply: Any = None
                try:
                    if isinstance(effect, Give):
                        yield effect.value
                    else:
                        reply = await self._do(effect)
                except LostError as exc:
                    effect = flow.throw(exc)
                else:
                    effect = flow.send(reply)
        except StopIteration as stop:
            self.result = stop.value
        finally:
            flow.close()
            if self._stream is not None:
                await self._stream.close()

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Send(request):
                return await self._wire.send(request)
            case Open(request):
                self._stream = await self._wire.open(request)
                return self._stream.answer
            case Read() if self._stream is not None:
                return await self._stream.read()
            case Close() if self._stream is not None:
                await self._stream.close()
            case Pause(seconds):
                await asyncio.sleep(seconds)
        return None


class Stream:
    """An answer whose body is read piece by piece."""

    def __init__(self, wire: "Wire", response: Any, place: asyncio.Semaphore) -> None:
        self.answer = answer_of(response, b"")
        self._wire = wire
        self._response = response
        self._place: asyncio.Semaphore | None = place
        self._pieces = response.aiter_stream()

    async def read(self) -> bytes:
        with self._wire.losses():
            async for piece in self._pieces:
                if piece:
                    return bytes(piece)
        return b""

    async def close(self) -> None:
        place, self._place = self._place, None
        if place is None:
            return
        try:
            with contextlib.suppress(LostError), self._wire.losses():
                await self._response.aclose()
        finally:
            place.release()


class Wire:
    """Connections to one server, from one event loop.

    Requests that wait for a connection queue here: httpcore's own queue costs the square of its length.
    """

    def __init__(self, url: str, connections: int) -> None:
        import httpcore

        self._address = read_address(url)
        self._connections = connections
        self._options = pool_options(self._address, connections)
        self._make = httpcore.AsyncConnectionPool
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, request: Request) -> Answer:
        stream = await self.open(request)
        try:
            if not 200 <= stream.answer.status < 300:
                return stream.answer
            pieces = []
            while piece := await stream.read():
                pieces.append(piece)
            return msgspec.structs.replace(stream.answer, body=b"".join(pieces))
        finally:
            await stream.close()

    async def open(self, request: Request) -> Stream:
        pool, place = self._of_this_loop()
        content = request.content if isinstance(request.content, bytes) else _pieces(request.content)
        await place.acquire()
        try:
            with self.losses():
                response = await pool.handle_async_request(to_httpcore(request, self._address, content, CONNECT_TIMEOUT_S))
        except BaseException:
            place.release()
            raise
        stream = Stream(self, response, place)
        if not 200 <= response.status < 300:
            try:
                with self.losses():
                    stream.answer = answer_of(response, await response.aread())
            finally:
                await stream.close()
        return stream

    async def upgrade(self, request: Request) -> tuple[Any, Any, Answer]:
        """Ask for a websocket, on a connection of its own: its pool, the response that holds the connection (None unless
        the answer is 101), and the answer. The caller closes both.
        """
        pool = self._make(**{**self._options, "max_connections": 1})
        response = None
        try:
            with self.losses():
                response = await pool.handle_async_request(to_httpcore(request, self._address, request.content, CONNECT_TIMEOUT_S))
                if response.status == 101:
                    return pool, response, answer_of(response, b"")
                answer = answer_of(response, await response.aread())
        except BaseException:
            await self._closed(pool, response)
            raise
        await self._closed(pool, response)
        return None, None, answer

    async def _closed(self, pool: Any, response: Any) -> None:
        if response is not None:
            with contextlib.suppress(LostError), self.losses():
                await response.aclose()
        await pool.aclose()

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    def _of_this_loop(self) -> tuple[Any, asyncio.Semaphore]:
        loop = asyncio.get_running_loop()
        if self._pool is None or self._loop is not loop:  # connections do not outlive their loop, and asyncio.run may be called twice
            self._loop, self._pool = loop, self._make(**self._options)
            self._places = asyncio.Semaphore(self._connections)
        return self._pool, self._places

    @contextlib.contextmanager
    def losses(self) -> Any:
        """Converts httpcore's exceptions into `LostError`."""
        try:
            yield
        except Exception as exc:
            raise lost(exc, self._address) from exc


async def _pieces(content: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A body read from disk without blocking the loop."""
    pieces = iter(content)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
