"""Load over kept-alive HTTP/1.1 connections, so that the server is what is measured: wrk, or where it is not installed raw sockets.

wrk (a package of Debian) is native: it takes little of the processors that it shares with the server, and its own pauses do not hide the
server's. The Python generator takes as much of them as the server does, which flatters servers of one process and hides tails.
"""

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass

import uvloop


@dataclass
class Result:
    """Requests per second over the whole run, latencies in milliseconds, processor time of the server a request in microseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    count: int = 0
    server_us: float = 0.0


class NoAnswerError(Exception):
    """There is nothing to measure."""


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
        if not times:
            raise NoAnswerError(f"no request was answered: all {concurrency} connections were closed")
        return Result(len(times) / seconds, times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000, len(times))

    return uvloop.run(main())


WRK = shutil.which("wrk")
_WRK_SCRIPT = """
wrk.method, wrk.body = "POST", %s
wrk.headers["content-type"] = "application/json"
function done(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('{"count":%%d,"us":%%d,"p50":%%f,"p99":%%f,"failed":%%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
"""


def run_wrk(port: int, path: str, body: bytes, seconds: float, concurrency: int) -> Result:
    """wrk on one thread for some seconds over `concurrency` connections."""
    assert WRK is not None
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_WRK_SCRIPT % json.dumps(body.decode()))
        script.flush()
        line = [
            WRK,
            "-t1",
            f"-c{concurrency}",
            f"-d{round(seconds)}s",
            "--timeout",
            "20s",
            "-s",
            script.name,
            f"http://127.0.0.1:{port}{path}",
        ]
        text = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    found = json.loads(text.splitlines()[-1])
    if found["failed"] or not found["count"]:
        raise NoAnswerError(f"{found['count']} requests were answered in {seconds:.0f} s, {found['failed']} failed:\n{text}")
    return Result(found["count"] / (found["us"] / 1e6), found["p50"] / 1000, found["p99"] / 1000, found["count"])
