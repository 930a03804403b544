"""Unary echo over the dev runner against a hand-written handler and peers, all in one run: requests/s and p99, as ratios.

    python benchmarks/echo.py [--count 20000] [--peers fastapi,mosec,litserve]

Each server has a process of its own; the load generator is this one. Peers that are not installed are left out.
"""

import argparse
import importlib.util
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from load import Result, request_bytes, run_load

HERE = Path(__file__).parent
BODY = b'{"prompt":"a red kite over the sea"}'
ROUNDS = 1


def server_command(name: str, port: int) -> tuple[list[str], Path, str]:
    python = sys.executable
    match name:
        case "gen-worker":
            arguments = ["-m", "gen_worker.testing.http_runner", "--listen", f"127.0.0.1:{port}", "--outputs", "/tmp/gen-worker-bench"]
            return [python, *arguments], HERE / "endpoint", "/v1/run/echo"
        case "mosec":
            return [python, str(HERE / "servers/mosec_server.py"), "--port", str(port), "--log-level", "error"], HERE, "/inference"
        case "handwritten" | "handwritten-executor":
            hop = "executor" if name.endswith("executor") else "threadpool"
            return [python, str(HERE / "servers/handwritten.py"), str(port), hop], HERE, "/run"
        case _:
            return [python, str(HERE / f"servers/{name}_server.py"), str(port)], HERE, "/run"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_until_open(port: int, process: subprocess.Popen) -> None:
    for _ in range(600):
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the server did not open its port")


class Server:
    def __init__(self, name: str) -> None:
        self.port = free_port()
        command, folder, self.path = server_command(name, self.port)
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until_open(self.port, self.process)
        time.sleep(1 if name != "litserve" else 8)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure(name: str, count: int, concurrency: int) -> Result:
    server = Server(name)
    try:
        request = request_bytes(server.path, BODY)
        run_load(server.port, request, count // 10, concurrency)
        return run_load(server.port, request, count, concurrency)
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--peers", default="fastapi,mosec,litserve")
    args = parser.parse_args()
    peers = [peer for peer in args.peers.split(",") if peer and importlib.util.find_spec(peer)]
    names = ["handwritten", "handwritten-executor", "gen-worker", *peers]
    print("| concurrency | server | requests/s | ratio | p50 ms | p99 ms | p99 ratio |\n|---|---|---|---|---|---|---|")
    for concurrency in (1, 16, 64):
        results: dict[str, list[Result]] = {name: [] for name in names}
        for _ in range(ROUNDS):  # interleaved, so that a slow moment of the machine falls on all
            for name in names:
                results[name].append(measure(name, args.count // (4 if concurrency == 1 else 1), concurrency))
        middle = {name: median(found) for name, found in results.items()}
        base = middle["handwritten-executor"]
        for name, found in middle.items():
            print(
                f"| {concurrency} | {name} | {found.per_second:.0f} | {found.per_second / base.per_second:.2f} | {found.p50_ms:.3f} "
                f"| {found.p99_ms:.3f} | {found.p99_ms / base.p99_ms:.2f} |",
                flush=True,
            )


def median(results: list[Result]) -> Result:
    pick = statistics.median_low
    return Result(pick(r.per_second for r in results), pick(r.p50_ms for r in results), pick(r.p99_ms for r in results))


if __name__ == "__main__":
    main()
