"""Unary echo over the dev runner against a hand-written handler and peers, all in one run: requests/s and p99, as ratios.

    python benchmarks/echo.py [--count 20000] [--peers fastapi,mosec,litserve,ray]

Each server has a process of its own; the load generator is this one. Peers that are not installed are left out.
"""

import argparse
import importlib.util
import statistics

from load import Result, request_bytes, run_load
from servers_under_test import Server

BODY = b'{"prompt":"a red kite over the sea"}'
ROUNDS = 3
SLOW = ("litserve", "ray")  # a tenth of the requests is enough for them


def measure(name: str, count: int, concurrency: int) -> Result:
    server = Server(name)
    try:
        request = request_bytes(server.path, BODY)
        if name in SLOW:
            count //= 10
        run_load(server.port, request, max(count // 10, concurrency), concurrency)
        return run_load(server.port, request, count, concurrency)
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--peers", default="fastapi,mosec,litserve,ray")
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
