"""Models over the wire: a release's configuration, load, unload, prefetch, and what the registration reports about them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import WorkerProcess

from gen_worker.testing.loopback import LoopbackScheduler, RunFailedError
from gen_worker.wire.messages import (
    LoadModel,
    LoadModelResult,
    ModelRefSpec,
    ModelsByKey,
    ReleaseConfig,
    ResolvedFile,
    ResolvedModel,
    UnloadModel,
    UnloadModelResult,
    UrlRefreshResponse,
)

CODE = """
import threading
from gen_worker.errors import *

class In(msgspec.Struct):
    model: str = "one"
    seconds: float = 0.0

class Out(msgspec.Struct):
    text: str

class Toy:
    def __init__(self, text):
        self.text = text

    @classmethod
    def from_pretrained(cls, path):
        text = (Path(path) / "weights").read_text()
        if text == "slow":
            time.sleep(0.6)
        if text == "too large":
            raise MemoryError("no room")
        return cls(text)

@worker_function()
def fixed(ctx: ActionContext, toy: Annotated[Toy, ModelRef(ModelRefSource.FIXED, "one")], payload: In) -> Out:
    ctx.done().wait(payload.seconds)
    return Out(toy.text)

@worker_function()
def chosen(ctx: ActionContext, toy: Annotated[Toy, ModelRef(ModelRefSource.PAYLOAD, "model")], payload: In) -> Out:
    return Out(toy.text)

@worker_function()
def resolved(ctx: ActionContext, payload: In) -> Out:
    return Out(",".join(sorted(ctx.resolved_cozy_models_by_id or {})))

@worker_websocket()
async def talk(ctx: ActionContext, sock: RealtimeSocket, toy: Annotated[Toy, ModelRef(ModelRefSource.FIXED, "one")]) -> None:
    await sock.send_bytes(toy.text.encode())
"""
COZY = """
[models]
one = "cozy:o/one"
two = "hf:o/two"
slow = "cozy:o/slow"
large = "cozy:o/large"
"""
TEXTS = {"one": "first", "two": "second", "slow": "slow", "large": "too large"}
Start = Callable[..., WorkerProcess]


@pytest.fixture
def folder(project: Callable[..., Path], tmp_path: Path) -> Path:
    for key, text in TEXTS.items():
        (tmp_path / key).mkdir()
        (tmp_path / key / "weights").write_text(text)
    return project(CODE, COZY)


@asynccontextmanager
async def served(start_worker: Start, folder: Path, tmp_path: Path, **env: str) -> AsyncIterator[LoopbackScheduler]:
    overrides = ",".join(f"{key}={tmp_path / key}" for key in TEXTS)
    async with LoopbackScheduler() as scheduler:
        # A named device: finding one may import torch, which takes seconds.
        start_worker(folder, scheduler.address, COZY_MODEL_OVERRIDES=overrides, WORKER_DEVICE="cpu", **env)
        await scheduler.worker()
        yield scheduler


def said(scheduler: LoopbackScheduler, prefix: str) -> list[tuple[str, dict[str, Any]]]:
    found = [event for event in scheduler.events if event.event_type.startswith(prefix)]
    return [(event.event_type, msgspec.json.decode(event.payload)) for event in found]


async def test_a_run_with_a_model(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as scheduler:
        run = await scheduler.start_run("fixed")
        assert await run.output() == {"text": "first"}
        kinds = [event.event_type for event in run.events]
        steps = ["task.model_resolve.started", "task.model_resolve.completed", "task.model_load.started", "task.model_load.completed"]
        assert [kind for kind in kinds if "model" in kind] == steps
        assert kinds.index("task.started") < kinds.index(steps[0]) < kinds.index("task.inference.started")
        assert [kind for kind in kinds if kind.startswith("metrics.")] == [
            "metrics.compute.started",
            "metrics.compute.completed",
            "metrics.fetch",
            "metrics.gpu_load",
            "metrics.inference",
            "metrics.run",
        ]
        (model,) = run.of_type("metrics.run")[0]["models"]
        assert (model["model_id"], model["cache_state"]) == ("cozy:o/one:latest", "warm_disk")
        assert not any("/" in str(value) for key, value in model.items() if key != "model_id"), "no paths"
        again = await scheduler.start_run("fixed")
        await again.output()
        assert again.of_type("metrics.run")[0]["cache_state"] == "hot_vram"
        assert await scheduler.call("chosen", {"model": "two"}) == {"text": "second"}
        with pytest.raises(RunFailedError, match="no model 'tow'"):
            await scheduler.call("chosen", {"model": "tow"})


async def test_load_and_unload(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path, WORKER_HEARTBEAT_S="60") as scheduler:
        worker = scheduler.workers[0]
        worker.send(LoadModel("cozy:o/slow"))
        assert await scheduler.call("fixed", {"model": "one"}) == {"text": "first"}, "a load does not stand in the way of runs"
        await scheduler.until(lambda: bool(scheduler.answers))
        assert scheduler.answers == [LoadModelResult("cozy:o/slow:latest", True)]
        await scheduler.until(lambda: "cozy:o/slow:latest" in worker.resources.vram_models)
        assert [kind for kind, _ in said(scheduler, "model.load")] == ["model.load.started", "model.load.completed"]
        tiers = {tier.model_id: tier.tier for tier in worker.resources.model_tiers}
        assert tiers["cozy:o/slow:latest"] == "vram"
        run = await scheduler.start_run("fixed", {"seconds": 30})
        await scheduler.until(lambda: bool(run.of_type("task.inference.started")))
        scheduler.answers.clear()
        worker.send(UnloadModel("cozy:o/one"))
        worker.send(UnloadModel("slow"))
        worker.send(UnloadModel("cozy:o/never:v1"))
        await scheduler.until(lambda: len(scheduler.answers) == 3)
        assert scheduler.answers == [
            UnloadModelResult("cozy:o/one:latest", False, "model_in_use"),
            UnloadModelResult("cozy:o/slow:latest", True),
            UnloadModelResult("cozy:o/never:v1", True),
        ]
        assert ("model.unload.failed", "in_use") in [(kind, body.get("reason")) for kind, body in said(scheduler, "model.unload")]
        run.cancel()
        await run.result()
        scheduler.answers.clear()
        for name in ("large", "cozy:o/unknown"):
            worker.send(LoadModel(name))
        await scheduler.until(lambda: len(scheduler.answers) == 2)
        texts = {answer.model_id: answer.error_message for answer in scheduler.answers if isinstance(answer, LoadModelResult)}
        assert texts["cozy:o/large:latest"].startswith("insufficient_vram: ")
        assert "no model 'cozy:o/unknown'" in texts["cozy:o/unknown:latest"]


async def test_a_release_replaces_and_narrows_the_keys(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as scheduler:
        worker = scheduler.workers[0]
        worker.send(ReleaseConfig(supported_refs=("cozy:o/one",)))
        assert await scheduler.call("chosen", {"model": "one"}) == {"text": "first"}
        with pytest.raises(RunFailedError, match="not allowed in this release"):
            await scheduler.call("chosen", {"model": "two"})
        table = ModelsByKey({"two": ModelRefSpec("hf:o/two", ("bf16",))})
        worker.send(ReleaseConfig(models_by_function={"chosen": table, "fixed": table}))
        with pytest.raises(RunFailedError, match="Allowed keys: two"):
            await scheduler.call("chosen", {"model": "one"})
        assert await scheduler.call("chosen", {"model": "two"}) == {"text": "second"}
        worker.send(ReleaseConfig(supported_refs=("*",)))
        assert await scheduler.call("chosen", {"model": "one"}) == {"text": "first"}, "back to what the project declares"


async def test_required_models_are_prefetched(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path, WORKER_HEARTBEAT_S="60") as scheduler:
        worker = scheduler.workers[0]
        worker.send(ReleaseConfig(required_refs=("hf:o/two", "cozy:o/unknown")))
        await scheduler.until(lambda: "hf:o/two" in worker.resources.disk_models)
        await scheduler.until(lambda: len(said(scheduler, "model.download")) == 3)
        kinds = {(kind, body.get("model_id")) for kind, body in said(scheduler, "model.")}
        assert kinds >= {
            ("model.download.completed", "hf:o/two"),
            ("model.ready", "hf:o/two"),
            ("model.download.failed", "cozy:o/unknown:latest"),
        }
        here = [kind for kind, body in said(scheduler, "model.") if body.get("model_id") == "hf:o/two"]
        assert here == ["model.download.completed", "model.ready"], "it was here: nothing was started"


async def test_resolved_models_of_the_release_and_of_the_run(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as scheduler:
        files = ResolvedModel("digest", (ResolvedFile("a", 1, "00", "https://host/a"),))
        scheduler.workers[0].send(ReleaseConfig(resolved_models={"cozy:o/one": files}))
        scheduler.workers[0].send(UrlRefreshResponse("cozy:o/slow", files))
        text = (await scheduler.call("resolved", resolved_models={"cozy:o/two:latest": files}))["text"]
        assert text == "cozy:o/one:latest,cozy:o/slow:latest,cozy:o/two:latest"


async def test_realtime_takes_models_by_position(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as scheduler:
        session = await scheduler.open_realtime("talk", required_models=("cozy:o/one",))
        frame = await session.receive()
        assert frame is not None
        assert frame.data == b"first"
        for models in ((), ("cozy:o/not-ours",)):
            session = await scheduler.open_realtime("talk", required_models=models)
            assert await session.receive() is None
            assert session.reason == "error:FatalError"


async def test_stuck_loads_are_reported(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path, WORKER_WARN_MODEL_LOAD_S="0.1") as scheduler:
        run = await scheduler.start_run("chosen", {"model": "slow"})
        assert await run.output() == {"text": "slow"}
        (stuck,) = run.of_type("task.model_load.stuck")
        assert (stuck["param_name"], stuck["model_id"]) == ("toy", "cozy:o/slow:latest")
        assert "time.sleep(0.6)" in "".join(stuck["stacks"])
