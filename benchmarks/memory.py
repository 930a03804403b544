"""Resident memory of the dev runner before and after 10,000 echo runs.

python benchmarks/memory.py [--runs 10000]
"""

import argparse

from load import request_bytes, run_load
from servers_under_test import Server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    args = parser.parse_args()
    server = Server("gen-worker")
    try:
        request = request_bytes(server.path, b'{"prompt":"a red kite over the sea"}')
        run_load(server.port, request, 2000, 16)
        before = server.resident_bytes()
        run_load(server.port, request, args.runs, 16)
        after = server.resident_bytes()
    finally:
        server.stop()
    print(
        f"| runs | before MB | after MB | ratio |\n|---|---|---|---|\n| {args.runs} | {before / 1e6:.1f} | {after / 1e6:.1f} | {after / before:.3f} |"
    )


if __name__ == "__main__":
    main()
