"""Streaming 200 small deltas: a sync generator over the dev runner against FastAPI (and a bare Starlette handler) with an async one.

python benchmarks/stream.py [--streams 300]
"""

import argparse
import importlib.util
import socket
import statistics
import time

from load import request_bytes
from servers_under_test import Server

DELTAS = 200
ROUNDS = 3


def one_stream(sock: socket.socket, request: bytes, mark: bytes) -> tuple[float, float]:
    """Seconds until the first delta, and until the end."""
    began_s = time.perf_counter()
    sock.sendall(request)
    received, first_s = b"", 0.0
    while not received.endswith(b"\r\n0\r\n\r\n"):
        received += sock.recv(1 << 18)
        if not first_s and mark in received:
            first_s = time.perf_counter() - began_s
    assert received.count(mark) == DELTAS, received[:500]
    return first_s, time.perf_counter() - began_s


def measure(name: str, streams: int) -> tuple[float, float]:
    """Deltas per second, and the median milliseconds to the first delta."""
    server = Server(name)
    path = "/v1/run/stream" if name == "gen-worker" else "/stream"
    mark = b"event: output" if name == "gen-worker" else b"data: "
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = request_bytes(path, b'{"prompt":"x"}', "text/event-stream")
            for _ in range(streams // 10):
                one_stream(sock, request, mark)
            times = [one_stream(sock, request, mark) for _ in range(streams)]
    finally:
        server.stop()
    return DELTAS * streams / sum(end for _, end in times), statistics.median(first for first, _ in times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=300)
    args = parser.parse_args()
    names = ["handwritten", "gen-worker", *(["fastapi"] if importlib.util.find_spec("fastapi") else [])]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            found[name].append(measure(name, args.streams))
    base = statistics.median(rate for rate, _ in found["handwritten"])
    print("| server | deltas/s | ratio | first delta ms |\n|---|---|---|---|")
    for name, results in found.items():
        rate, first = (statistics.median(values) for values in zip(*results, strict=True))
        print(f"| {name} | {rate:.0f} | {rate / base:.2f} | {first:.3f} |")


if __name__ == "__main__":
    main()
