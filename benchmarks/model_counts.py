"""What models cost in bytes and losses, counted: resuming, sharing of downloads, the books against real memory, memory that runs out.

python benchmarks/model_counts.py [--mib 512] [--only resume,share,books,memory,ahead]
"""

import argparse
import asyncio
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import model_functions
from downloads import row, server

from gen_worker.content.listing import Listing, RemoteFile
from gen_worker.content.measured import Measurements
from gen_worker.content.progress import Progress
from gen_worker.errors import WorkerError
from gen_worker.log import Log
from gen_worker.net.digests import digest_file
from gen_worker.project.discovery import read_specs
from gen_worker.refs import ModelSpec
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.device import TorchDevice
from gen_worker.residency.devices import DeviceSet
from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, LoadRequest, PartPlan
from gen_worker.residency.loaders.transformers import TransformersLoader
from gen_worker.residency.loads import Residency
from gen_worker.residency.manager import LoadedModels
from gen_worker.residency.reader import Extent, read_into
from gen_worker.settings import ModelSettings
from gen_worker.sources.build import build_sources
from gen_worker.sources.keyspace import Keyspace
from gen_worker.sources.source import ModelWant, OverrideSource
from gen_worker.testing.fakes import FakeDevice

KILLS = 6
LINK_MB_S = "250"
FETCH = """
import json, os, sys, threading
from gen_worker.content.listing import Listing, RemoteFile
from gen_worker.content.progress import Progress
from gen_worker.sources.build import build_sources
from gen_worker.sources.source import ModelWant
from gen_worker.refs import ModelSpec
from gen_worker.settings import ModelSettings
path, size, digest, url = json.loads(sys.argv[1])
want = ModelWant("k", ModelSpec("demo/one"), Listing("ab" * 32, (RemoteFile(path, size, digest, url),)))
build_sources(ModelSettings.from_env(os.environ), {}).source.fetch(want, Progress("m"), threading.Event())
"""


def sent(url: str) -> int:
    with urllib.request.urlopen(url.replace("/file", "/sent")) as response:
        return int(response.read())


def store(folder: Path) -> dict[str, str]:
    """An environment with a store of its own."""
    return {**os.environ, "TENSORHUB_CACHE_DIR": str(folder), "WORKER_MIN_FREE_DISK_GB": "0"}


def start(env: dict[str, str], file: RemoteFile) -> "subprocess.Popen[bytes]":
    told = json.dumps([file.path, file.size_bytes, file.digest, file.url])
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(FETCH), told], env=env)


def resume(folder: Path, file: RemoteFile, url: str) -> None:
    dice, worst, orphans = random.Random(1), 0.0, 0
    for number in range(KILLS):
        env, before = store(folder / f"kill{number}"), sent(url)
        goal = before + int(dice.uniform(0.1, 0.9) * file.size_bytes)
        process = start(env, file)
        while sent(url) < goal and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert start(env, file).wait() == 0
        worst = max(worst, (sent(url) - before) / file.size_bytes)
        left = [path for path in (folder / f"kill{number}").rglob("*") if ".part" in path.name or path.name.endswith(".lock")]
        orphans = max(orphans, len(left))
    row(f"bytes sent / size, killed at a random point, worst of {KILLS} (gate 1.05, target 1.01)", worst)
    row("files left behind (gate 0)", orphans)


def share(folder: Path, file: RemoteFile, url: str) -> None:
    before = sent(url)
    source = build_sources(ModelSettings.from_env(store(folder / "threads")), {}).source
    want = ModelWant("k", ModelSpec("demo/one"), Listing("ab" * 32, (file,)))
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda _: source.fetch(want, Progress("m"), threading.Event()), range(32)))
    row("bytes sent / size, 32 waiters (gate 1.00)", (sent(url) - before) / file.size_bytes)
    before, env = sent(url), store(folder / "processes")
    processes = [start(env, file) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    row("bytes sent / size, 4 processes (gate 1.00)", (sent(url) - before) / file.size_bytes)


def books(folder: Path) -> None:
    """A language model with random weights, loaded for real; then a thousand loads on a fake device."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    config = transformers.LlamaConfig(
        vocab_size=8000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=12, num_attention_heads=16, num_key_value_heads=16
    )
    transformers.LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder / "llama", safe_serialization=True)
    device, cache = TorchDevice("cpu"), ModelCache(max_vram_gb=8)
    request = LoadRequest(transformers.LlamaForCausalLM, folder / "llama", lambda: device, ("fp32",))

    async def run() -> tuple[int, int]:
        residency = Residency(cache, lambda: device, Measurements(None), Log(io.StringIO()))
        for _ in range(2):  # the first time imports what it needs
            cache.unload_model("a#m")
            residency.forget_dropped()
            await asyncio.sleep(0)  # what woke this task last holds what it brought
            device.collect()
            before = _rss()
            plan = await residency.plan("a#m", lambda: TransformersLoader().plan(request))
            await residency.load("a#m", plan, Progress("a"), threading.Event())
            residency.release_load(plan)
            grown = _rss() - before
        residency.close()
        return cache.ledger.used_bytes, grown

    booked, grown = asyncio.run(run())
    row(f"books / resident memory that a model of {booked / 1e9:.1f} GB really takes (gate 0.98 to 1.02)", booked / grown)
    row("bytes that the books are off after 1,000 loads and evictions (gate 0)", _drift())


def _drift() -> int:
    device, cache, dice = FakeDevice(10**6), ModelCache(max_vram_gb=400e-6), random.Random(1)

    async def run() -> None:
        residency = Residency(cache, lambda: device, Measurements(None), Log(io.StringIO()))
        for _ in range(1000):
            number = dice.randrange(12)
            model = _slab(device, f"m{number}", 30_000 + 10_000 * number)
            await residency.load(f"m{number}#m", model, Progress("m"), threading.Event())
            residency.release_load(model)
        residency.close()

    asyncio.run(run())
    device.collect()
    return abs(cache.ledger.used_bytes - device.allocated_bytes)


def memory() -> None:
    """One allocation in seven fails, and every other model is larger than its files tell: every load has to succeed all the same."""
    device = FakeDevice(10**6, fail_allocations=range(7, 4000, 7), fragments=False)
    cache, dice = ModelCache(max_vram_gb=1e-3), random.Random(2)
    measured, lost, surprises = Measurements(None), 0, 0

    async def run() -> None:
        nonlocal lost, surprises
        residency = Residency(cache, lambda: device, measured, Log(io.StringIO()))
        for turn in range(1000):
            number = dice.randrange(12)
            injected = (device.allocations + 1) % 7 == 0
            size = 60_000 + 10_000 * number
            model = _slab(device, f"m{number}", size, said=size // 4 if number % 2 else size)
            before = residency.ooms
            try:
                await residency.load(f"m{number}#m", model, Progress("m"), threading.Event())
                residency.release_load(model)
            except WorkerError:
                lost += 1
            if turn > 200 and residency.ooms > before and not injected:
                surprises += 1
        residency.close()

    asyncio.run(run())
    row("loads lost of 1,000 though there was room, one allocation in seven failing (gate 0)", lost)
    row("models larger than their files tell that ran out of memory again after they were known (gate 0)", surprises)


class _Files:
    """Models that are files of 32 MB, read into slabs of a fake device."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def accepts(self, request: LoadRequest) -> bool:
        return True

    def plan(self, request: LoadRequest) -> LoadPlan:
        size = request.path.stat().st_size

        def load(control: LoadControl) -> tuple[Any, int]:
            slab = self.device.new_slab(size)
            read_into(slab, [Extent(request.path, 0, size, 0)], control.on_bytes, control.cancel)
            return slab, size

        return LoadPlan((PartPlan(request.path.name, size, load),), lambda parts: Loaded(None, size, lambda: None))


def ahead(folder: Path) -> None:
    """Twelve models of which five fit; four times in five the next in a round is wanted, else any. Each run computes for some 50 ms."""
    for number in range(12):
        (folder / f"m{number}").write_bytes(os.urandom(32 << 20))
    turns = [[asyncio.run(_visits(folder, looks_ahead=looks)) for looks in (False, True)] for _ in range(3)]
    _, hot, tally = turns[-1][True]
    row("loaded ahead: bytes used / bytes loaded (gate 0.5, target 0.7)", tally.used_bytes / max(1, tally.loaded_bytes))
    row("runs that found their model on the device: without, and with looking ahead", turns[-1][False][1], hot)
    without_s, with_s = (min(turn[looks][0] for turn in turns) for looks in (False, True))
    row("time that runs compute, p50: with looking ahead / without (gate 1.05, target 1.02)", with_s / without_s)


async def _visits(folder: Path, *, looks_ahead: bool) -> tuple[float, float, Any]:
    spec = read_specs([model_functions])[0]
    device, cache, dice = FakeDevice(10**9), ModelCache(max_vram_gb=5.5 * 32 * 2**20 / 1e9), random.Random(3)
    keys = {str(n): ModelSpec(f"hf:demo/m{n}") for n in range(12)}
    paths = {str(n): folder / f"m{n}" for n in range(12)}
    devices, log = DeviceSet(lambda: [device]), Log(io.StringIO())
    manager = LoadedModels(
        Keyspace({spec.name: keys}), OverrideSource(paths), cache, devices, log, [_Files(device)], looks_ahead=looks_ahead
    )
    times, hot, at = [], 0, 0
    for _ in range(200):
        at = (at + 1) % 12 if dice.random() < 0.8 else dice.randrange(12)
        payload = model_functions.In(str(at))
        seat = manager.seat(spec, payload)
        lease, use = await manager.acquire(spec, spec.injections[0], payload, lambda event: None, {}, seat)
        times.append(await asyncio.to_thread(_compute))
        hot += use.cache_state == "hot_vram"
        lease.release()
        seat.release()
        await asyncio.sleep(dice.choice([0.0, 0.02, 0.1, 0.2]))  # some runs come at once, others let it finish
    manager.close()
    return statistics.median(times), hot / len(times), manager.ahead.tally if manager.ahead else None


def _compute() -> float:
    began_s = time.perf_counter()
    total = 0
    for number in range(700_000):
        total += number * number
    return time.perf_counter() - began_s


def _slab(device: FakeDevice, name: str, size: int, said: int = 0) -> LoadPlan:
    def load(control: LoadControl) -> tuple[Any, int]:
        return device.new_slab(size), size

    return LoadPlan((PartPlan(name, said or size, load),), lambda parts: Loaded(dict(parts), size, lambda: None))


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--only", default="resume,share,books,memory,ahead")
    options = parser.parse_args()
    parts = options.only.split(",")
    print("\n| counted | value |\n|---|---|")
    with tempfile.TemporaryDirectory(prefix="gen-worker-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        path = folder / "data"
        path.write_bytes(os.urandom(options.mib << 20))
        with server(path, "--rtt-ms", "5", "--rate-mb-s", LINK_MB_S) as url:
            file = RemoteFile("model.safetensors", path.stat().st_size, digest_file(path, "blake3:"), url)
            if "resume" in parts:
                resume(folder, file, url)
            if "share" in parts:
                share(folder, file, url)
        if "books" in parts:
            books(folder)
        if "memory" in parts:
            memory()
        if "ahead" in parts:
            ahead(folder)


if __name__ == "__main__":
    main()
