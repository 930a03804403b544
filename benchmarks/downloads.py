"""One file over HTTP, against the published worker's download, the usual loop, and what the machine's parts could do alone.

python benchmarks/downloads.py [--gib 1] [--rounds 21] [--published PYTHON]
"""

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from blake3 import blake3

from gen_worker.net.digests import digest_file
from gen_worker.net.disk_calls import reserve, start_writing
from gen_worker.net.download import fetch
from gen_worker.net.range_client import Link, RangeClient
from gen_worker.net.wanted import Wanted

HERE = Path(__file__).parent
WARM_UP = 2  # rounds, until the memory that the files take has come from the host: who writes first would pay for it


class Bytes:
    """Counts, and remembers when the last ones came."""

    def __init__(self) -> None:
        self.total = 0
        self.last_s = 0.0

    def add(self, size_bytes: int) -> None:
        self.total += size_bytes
        self.last_s = time.perf_counter()


@contextmanager
def server(path: Path, *options: str) -> Iterator[str]:
    command = [sys.executable, str(HERE / "servers/range_server.py"), str(path), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/file"
    finally:
        process.kill()
        process.wait()


def row(name: str, *values: object) -> None:
    print(f"| {name} | {' | '.join(f'{v:.2f}' if isinstance(v, float) else str(v) for v in values)} |", flush=True)


def random_file(folder: Path, size_gib: float) -> tuple[Path, str]:
    """A file of random bytes, and its digest."""
    path = folder / "data"
    with path.open("wb") as file:
        for _ in range(round(size_gib * 64)):
            file.write(os.urandom(16 << 20))
    return path, digest_file(path, "blake3:")


def ours(url: str, target: Path, size: int, digest: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds of this process, and seconds from the last byte to the end."""
    target.unlink(missing_ok=True)
    meter, client, began = Bytes(), RangeClient(), time.perf_counter()
    cpu = cpu_s()
    fetch([Wanted(target, size, digest, lambda expired: Link(url))], client, meter, threading.Event())
    ended = time.perf_counter()
    client.close()
    return ended - began, cpu_s() - cpu, ended - meter.last_s


def plain_loop(url: str, target: Path) -> tuple[float, float]:
    """The usual loop: one stream, pieces of 1 MiB, hashed in another pass at the end. Seconds with a sync, CPU seconds without."""
    target.unlink(missing_ok=True)
    cpu = cpu_s()
    began = time.perf_counter()
    with urllib.request.urlopen(url) as response, target.open("wb") as file:
        while chunk := response.read(1 << 20):
            file.write(chunk)
    hasher = blake3()
    with target.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    hasher.hexdigest()
    used_s = cpu_s() - cpu
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - began, used_s


def bare_s(url: str, target: Path, size: int) -> float:
    """The ceiling for one stream: receive, write, hash, sync, and nothing else; it would not survive anything."""
    target.unlink(missing_ok=True)
    address = urlsplit(url)
    began = time.perf_counter()
    with socket.create_connection((address.hostname, address.port)) as link, target.open("wb", buffering=0) as file:
        link.sendall(b"GET /file HTTP/1.1\r\nhost: x\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += link.recv(1)
        reserve(file.fileno(), size)
        buffer, hasher, left = memoryview(bytearray(1 << 20)), blake3(), size
        while left:
            got = link.recv_into(buffer, min(left, len(buffer)), socket.MSG_WAITALL)
            file.write(buffer[:got])
            hasher.update(buffer[:got])
            left -= got
        os.fsync(file.fileno())
    return time.perf_counter() - began


def disk_s(target: Path, size: int) -> float:
    """The ceiling: as many bytes written and synced, from nowhere, into room that was set aside."""
    target.unlink(missing_ok=True)
    piece = os.urandom(8 << 20)
    began = time.perf_counter()
    with target.open("wb", buffering=0) as file:
        reserve(file.fileno(), size)
        for _ in range(size // len(piece)):
            file.write(piece)
            start_writing(file.fileno())
        os.fsync(file.fileno())
    return time.perf_counter() - began


PUBLISHED = """
import asyncio, os, sys, time
from pathlib import Path
from gen_worker.cozy_cas import _download_one_file
url, target, size, digest = sys.argv[1:]
began = time.perf_counter()
asyncio.run(_download_one_file(url, Path(target), int(size), digest))
took = time.perf_counter() - began
with open(target, "rb") as file:
    os.fsync(file.fileno())
print(took, time.perf_counter() - began)
"""


def published_loop(python: str, url: str, target: Path, size: int, digest: str) -> tuple[float, float]:
    """The download of the published worker 0.3.2, in a process of its own: seconds until its file is on the disk, and as it is."""
    target.unlink(missing_ok=True)
    command = [python, "-c", PUBLISHED, url, str(target), str(size), digest.partition(":")[2]]
    took_s, synced_s = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(synced_s), float(took_s)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def in_turns(
    one: Callable[[], tuple[float, ...]], other: Callable[[], tuple[float, ...]], rounds: int
) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    """Both once a round, one right after the other, so that what the machine is busy with falls on both; each is the first in every second
    round."""
    ones, others = [], []
    for turn in range(WARM_UP + rounds):
        if turn % 2:
            ones.append(one())
            others.append(other())
        else:
            others.append(other())
            ones.append(one())
    return ones[WARM_UP:], others[WARM_UP:]


def loopback(folder: Path, path: Path, digest: str, published: str, rounds: int) -> None:
    size = path.stat().st_size

    def own() -> tuple[float, ...]:
        return ours(url, folder / "ours", size, digest)

    def against(names: list[str], other: Callable[[], tuple[float, ...]]) -> list[tuple[float, ...]]:
        """Prints the median of the rounds' own ratios for each of the seconds that `other` gives."""
        others, owns = in_turns(other, own, rounds)
        for at, name in enumerate(names):
            row(f"seconds {name} / ours", statistics.median(theirs[at] / mine[0] for theirs, mine in zip(others, owns, strict=True)))
        measured.extend(owns)
        return others

    others_file = folder / "others"
    measured: list[tuple[float, ...]] = []
    with server(path) as url:
        if published:
            against(
                ["of the published worker 0.3.2, synced as ours are (gate 2, target 3)", "of the same as it is, without a sync"],
                lambda: published_loop(published, url, others_file, size, digest),
            )
        loop = against(["of one stream of 1 MiB pieces, then hashed, then synced"], lambda: plain_loop(url, others_file))
        against(["to receive, write, hash and sync, and nothing else"], lambda: (bare_s(url, others_file, size),))
        against(["to write and sync as many bytes from nowhere"], lambda: (disk_s(others_file, size),))
        against(["without a digest"], lambda: ours(url, others_file, size, ""))
    seconds, cpu, tail = (statistics.median(values) for values in zip(*measured, strict=True))
    row("MB/s, on the disk for certain", size / seconds / 1e6)
    row("CPU seconds a GiB with hash and sync (gate 0.8, target 0.5)", cpu / (size / (1 << 30)))
    row("CPU seconds a GiB of that one stream, without sync", statistics.median(turn[1] for turn in loop) / (size / (1 << 30)))
    row("tail after the last byte, ms (gate 100, target 20)", tail * 1000)


def far(folder: Path, path: Path, digest: str) -> None:
    size = path.stat().st_size
    with server(path, "--rtt-ms", "25", "--rate-mb-s", "250", "--connection-mb-s", "60") as url:
        seconds = min(ours(url, folder / "ours", size, digest)[0] for _ in range(2))
        hashless_s = min(ours(url, folder / "ours", size, "")[0] for _ in range(2))
    row("25 ms round trip, 60 MB/s a connection: MB/s / link of 250 (gate 0.85, target 0.95)", size / seconds / 250e6)
    row("the same: with digest / without (gate 1.05, target 1.01)", seconds / hashless_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--published", default="", help="a Python with gen-worker 0.3.2, to compare with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gen-worker-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        path, digest = random_file(folder, options.gib)
        print("\n| download of one file on loopback | value |\n|---|---|")
        loopback(folder, path, digest, options.published, options.rounds)
        print("\n| across a link | value |\n|---|---|")
        far(folder, path, digest)


if __name__ == "__main__":
    main()
