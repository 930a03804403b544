"""Unary echo over the dev runner against a hand-written handler and peers, all in one run: requests/s and p99, as ratios.

    python benchmarks/echo.py [--seconds 4] [--rounds 3] [--servers gen-worker,gen-worker-async,fastapi-async,mosec]

`bare-hop` and `bare-send` are the ceiling: the least that a server with a thread hop can be (servers/bare.py).
Each server has a process of its own, and so has the load generator: wrk, or where it is not installed one in Python, which says so
(see load.py for what that changes). Peers that are not installed are left out.
"""

import argparse
import os
import statistics
import sys

from load import WRK, NoAnswerError, Result, request_bytes, run_load, run_wrk
from servers_under_test import Server, python_with

BODY = b'{"prompt":"a red kite over the sea"}'
SERVERS = "bare-send,bare-hop,handwritten-executor,gen-worker,gen-worker-async,fastapi,fastapi-async,mosec,litserve,ray"
PEERS = {"fastapi", "mosec", "litserve", "ray"}
ASSUMED_PER_S = 5000  # how many requests stand for a second, for the generator that counts them


def measure(name: str, seconds: float, concurrency: int) -> Result:
    server = Server(name, python_with(name.split("-")[0]) if name.split("-")[0] in PEERS else sys.executable)
    try:
        if WRK is not None:
            run_wrk(server.port, server.path, BODY, 1, concurrency)
            before_s = server.processor_seconds()
            found = run_wrk(server.port, server.path, BODY, seconds, concurrency)
            found.server_us = (server.processor_seconds() - before_s) / found.count * 1e6
            return found
        count = max(round(seconds * (ASSUMED_PER_S // 10 if name in ("litserve", "ray") else ASSUMED_PER_S)), concurrency)
        request = request_bytes(server.path, BODY)
        run_load(server.port, request, max(count // 10, concurrency), concurrency)
        return run_load(server.port, request, count, concurrency)
    except NoAnswerError as exc:
        raise SystemExit(f"{name} with {concurrency} clients: {exc}") from None
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", default="1,16,64")
    parser.add_argument("--servers", default=SERVERS)
    args = parser.parse_args()
    names = [name for name in args.servers.split(",") if name.split("-")[0] not in PEERS or python_with(name.split("-")[0])]
    if WRK is None:
        print("wrk is not installed: the load comes from Python, which hides tails and flatters us (apt-get install wrk)\n")
    print("| clients | server | requests/s | ratio | p50 ms | p99 ms | server us | load |\n|---|---|---|---|---|---|---|---|")
    for concurrency in map(int, args.concurrency.split(",")):
        results: dict[str, list[Result]] = {name: [] for name in names}
        for _ in range(args.rounds):  # interleaved, so that a slow moment of the machine falls on all
            for name in names:
                results[name].append(measure(name, args.seconds, concurrency))
        load = os.getloadavg()[0]
        middle = {name: median(found) for name, found in results.items()}
        base = middle["mosec" if "mosec" in middle else names[0]]
        for name, found in middle.items():
            ratio = found.per_second / base.per_second
            times = f"{found.p50_ms:.3f} | {found.p99_ms:.3f} | {found.server_us:.0f} | {load:.1f}"
            print(f"| {concurrency} | {name} | {found.per_second:.0f} | {ratio:.2f} | {times} |", flush=True)


def median(results: list[Result]) -> Result:
    pick = statistics.median_low
    fields = ("per_second", "p50_ms", "p99_ms", "count", "server_us")
    return Result(*[pick(getattr(result, field) for result in results) for field in fields])


if __name__ == "__main__":
    main()
