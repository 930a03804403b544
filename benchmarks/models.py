"""Models from the disk to a device, against ceilings measured in the same process. No GPU: a CPU slab and a fake device stand in.

python benchmarks/models.py [--gib 1] [--only load,verify,lease]
"""

import argparse
import asyncio
import io
import os
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from blake3 import blake3
from downloads import random_file, row

from gen_worker.content.housekeeping import verify
from gen_worker.content.listing import RemoteFile
from gen_worker.content.measured import Measurements
from gen_worker.content.progress import Progress
from gen_worker.log import Log
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.device import TorchDevice
from gen_worker.residency.ledger import Ledger, Part
from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, PartPlan
from gen_worker.residency.loads import Residency
from gen_worker.residency.reader import read_into, whole_file
from gen_worker.testing.fakes import FakeDevice

ROUNDS = 3


def load(folder: Path, path: Path) -> None:
    print("\n| file to memory, as ratio of the ceiling | ours GB/s | ceiling GB/s | ratio |\n|---|---|---|---|")
    size = path.stat().st_size
    target = memoryview(bytearray(size))
    cpu = TorchDevice("cpu")
    slab = cpu.new_slab(size)

    def ceiling() -> float:
        return _read_all(path, target, os.O_RDONLY)

    def into_slab() -> float:
        began = time.perf_counter()
        read_into(slab, [whole_file(path, 0, size)], cpu.readers, lambda size_bytes: None, threading.Event())
        return time.perf_counter() - began

    device = FakeDevice(size * 2)
    fake = device.new_slab(size)

    def into_fake() -> float:
        began = time.perf_counter()
        read_into(fake, [whole_file(path, 0, size)], device.readers, lambda size_bytes: None, threading.Event())
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
    parser.add_argument("--only", default="load,verify,lease")
    options = parser.parse_args()
    parts = options.only.split(",")
    with tempfile.TemporaryDirectory(prefix="gen-worker-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        path, digest = random_file(folder, options.gib)
        if "load" in parts:
            load(folder, path)
        if "verify" in parts:
            check(path, digest)
        if "lease" in parts:
            leases()


if __name__ == "__main__":
    main()
