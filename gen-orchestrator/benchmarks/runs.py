"""Durable runs through `cozyctl up`, worker and load generator on the same machine: what a run takes, beside servers that keep nothing.

    python gen-orchestrator/benchmarks/runs.py [--seconds 5] [--rounds 3] [--clients 1,16,64] [--peers litserve,ray]
        [--peers-python PYTHON] [--only unary,rest]

wrk calls `echo` of `benchmarks/endpoint` with 1, 16 and 64 clients, and `quick`, which is the same with `durable = false`. In turns with them:
the bare bones of the same path (`benchmarks/servers/bare_runs_server.py`), and servers that keep nothing, where they are installed, be it in an
environment of their own (`--peers-python`). Then: accepting at 500 runs/s, streams, memory, and what 20,000 kept runs do to new ones. Processor
time a run, of the orchestrator and of its workers, hardly depends on who else is at work; requests/s and latencies do, so the load is printed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "benchmarks"
sys.path.insert(0, str(SHARED))

from load import WRK, Result, request_bytes, run_wrk  # noqa: E402
from servers_under_test import Server, python_with, version_in  # noqa: E402

from gen_orchestrator.auth.worker_tokens import WorkerClaims, WorkerTokens  # noqa: E402
from gen_worker.transport.grpc_client import GrpcDialer, Tls  # noqa: E402
from gen_worker.wire import codec  # noqa: E402
from gen_worker.wire.messages import EXTENSIONS, Registration  # noqa: E402

BODY = b'{"prompt":"a red kite over the sea"}'
FUNCTION = "/v1/local/bench/%s:dev"
DELTAS = 200
PEERS = "litserve,ray"
BARE = "bare_runs"
WORKERS = 100


class Platform:
    """`cozyctl up` with the benchmarks' endpoint, in a process of its own."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gen-orchestrator-bench-")
        path = Path(self._folder.name)
        cozyctl = Path(sys.executable).with_name("cozyctl")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.workers = f"127.0.0.1:{probe.getsockname()[1]}"
        self.data = path / "data"
        line = [
            str(cozyctl),
            "up",
            str(SHARED / "endpoint"),
            "--listen",
            "127.0.0.1:0",
            "--worker-listen",
            self.workers,
            "--data",
            str(self.data),
            "--json",
        ]
        began_s = time.perf_counter()
        self._errors = (path / "stderr").open("w")
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        assert self.process.stdout is not None
        said: dict[str, Any] = {}
        while said.get("event") != "ready":
            text = self.process.stdout.readline()
            assert text, (path / "stderr").read_text()
            said = json.loads(text)
        self.port = int(said["url"].rpartition(":")[2])
        self.sock = socket.create_connection(("127.0.0.1", self.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = json.loads(self.call(request_bytes(FUNCTION % "echo", BODY)).partition(b"\r\n\r\n")[2])
        assert answer["status"] == "succeeded", answer
        self.first_answer_s = time.perf_counter() - began_s

    def call(self, request: bytes) -> bytes:
        """One answer that has a content-length, head and body."""
        self.sock.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.sock.recv(1 << 16)
        head = received.partition(b"\r\n\r\n")[0]
        size = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
        while len(received) < len(head) + 4 + size:
            received += self.sock.recv(1 << 16)
        return received

    def processor_s(self) -> tuple[float, float]:
        """Seconds of processor that the orchestrator and its workers have taken."""
        return _processor_s(self.process.pid), sum(_processor_s(pid) for pid in _children(self.process.pid))

    def resident_mb(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> None:
        self.sock.close()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            workers = _children(self.process.pid)
            self.process.kill()
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self._errors.close()
        self._folder.cleanup()


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:  # it has just ended
            continue
        if parent == pid:
            found += [int(folder.name), *_children(int(folder.name))]
    return found


def load(up: Platform, seconds: float, clients: int, function: str = "echo") -> tuple[Result, float, float]:
    """wrk's result, and microseconds of processor a run: orchestrator, workers."""
    before = up.processor_s()
    found = run_wrk(up.port, FUNCTION % function, BODY, seconds, clients)
    after = up.processor_s()
    node_us, workers_us = ((b - a) / found.count * 1e6 for a, b in zip(before, after, strict=True))
    return found, node_us, workers_us


def unary(seconds: float, rounds: int, peers: dict[str, str], counts: list[int]) -> None:
    print("| clients | server | runs/s | p50 ms | p99 ms | orchestrator us | workers us |\n|---|---|---|---|---|---|---|")
    for clients in counts:
        rows: dict[str, list[tuple[float, ...]]] = {}
        for _ in range(rounds):
            up = Platform()
            try:
                load(up, 2, clients)
                for label, function in (("cozyctl up", "echo"), ("cozyctl up, durable = false", "quick")):
                    found, node_us, workers_us = load(up, seconds, clients, function)
                    rows.setdefault(label, []).append((found.per_second, found.p50_ms, found.p99_ms, node_us, workers_us))
            finally:
                up.stop()
            for name, python in {BARE: sys.executable, **peers}.items():
                server = Server(name, python)
                try:
                    run_wrk(server.port, server.path, BODY, 1, clients)
                    before_s = server.processor_seconds()
                    found = run_wrk(server.port, server.path, BODY, seconds, clients)
                    all_us = (server.processor_seconds() - before_s) / found.count * 1e6
                finally:
                    server.stop()
                label = "bare bones of the same path" if name == BARE else f"{name} (keeps nothing)"
                rows.setdefault(label, []).append((found.per_second, found.p50_ms, found.p99_ms, all_us, 0.0))
        for name, results in rows.items():
            rate, p50, p99, node, workers = (statistics.median_low(values) for values in zip(*results, strict=True))
            print(f"| {clients} | {name} | {rate:.0f} | {p50:.2f} | {p99:.2f} | {node:.0f} | {workers:.0f} |", flush=True)
        bare = statistics.median_low([row[0] for row in rows["bare bones of the same path"]])
        print(
            f"| {clients} | of the bare bones | {statistics.median_low([row[0] for row in rows['cozyctl up']]) / bare:.2f} | | | | |",
            flush=True,
        )


def accepting(up: Platform, per_second: int, seconds: float) -> tuple[float, float]:
    """Milliseconds (p50, p99) from the moment at which a run was due to be sent to its 202, at a steady rate whatever the answers do."""
    body = request_bytes(FUNCTION % "echo", BODY).replace(b"\r\n\r\n", b"\r\nprefer: respond-async\r\n\r\n", 1)

    async def main() -> list[float]:
        times: list[float] = []
        free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        for _ in range(32):
            free.put_nowait(await asyncio.open_connection("127.0.0.1", up.port))

        async def one(due_s: float) -> None:
            reader, writer = await free.get()
            writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 202 " in head.split(b"\r\n")[0], head
            size = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1]
            await reader.readexactly(int(size))
            times.append(time.perf_counter() - due_s)
            free.put_nowait((reader, writer))

        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(round(per_second * seconds)):
                due_s = began_s + number / per_second
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                tasks.create_task(one(due_s))
        while not free.empty():
            free.get_nowait()[1].close()
        return sorted(times)

    times = asyncio.run(main())
    return times[len(times) // 2] * 1e3, times[int(len(times) * 0.99)] * 1e3


def streaming(up: Platform, count: int, function: str = "stream") -> tuple[float, float]:
    """Deltas a second through HTTP, one stream of 200 after the other, and the median milliseconds to the first."""
    request = request_bytes(FUNCTION % function, BODY, "text/event-stream")
    firsts, total_s = [], 0.0
    for _ in range(count):
        began_s = time.perf_counter()
        up.sock.sendall(request)
        received, first_s = b"", 0.0
        while not received.endswith(b"0\r\n\r\n"):
            received += up.sock.recv(1 << 18)
            if not first_s and b"event: output" in received:
                first_s = time.perf_counter() - began_s
        total_s += time.perf_counter() - began_s
        firsts.append(first_s)
        assert received.count(b"event: output") == DELTAS, received[-500:]
    return DELTAS * count / total_s, statistics.median(firsts) * 1e3


def queued_bytes(up: Platform, count: int) -> float:
    """Bytes that a waiting run takes in the orchestrator: `count` of them behind runs that sleep."""
    request = request_bytes(FUNCTION % "nap", BODY).replace(b"\r\n\r\n", b"\r\nprefer: respond-async\r\n\r\n", 1)
    for _ in range(256):  # as many as its worker takes at once
        up.call(request)
    before_mb = up.resident_mb()
    for _ in range(count):
        assert b" 202 " in up.call(request)[:20]
    return (up.resident_mb() - before_mb) * 1e6 / count


def worker_bytes(up: Platform, count: int) -> float:
    """Bytes that a connected worker takes in the orchestrator: `count` more of them, which serve nothing and say that they are there."""

    async def main() -> float:
        release_id = next(
            iter(json.loads(up.call(b"GET /v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").partition(b"\r\n\r\n")[2])["tags"])
        )["release_id"]
        tokens = WorkerTokens.from_folder(up.data)
        async with contextlib.AsyncExitStack() as streams:

            async def join(number: int) -> None:
                token = tokens.issue(WorkerClaims(f"bench-{number}", "local", release_id))
                stream = await streams.enter_async_context(GrpcDialer(Tls(use=False)).dial(up.workers, token, secure=False))
                await stream.send(codec.encode(Registration(protocol_major=1, extensions=EXTENSIONS, instance_id=f"bench-{number}")))
                await stream.receive()

            for number in range(10):  # what is taken once
                await join(number)
            before_mb = up.resident_mb()
            for number in range(10, 10 + count):
                await join(number)
            return (up.resident_mb() - before_mb) * 1e6 / count

    return asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,16,64")
    parser.add_argument("--peers", default=PEERS)
    parser.add_argument(
        "--peers-python", default=str(Path(sys.prefix) / "peers" / "bin" / "python"), help="of an environment that has them"
    )
    parser.add_argument("--only", default="unary,rest", help="a part: unary or rest")
    args = parser.parse_args()
    if WRK is None:
        print("wrk is not installed, and nothing else measures tails truly (apt-get install wrk): skipped")
        return
    peers = {name: python for name in args.peers.split(",") if name and (python := python_with(name, args.peers_python))}
    versions = ", ".join(f"{name} {version_in(python, name)}" for name, python in peers.items())
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {versions or 'no peers'}; load average {os.getloadavg()[0]:.1f}\n"
    )
    if "unary" in args.only:
        unary(args.seconds, args.rounds, peers, [int(text) for text in args.clients.split(",")])
    if "rest" in args.only:
        rest(args.seconds)


def rest(seconds: float) -> None:
    """What is not requests/s."""
    up = Platform()
    rows = [("first answer after the start, s", f"{up.first_answer_s:.2f}"), ("orchestrator idle, MB", f"{up.resident_mb():.0f}")]
    try:
        p50_ms, p99_ms = accepting(up, 500, seconds)
        rows.append(("accepted at 500/s, p50 and p99 ms", f"{p50_ms:.2f}, {p99_ms:.2f}"))
        streaming(up, 20)
        rate, first_ms = streaming(up, 200)
        rows.append(("deltas/s of streams of 200, one after the other", f"{rate:.0f}"))
        rows.append(("first delta, p50 ms", f"{first_ms:.2f}"))
        rate, first_ms = streaming(up, 200, "tokens")
        rows.append(("the same with durable = false, and first delta, p50 ms", f"{rate:.0f}, {first_ms:.2f}"))
        fresh, _, _ = load(up, seconds, 16)
        kept = fresh.count
        while kept < 20_000:
            kept += load(up, 2, 64)[0].count
        aged, _, _ = load(up, seconds, 16)
        rows.append((f"p99 ms of 16 clients, few kept and {kept} kept", f"{fresh.p99_ms:.2f}, {aged.p99_ms:.2f}"))
        rows.append((f"orchestrator after {kept + aged.count} runs, MB", f"{up.resident_mb():.0f}"))
        rows.append(("bytes a queued run, of 700", f"{queued_bytes(up, 700):.0f}"))
        rows.append((f"bytes a connected worker, of {WORKERS}", f"{worker_bytes(up, WORKERS):.0f}"))
    finally:
        up.stop()
    print("\n| what | value |\n|---|---|")
    for what, value in rows:
        print(f"| {what} | {value} |")
    print(f"\nload average at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
