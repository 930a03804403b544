"""Models from the network to a device, against ceilings measured in the same process. No GPU: a CPU slab and a fake device stand in.

python benchmarks/models.py [--gib 1] [--only download,load,verify,lease] [--published PYTHON]
"""

import argparse
import asyncio
import io
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from blake3 import blake3

from gen_worker.ledger import Ledger, Part
from gen_worker.log import Log
from gen_worker.model_cache import ModelCache
from gen_worker.models.device import TorchDevice
from gen_worker.models.housekeeping import verify
from gen_worker.models.listing import RemoteFile
from gen_worker.models.loaders.base import LoadControl, Loaded, LoadPlan, PartPlan
from gen_worker.models.measured import Measurements
from gen_worker.models.progress import Progress
from gen_worker.models.reader import Extent, read_into
from gen_worker.models.residency import Residency
from gen_worker.net.digests import digest_file
from gen_worker.net.download import fetch
from gen_worker.net.range_client import Link, RangeClient
from gen_worker.net.wanted import Wanted
from gen_worker.testing.fakes import FakeDevice

HERE = Path(__file__).parent
ROUNDS = 3


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


def median(work: Callable[[], float], rounds: int = ROUNDS) -> float:
    return statistics.median(work() for _ in range(rounds))


def ours(url: str, target: Path, size: int, digest: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds of this process, and seconds from the last byte to the end."""
    target.unlink(missing_ok=True)
    meter, client, began = Bytes(), RangeClient(), time.perf_counter()
    cpu = _cpu_s()
    fetch([Wanted(target, size, digest, lambda expired: Link(url))], client, meter, threading.Event())
    ended = time.perf_counter()
    client.close()
    return ended - began, _cpu_s() - cpu, ended - meter.last_s


def plain_loop(url: str, target: Path) -> tuple[float, float, float]:
    """The usual loop: one stream, pieces of 1 MiB, hashed in another pass at the end. Seconds, CPU seconds, and seconds with a sync."""
    target.unlink(missing_ok=True)
    cpu = _cpu_s()
    began = time.perf_counter()
    with urllib.request.urlopen(url) as response, target.open("wb") as file:
        while chunk := response.read(1 << 20):
            file.write(chunk)
    hasher = blake3()
    with target.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    hasher.hexdigest()
    took_s, used_s = time.perf_counter() - began, _cpu_s() - cpu
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return took_s, used_s, time.perf_counter() - began


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
        buffer, hasher, left = memoryview(bytearray(1 << 20)), blake3(), size
        while left:
            got = link.recv_into(buffer, min(left, len(buffer)), socket.MSG_WAITALL)
            file.write(buffer[:got])
            hasher.update(buffer[:got])
            left -= got
        os.fsync(file.fileno())
    return time.perf_counter() - began


def disk_s(target: Path, size: int) -> float:
    """The ceiling: as many bytes written and synced, from nowhere."""
    target.unlink(missing_ok=True)
    piece = os.urandom(8 << 20)
    began = time.perf_counter()
    with target.open("wb", buffering=0) as file:
        for _ in range(size // len(piece)):
            file.write(piece)
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
    """The download of the published worker 0.3.2, in a process of its own: seconds as it is, and until its file is on the disk too."""
    target.unlink(missing_ok=True)
    command = [python, "-c", PUBLISHED, url, str(target), str(size), digest.partition(":")[2]]
    took_s, synced_s = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(took_s), float(synced_s)


def download(folder: Path, path: Path, digest: str, published: str) -> None:
    size = path.stat().st_size
    gib = size / (1 << 30)
    print("\n| download of one file | value |\n|---|---|")
    with server(path) as url:
        loops, all_ours, hashless, theirs, disk, bare = [], [], [], [], [], []
        for _ in range(3 * ROUNDS):  # best of each: what the machine's memory does to a run only ever adds
            disk.append(disk_s(folder / "disk", size))
            bare.append(bare_s(url, folder / "bare", size))
            loops.append(plain_loop(url, folder / "loop"))
            all_ours.append(ours(url, folder / "ours", size, digest))
            hashless.append(ours(url, folder / "ours", size, "")[0])
            if published:
                theirs.append(published_loop(published, url, folder / "theirs", size, digest))
        _, loop_cpu, loop_synced_s = (min(values) for values in zip(*loops, strict=True))
        seconds, cpu, tail = (min(values) for values in zip(*all_ours, strict=True))
        row("loopback: MB/s, on the disk for certain", size / seconds / 1e6)
        row("loopback: seconds to write and sync as many bytes from nowhere / ours", min(disk) / seconds)
        row("loopback: seconds to receive, write, hash and sync, and nothing else / ours", min(bare) / seconds)
        if published:
            took_s, synced_s = (min(values) for values in zip(*theirs, strict=True))
            row("loopback: seconds of the published worker 0.3.2, synced as ours are / ours (gate 2, target 3)", synced_s / seconds)
            row("loopback: the same as it is, without a sync / ours", took_s / seconds)
        row("loopback: one stream of 1 MiB pieces, then hashed, then synced / ours", loop_synced_s / seconds)
        row("CPU seconds a GiB with hash and sync (gate 0.8, target 0.5)", cpu / gib)
        row("CPU seconds a GiB of that one stream, without sync", loop_cpu / gib)
        row("with digest / without", seconds / min(hashless))
        row("tail after the last byte, ms (gate 100, target 20)", tail * 1000)
    with server(path, "--rtt-ms", "25", "--rate-mb-s", "250", "--connection-mb-s", "60") as url:
        seconds = min(ours(url, folder / "ours", size, digest)[0] for _ in range(2))
        hashless_s = min(ours(url, folder / "ours", size, "")[0] for _ in range(2))
        row("25 ms round trip, 60 MB/s a connection: MB/s / link of 250 (gate 0.85, target 0.95)", size / seconds / 250e6)
        row("the same: with digest / without (gate 1.05, target 1.01)", seconds / hashless_s)


def load(folder: Path, path: Path) -> None:
    print("\n| file to memory, as ratio of the ceiling | ours GB/s | ceiling GB/s | ratio |\n|---|---|---|---|")
    size = path.stat().st_size
    target = memoryview(bytearray(size))
    slab = TorchDevice("cpu").new_slab(size)

    def ceiling() -> float:
        return _read_all(path, target, os.O_RDONLY)

    def into_slab() -> float:
        began = time.perf_counter()
        read_into(slab, [Extent(path, 0, size, 0)], lambda size_bytes: None, threading.Event())
        return time.perf_counter() - began

    device = FakeDevice(size * 2)
    fake = device.new_slab(size)

    def into_fake() -> float:
        began = time.perf_counter()
        read_into(fake, [Extent(path, 0, size, 0)], lambda size_bytes: None, threading.Event())
        return time.perf_counter() - began

    ceiling(), into_slab(), into_fake()
    turns = [(ceiling(), into_slab(), into_fake()) for _ in range(5)]
    top, direct, staged = (min(values) for values in zip(*turns, strict=True))
    row("cached, host memory (gate 0.8, target 0.95)", size / direct / 1e9, size / top / 1e9, top / direct)
    row("cached, through staging buffers (two copies)", size / staged / 1e9, size / top / 1e9, top / staged)
    cold, direct_io = [], []
    for _ in range(3 * ROUNDS):  # as above
        _forget(path)
        cold.append(into_slab())
        _forget(path)
        direct_io.append(_read_direct(path))
    row("cold (gate 0.7, target 0.9)", size / min(cold) / 1e9, size / min(direct_io) / 1e9, min(direct_io) / min(cold))


def check(path: Path, digest: str) -> None:
    print("\n| verify at rest | ours GB/s | blake3 update_mmap GB/s | ratio |\n|---|---|---|---|")
    size = path.stat().st_size

    def ceiling() -> float:
        began = time.perf_counter()
        blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
        return time.perf_counter() - began

    def all_files() -> float:
        began = time.perf_counter()
        assert not list(verify("m", path.parent, [RemoteFile(path.name, size, digest)]))
        return time.perf_counter() - began

    ceiling(), all_files()
    turns = [(ceiling(), all_files()) for _ in range(5)]
    top, mine = (min(values) for values in zip(*turns, strict=True))
    row("(gate 0.9, target 1.0)", size / mine / 1e9, size / top / 1e9, top / mine)


def leases() -> None:
    print("\n| residency | value |\n|---|---|")
    device = FakeDevice(10**9)
    cache = ModelCache(max_vram_gb=1)
    times: list[float] = []

    def plan(name: str, size: int) -> LoadPlan:
        def load_part(control: LoadControl) -> tuple[Any, int]:
            return device.new_slab(size), size

        return LoadPlan((PartPlan(name, size, load_part),), lambda parts: Loaded(dict(parts), size, lambda: None))

    async def run() -> None:
        residency = Residency(cache, lambda: device, Measurements(None), Log(io.StringIO()))
        for number in range(40):
            model = plan(f"m{number}", 10_000_000)
            await residency.load(f"m{number}#m", model, Progress("m"), threading.Event())
            residency.release_load(model)
        for number in range(20_000):
            began = time.perf_counter()
            name = f"m{number % 40}#m"
            assert cache.get_pipeline(name) is not None
            cache.pin(name)
            cache.unpin(name)
            times.append(time.perf_counter() - began)
        swaps = []
        for number in range(200):
            began = time.perf_counter()
            model = plan(f"s{number}", 700_000_000 if number % 2 else 600_000_000)
            await residency.load(f"s{number}#m", model, Progress("m"), threading.Event())
            residency.release_load(model)
            swaps.append(time.perf_counter() - began)
        residency.close()
        times.sort()
        row("lease on a resident model, p99, ms (gate 5, target 1)", times[int(len(times) * 0.99)] * 1000)
        zeroed = statistics.median(_zeroed_s(650_000_000) for _ in range(5))
        row("swap beyond the bytes, p50, ms (gate 100, target 30)", max(0.0, statistics.median(swaps) - zeroed) * 1000)
        row("swaps that moved the books off the device, of 200", int(cache.ledger.used_bytes != device.allocated_bytes))

    asyncio.run(run())
    sizes = {"unet": 5_135_149_760, "text_encoder": 246_144_152, "text_encoder_2": 1_389_382_176, "vae": 167_335_342}  # SDXL, fp16
    ledger = Ledger(lambda: 10**12)
    for number in range(4):
        ledger.reserve([Part(name if name != "unet" else f"unet{number}", size) for name, size in sizes.items()])
    row("four SDXL fine-tunes that share encoders and VAE / their sum (gate 0.82)", ledger.used_bytes / (4 * sum(sizes.values())))


def _zeroed_s(size: int) -> float:
    """What a fake slab of this size costs by itself."""
    began = time.perf_counter()
    bytearray(size)
    return time.perf_counter() - began


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _forget(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_all(path: Path, target: memoryview, flags: int) -> float:
    size, piece = len(target), 8 << 20
    fd = os.open(path, flags)

    def read(at: int) -> None:
        os.preadv(fd, [target[at : min(at + piece, size)]], at)

    began = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(read, range(0, size, piece)))
    os.close(fd)
    return time.perf_counter() - began


def _read_direct(path: Path) -> float:
    """O_DIRECT into page-aligned memory, by as many threads."""
    import mmap

    size = path.stat().st_size // 4096 * 4096
    buffer = mmap.mmap(-1, size)
    view = memoryview(buffer)
    for at in range(0, size, 4096):
        buffer[at] = 0
    return _read_all(path, view, os.O_RDONLY | os.O_DIRECT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--published", default="", help="a Python with gen-worker 0.3.2, to compare with")
    parser.add_argument("--only", default="download,load,verify,lease")
    options = parser.parse_args()
    parts = options.only.split(",")
    with tempfile.TemporaryDirectory(prefix="gen-worker-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        path = folder / "data"
        with path.open("wb") as file:
            for _ in range(round(options.gib * 64)):
                file.write(os.urandom(16 << 20))
        digest = digest_file(path, "blake3:")
        if "download" in parts:
            download(folder, path, digest, options.published)
        if "load" in parts:
            load(folder, path)
        if "verify" in parts:
            check(path, digest)
        if "lease" in parts:
            leases()


if __name__ == "__main__":
    main()
