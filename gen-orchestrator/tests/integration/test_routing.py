"""Which worker gets which run: workers over real gRPC that report where their models are."""

import asyncio
import time
from pathlib import Path

import msgspec
from scheduler_on_a_port import Scheduler, hello, in_a_loop

from gen_orchestrator.auth.worker_tokens import WorkerClaims, WorkerTokens
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.settings import FunctionSettings
from gen_worker.wire.messages import ModelTier, Registration

GB = 1_000_000_000


def run(run_id: str, model: str) -> Run:
    return Run(
        id=run_id, owner="ann", endpoint="e", function="f", tag="prod", release_id="rel", created_at=time.time(),
        payload=msgspec.msgpack.encode({"model": model}),
    )  # fmt: skip


def worker_with(*tiers: ModelTier) -> Registration:
    return hello(available_functions=("f",), max_concurrency=1, model_tiers=tiers, load_bytes_per_s=GB, network_bytes_per_s=GB)


@in_a_loop
async def test_nobody_waits_behind_a_run_that_waits_for_another_worker(tmp_path: Path) -> None:
    tokens = WorkerTokens.from_folder(tmp_path)
    settings = FunctionSettings(model_fields=("model",), models_by_key={"a": "ref-a", "b": "ref-b"})
    first = msgspec.structs.replace(worker_with(ModelTier("ref-a", "vram", 50 * GB)), instance_id="i1")
    second = msgspec.structs.replace(worker_with(ModelTier("ref-a", "disk", 50 * GB), ModelTier("ref-b", "disk", GB)), instance_id="i2")
    async with Scheduler(tokens) as scheduler, asyncio.timeout(60):
        hot = tokens.issue(WorkerClaims("hot", "ann", "rel"))
        other = tokens.issue(WorkerClaims("other", "ann", "rel"))
        async with scheduler.joined(hot, first), scheduler.joined(other, second):
            while len(scheduler.pool) < 2:
                await asyncio.sleep(0)
            lane = scheduler.dispatcher.lanes.lane("rel", "f", settings)
            lane.run_s = 5.0
            for run_id, model in (("r1", "a"), ("r2", "a"), ("r3", "b")):
                await scheduler.dispatcher.submit(run(run_id, model), lane)
            given = {worker.worker_id: sorted(worker.runs) for worker in scheduler.pool}
            assert given == {"hot": ["r1"], "other": ["r3"]}
            assert [item.run_id for item in lane.queue] == ["r2"]
