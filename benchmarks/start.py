"""What starting costs: `import gen_worker`, `cozyctl --help`, the dev runner until it answers; beside Python's own start.

python benchmarks/start.py
"""

import statistics
import subprocess
import sys
import time

from servers_under_test import Server

ROUNDS = 11


def milliseconds(*arguments: str) -> float:
    times = []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began_s)
    return statistics.median(times) * 1000


def ready_ms() -> float:
    times = []
    for _ in range(5):
        server = Server("gen-worker")
        times.append(server.ready_s)
        server.stop()
    return statistics.median(times) * 1000


def main() -> None:
    bare = milliseconds("-c", "pass")
    rows = {
        "python -c pass": bare,
        "import gen_worker, beyond that": milliseconds("-c", "import gen_worker") - bare,
        "cozyctl --help": milliseconds("-c", "from gen_worker.cli.main import main; main()", "--help"),
        "dev runner until its first answer": ready_ms(),
    }
    print("| what | ms |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.0f} |")


if __name__ == "__main__":
    main()
