"""The image of `hello`: bytes over its base, what a change of code changes, and the time from starting a container to `registered`.

Needs buildah as `scripts/image-base` prints it: BUILDAH="$(scripts/image-base)" python benchmarks/images.py
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gen_worker.testing.loopback import LoopbackScheduler

ROOT = Path(__file__).parents[1]
BASE = "ghcr.io/astral-sh/uv:python3.12-bookworm-slim"
ENTRYPOINT = ["python", "-m", "gen_worker.entrypoint"]
ENV = {**os.environ, "BUILDAH_ISOLATION": "chroot", "SOURCE_DATE_EPOCH": "1"}


def buildah(*arguments: str) -> str:
    command = [*os.environ["BUILDAH"].split(), *arguments]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, check=True).stdout


def layers(name: str) -> list[tuple[str, int]]:
    manifest = json.loads(json.loads(buildah("inspect", "--type", "image", name))["Manifest"])
    return [(layer["digest"], layer["size"]) for layer in manifest["layers"]]


def build(folder: Path, wheel: str) -> float:
    began_s = time.monotonic()
    command = [
        sys.executable,
        "-c",
        "from gen_worker.cli.main import main; main()",
        "build",
        str(folder),
        "--engine",
        os.environ["BUILDAH"],
    ]
    command += ["-f", str(ROOT / "Dockerfile"), "--build-arg", f"GEN_WORKER_SPEC={wheel}", "-t", "bench-hello:1"]
    subprocess.run(command, env=ENV, check=True, capture_output=True)
    return time.monotonic() - began_s


async def start_s(container: str, address: str, scheduler: LoopbackScheduler) -> float:
    options = ["--env", f"SCHEDULER_PUBLIC_ADDR={address}", "--env", "WORKER_JWT=dev-worker-jwt"]
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *os.environ["BUILDAH"].split(), "run", *options, container, "--", *ENTRYPOINT, env=ENV, stdout=-3, stderr=-3
    )
    await scheduler.worker(30)
    took_s = time.monotonic() - began_s
    process.send_signal(signal.SIGTERM)
    await process.wait()
    await scheduler.until(lambda: not scheduler.workers)
    return took_s


def empty_s(container: str) -> float:
    began_s = time.monotonic()
    buildah("run", container, "--", "true")
    return time.monotonic() - began_s


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as work:
        folder = Path(shutil.copytree(ROOT / "examples/hello", Path(work) / "hello"))
        subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
        wheel = next(folder.glob("gen_worker-*.whl")).name
        first_s = build(folder, wheel)
        first, base = layers("bench-hello:1"), layers(BASE)
        print(f"hello over its base: {sum(size for _, size in first[len(base) :]) / 1e6:.1f} MB in {len(first) - len(base)} layers")
        code = folder / "src/hello/main.py"
        code.write_text(code.read_text().replace("Hello, ", "Goodbye, "))
        again_s = build(folder, wheel)
        changed = [size for (digest, size), (old, _) in zip(layers("bench-hello:1"), first, strict=True) if digest != old]
        print(
            f"after a change of code: {len(changed)} layer of {sum(changed) / 1e6:.2f} MB; built in {again_s / first_s:.2f} of the first build's time"
        )
        container = buildah("from", "--pull-never", "bench-hello:1").strip()
        empty_s(container)
        async with LoopbackScheduler() as scheduler:
            started = [await start_s(container, scheduler.address, scheduler) for _ in range(repeats)]
        empty = [empty_s(container) for _ in range(repeats)]
        print(f"container start to registered: {statistics.median(started):.2f} s, worst {max(started):.2f} s of {repeats}")
        print(f"of that the container itself: {statistics.median(empty):.2f} s (`true` in it)")
        buildah("rm", container)
        buildah("rmi", "--force", "bench-hello:1")


asyncio.run(main())
