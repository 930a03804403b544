"""A load generator over kept-alive HTTP/1.1 connections: one process, raw sockets, so that the server is what is measured."""

import asyncio
import time
from dataclasses import dataclass

import uvloop


@dataclass
class Result:
    """Requests per second over the whole run, latencies in milliseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float


class _Connection(asyncio.Protocol):
    def __init__(self, load: "_Load") -> None:
        self.load = load
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        headers = bytes(self.buffer[:head]).lower()
        assert headers.startswith(b"http/1.1 200"), bytes(self.buffer[:600])
        at = headers.find(b"content-length:")
        if at < 0:
            if not self.buffer.endswith(b"0\r\n\r\n"):
                return
        elif len(self.buffer) < head + 4 + int(headers[at + 15 : headers.find(b"\r\n", at) if b"\r\n" in headers[at:] else None]):
            return
        self.buffer.clear()
        self.load.done(time.perf_counter() - self.began)
        if self.load.left > 0:
            self.load.left -= 1
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.closed()


class _Load:
    def __init__(self, request: bytes, count: int, concurrency: int) -> None:
        self.request = request
        self.left = count - concurrency
        self.open = concurrency
        self.latencies: list[float] = []
        self.end = asyncio.get_running_loop().create_future()

    def done(self, seconds: float) -> None:
        self.latencies.append(seconds)

    def closed(self) -> None:
        self.open -= 1
        if self.open == 0:
            self.end.set_result(None)


def request_bytes(path: str, body: bytes, accept: str = "*/*") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: {accept}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def run_load(port: int, request: bytes, count: int, concurrency: int) -> Result:
    """Send `count` requests over `concurrency` connections, each one when the last was answered."""

    async def main() -> Result:
        load = _Load(request, count, concurrency)
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        for _ in range(concurrency):
            await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port)
        await load.end
        seconds = time.perf_counter() - began
        times = sorted(load.latencies)
        return Result(len(times) / seconds, times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000)

    return uvloop.run(main())
