"""A worker that fetches what its scheduler has listed: expiry, prefetch, inventory after a restart."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.blob_server import BlobServer
from tests.conftest import WorkerProcess
from tests.fake_hub import FakeCozyHub
from tests.integration.test_worker_models import CODE, COZY, said

from gen_worker.testing.loopback import LoopbackScheduler, RunFailedError
from gen_worker.wire.messages import ReleaseConfig, ResolvedFile, ResolvedModel, UrlRefreshRequest, UrlRefreshResponse

REF = "cozy:o/one:latest"
Start = Callable[..., WorkerProcess]


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


@pytest.fixture
def hub(server: BlobServer) -> FakeCozyHub:
    hub = FakeCozyHub(server)
    hub.add(REF, {"weights": b"fetched", "more/data": b"x" * 200_000})
    return hub


@asynccontextmanager
async def served(start_worker: Start, project: Callable[..., Path], tmp_path: Path, **env: str) -> AsyncIterator[LoopbackScheduler]:
    folder = tmp_path / "project"
    if not folder.exists():
        project(CODE, COZY)
    cache = str(tmp_path / "cache")
    async with LoopbackScheduler() as scheduler:
        process = start_worker(folder, scheduler.address, TENSORHUB_CACHE_DIR=cache, WORKER_DEVICE="cpu", **env)
        await scheduler.worker()
        yield scheduler
        process.process.terminate()
        await process.ended()


def resolved(hub: FakeCozyHub) -> dict[str, ResolvedModel]:
    files = tuple(
        ResolvedFile(str(file["path"]), int(str(file["size_bytes"])), str(file["blake3"]), str(file["url"])) for file in hub.files_of(REF)
    )
    return {REF: ResolvedModel(hub.digest_of(REF), files)}


async def test_listed_files_are_fetched_and_metrics_say_so(
    start_worker: Start, project: Callable[..., Path], tmp_path: Path, hub: FakeCozyHub
) -> None:
    async with served(start_worker, project, tmp_path) as scheduler:
        run = await scheduler.start_run("fixed", resolved_models=resolved(hub))
        assert await run.output() == {"text": "fetched"}
        (metrics,) = run.of_type("metrics.run")
        assert metrics["cache_state"] == "cold_remote"
        (model,) = metrics["models"]
        assert (model["model_id"], model["snapshot_digest"], model["bytes_downloaded"]) == (REF, hub.digest_of(REF), 200_007)
        assert {"task.model.progress"} <= {event.event_type for event in run.events}
        # Without a list nobody may be asked, and the store answers all the same.
        assert await scheduler.call("fixed") == {"text": "fetched"}
        with pytest.raises(RunFailedError, match="orchestrator-resolved URLs are required"):
            await scheduler.call("chosen", {"model": "slow"})


async def test_expired_addresses_are_asked_for(
    start_worker: Start, project: Callable[..., Path], tmp_path: Path, hub: FakeCozyHub, server: BlobServer
) -> None:
    async with served(start_worker, project, tmp_path) as scheduler:
        worker = scheduler.workers[0]
        old = resolved(hub)
        server.token = "2"
        worker.send(ReleaseConfig(resolved_models=old, required_refs=(REF,)))
        await scheduler.until(lambda: any(isinstance(message, UrlRefreshRequest) for message in scheduler.answers))
        assert said(scheduler, "model.url_refresh")[0][1] == {"model_id": REF}
        worker.send(UrlRefreshResponse(REF, resolved(hub)[REF]))
        await scheduler.until(lambda: REF in worker.resources.disk_models)
        await scheduler.until(lambda: bool(said(scheduler, "model.cached")))
        (ready,) = said(scheduler, "model.ready")
        assert ready[1]["model_id"] == REF
        (cached,) = said(scheduler, "model.cached")
        assert cached[1]["model_variant_id"] == REF
        assert cached[1]["disk_backend"] == "local"
        (completed,) = said(scheduler, "model.download.completed")
        assert completed[1]["cached"] is False
        assert await scheduler.call("fixed") == {"text": "fetched"}
        await scheduler.until(lambda: worker.resources.vram_models == (REF,))
        assert REF not in worker.resources.disk_models


async def test_a_restarted_worker_knows_its_disk(
    start_worker: Start, project: Callable[..., Path], tmp_path: Path, hub: FakeCozyHub, server: BlobServer
) -> None:
    async with served(start_worker, project, tmp_path) as scheduler:
        scheduler.workers[0].send(ReleaseConfig(resolved_models=resolved(hub), required_refs=(REF,)))
        await scheduler.until(lambda: REF in scheduler.workers[0].resources.disk_models)
    requests = len(server.requests)
    async with served(start_worker, project, tmp_path) as scheduler:
        await scheduler.until(lambda: REF in scheduler.workers[0].resources.disk_models)
        await scheduler.until(lambda: bool(said(scheduler, "models.disk_inventory")))
        (inventory,) = said(scheduler, "models.disk_inventory")
        assert inventory[1]["disk_models"] == [REF]
        scheduler.workers[0].send(ReleaseConfig(resolved_models=resolved(hub), required_refs=(REF,)))
        await scheduler.until(lambda: bool(said(scheduler, "model.download.completed")))
        assert said(scheduler, "model.download.completed")[0][1]["cached"] is True
    assert len(server.requests) == requests
