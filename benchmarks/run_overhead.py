"""What a run costs beside its function: the function by hand, and through the executor with progress events and a saved picture, in turns.

python benchmarks/run_overhead.py [--rounds 60]
"""

import argparse
import asyncio
import hashlib
import io
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gen_worker import ActionContext, Asset, worker_function
from gen_worker.authoring.signature import read_signature
from gen_worker.execution.build import ExecutionSettings, build_execution
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.request import RunRequest
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.log import Log

STEPS = 20
PICTURE = os.urandom(450_000)  # as large as a PNG of 512 px
STEP_BYTES = bytes(8 << 20)


class In(msgspec.Struct):
    """What to do beside the steps."""

    saves: bool = False
    works: bool = True  # otherwise the steps do nothing, and what is left is the run: the clock of a busy machine says little else
    steps: int = STEPS


class Out(msgspec.Struct):
    """What was saved."""

    digest: str = ""
    picture: Asset | None = None


@worker_function()
def draw(ctx: ActionContext, payload: In) -> Out:
    """Twenty steps that compute without the interpreter's lock, as kernels do."""
    found = hashlib.sha256()
    for step in range(payload.steps):
        if payload.works:
            found.update(STEP_BYTES)
        ctx.progress((step + 1) / payload.steps, stage="draw")
    return Out(found.hexdigest(), ctx.save_bytes(f"runs/{ctx.run_id}/outputs/picture.png", PICTURE) if payload.saves else None)


class ByHand:
    """What a script has in place of our context: it prints nothing and writes a file."""

    def __init__(self, folder: Path) -> None:
        self.run_id = "by-hand"
        self._file = folder / "picture.png"

    def progress(self, progress: float, stage: str | None = None) -> None:
        return None

    def save_bytes(self, ref: str, data: bytes) -> None:
        self._file.write_bytes(data)


class Sink:
    """Takes what a run says."""

    ready = True

    def __init__(self) -> None:
        self.batches = 0
        self.events = 0

    def emit_all(self, batch: list[Any]) -> None:
        self.batches += 1
        self.events += len(batch)

    def on_ready(self, callback: Callable[[], None]) -> None:
        callback()


def by_hand_s(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock and of the processor, in a thread as ours is, so that both begin on an idle processor."""
    seconds = 0.0

    def run() -> None:
        nonlocal seconds
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began

    thread, before = threading.Thread(target=run), time.process_time()
    thread.start()
    thread.join()
    return seconds, time.process_time() - before


async def measure(folder: Path, rounds: int) -> None:
    """Print the table."""
    environment = {"TENSORHUB_CACHE_DIR": str(folder / "cache"), "WORKER_DEVICE": "cpu"}
    execution = build_execution(ExecutionSettings.from_env(environment, folder), folder / "runs", Log(io.StringIO()))
    spec, outputs = read_signature(draw), LocalOutputs(folder / "outputs")
    print(
        "\n| 20 steps with progress, medians of turns | by hand ms | run ms | ratio | beyond, ms | processor beyond, ms | events in batches |\n|---|---|---|---|---|---|---|"
    )
    for name, payload in (
        ("alone (aim: 1 %, 1 ms)", In()),
        (f"with a picture of {len(PICTURE) // 1000} kB saved and hashed", In(saves=True)),
        ("steps that do nothing: the run and its events", In(works=False)),
        ("no steps: the run", In(works=False, steps=0)),
    ):
        by_hand = ByHand(folder)
        mine, theirs, sink = [], [], Sink()
        for number in range((rounds if payload.works else 10 * rounds) + 3):
            hand: Any = by_hand
            bare = by_hand_s(lambda hand=hand, payload=payload: draw(hand, payload))
            sink = Sink()
            request = RunRequest(f"r{len(name)}-{number}", msgspec.json.encode(payload), "json")
            before, began = time.process_time(), time.perf_counter()
            outcome = await execution.executor.run(spec, request, sink, CancelToken(), outputs)
            run = time.perf_counter() - began, time.process_time() - before
            if not outcome.success:
                raise RuntimeError(outcome.error_message)
            if number >= 3:
                mine.append(run)
                theirs.append(bare)
        turns = list(zip(mine, theirs, strict=True))
        beyond, processor = (statistics.median(ours[clock] - bare[clock] for ours, bare in turns) for clock in (0, 1))
        ratio = statistics.median(ours[0] / bare[0] for ours, bare in turns)
        hand_ms, run_ms = (statistics.median(seconds for seconds, _ in found) * 1e3 for found in (theirs, mine))
        print(
            f"| {name} | {hand_ms:.3f} | {run_ms:.3f} | {ratio:.4f} | {beyond * 1e3:.3f} | {processor * 1e3:.3f} "
            f"| {sink.events} in {sink.batches} |",
            flush=True,
        )
    execution.close()


def views() -> None:
    """What a run's own scheduler costs, on the loop."""
    try:
        import diffusers
    except ImportError:
        return
    from gen_worker.residency.loaders.run_views import RunViews

    models = Path(__file__).resolve().parents[1] / "examples/models/digits-sd"
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(models, local_files_only=True)
    made = RunViews(pipe)
    print("\n| a pipeline's view for one run, median of 500 | us |\n|---|---|")
    for name, work in (
        ("a copy of an unused scheduler (ours)", made),
        ("a scheduler from its configuration", lambda: type(pipe.scheduler).from_config(pipe.scheduler.config)),
    ):
        times = []
        for _ in range(500):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        print(f"| {name} | {statistics.median(times) * 1e6:.0f} |", flush=True)


def main() -> None:
    """Both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gen-worker-bench-") as name:
        asyncio.run(measure(Path(name), options.rounds))
    views()


if __name__ == "__main__":
    main()
