"""A worker that fetches the models its scheduler lists: expiry, prefetch, inventory after a restart."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blake3 import blake3
from tests.blob_server import BlobServer
from tests.conftest import WorkerProcess
from tests.fake_hub import FakeCozyHub, read_tree
from tests.integration.test_worker_models import CODE, COZY, said
from tests.waiting import eventually

from gen_worker.testing.loopback import LoopbackScheduler, RunFailedError
from gen_worker.wire.messages import ReleaseConfig, ResolvedFile, ResolvedModel, UrlRefreshRequest, UrlRefreshResponse

REF = "cozy:o/one:latest"
PINNED = f"cozy:other/pinned@blake3:{'ab' * 32}"  # a ref that no key of the project names
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


def pinned(server: BlobServer, files: dict[str, bytes], version: str = PINNED.rpartition("@")[2], **how: object) -> ReleaseConfig:
    """What a scheduler sends that is about to pin runs to a version: no key, the files with their addresses. `how` they are served."""
    listed = []
    for path, data in files.items():
        url = server.add(f"/pinned/{path}", data, **how)
        listed.append(ResolvedFile(path, len(data), blake3(data).hexdigest(), url))
    return ReleaseConfig(resolved_models={PINNED: ResolvedModel(version, tuple(listed))}, required_refs=(PINNED,))


def told_of(scheduler: LoopbackScheduler, ref: str) -> list[str]:
    """The kinds of events about a model, in the order in which they came, without its progress."""
    return [kind for kind, body in said(scheduler, "model.") if ref in body.values() and kind != "model.progress"]


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


async def test_a_required_ref_that_no_key_names_is_fetched(
    start_worker: Start, project: Callable[..., Path], tmp_path: Path, server: BlobServer
) -> None:
    files = {"weights": b"pinned", "unet/more": os.urandom(300_000)}
    async with served(start_worker, project, tmp_path, WORKER_HEARTBEAT_S="60") as scheduler:
        worker = scheduler.workers[0]
        before = len(worker.registrations)
        worker.send(pinned(server, files))
        await scheduler.until(lambda: PINNED in worker.resources.disk_models)
        order = ["model.download.started", "model.ready", "model.cached", "model.download.completed"]
        await scheduler.until(lambda: told_of(scheduler, PINNED) == order)
        assert [PINNED in registration.resources.disk_models for registration in worker.registrations[before:]][-1]
        (completed,) = said(scheduler, "model.download.completed")
        assert completed[1] == {"model_id": PINNED, "cached": False, "duration_ms": completed[1]["duration_ms"]}
        assert any(body.get("bytes_total") == 300_006 for kind, body in said(scheduler, "model.progress"))
        snapshot = next((tmp_path / "cache").rglob(f"snapshots/*{'ab' * 32}"))
        assert read_tree(snapshot) == files
        requests = len(server.requests)
        worker.send(pinned(server, files))
        await scheduler.until(lambda: len(told_of(scheduler, PINNED)) == 7)
        assert told_of(scheduler, PINNED)[4:] == ["model.download.completed", "model.ready", "model.cached"], "here already"
        assert said(scheduler, "model.download.completed")[1][1] == {"model_id": PINNED, "cached": True, "duration_ms": 0}
        assert len(server.requests) == requests


async def test_an_answer_that_is_cut_off_is_resumed(
    start_worker: Start, project: Callable[..., Path], tmp_path: Path, server: BlobServer
) -> None:
    data = os.urandom(3 << 20)
    async with served(start_worker, project, tmp_path) as scheduler:
        scheduler.workers[0].send(pinned(server, {"weights": data}, cut_after=1 << 20, cuts=2))
        await scheduler.until(lambda: PINNED in scheduler.workers[0].resources.disk_models)
        await scheduler.until(lambda: told_of(scheduler, PINNED)[-1] == "model.download.completed")
        assert server.sent_bytes == len(data), "no byte twice"
        assert len(server.requests) == 3


async def test_a_killed_workers_part_is_resumed_by_the_next(
    start_worker: Start, project: Callable[..., Path], tmp_path: Path, server: BlobServer
) -> None:
    data = os.urandom(24 << 20)
    folder = project(CODE, COZY)
    cache = str(tmp_path / "cache")
    async with LoopbackScheduler() as scheduler:
        first = start_worker(folder, scheduler.address, TENSORHUB_CACHE_DIR=cache, WORKER_DEVICE="cpu")
        config = pinned(server, {"weights": data}, chunk_pause_s=0.02)
        (await scheduler.worker()).send(config)
        await eventually(lambda: any(b'"done":[[0,' in journal.read_bytes() for journal in Path(cache).rglob("*.part.json")))
        first.process.kill()
        await scheduler.until(lambda: not scheduler.workers)
        server.blobs["/pinned/weights"].chunk_pause_s = 0
        start_worker(folder, scheduler.address, TENSORHUB_CACHE_DIR=cache, WORKER_DEVICE="cpu")
        worker = await scheduler.worker()
        asked = len(server.requests)
        worker.send(config)
        await scheduler.until(lambda: PINNED in worker.resources.disk_models)
        ranges = [wanted for _, _, wanted in server.requests[asked:]]
        assert ranges
        assert all(wanted.startswith("bytes=") and not wanted.startswith("bytes=0-") for wanted in ranges), ranges
        assert not list(Path(cache).rglob("*.part*"))


@pytest.mark.parametrize("version", ["", "AB" * 32])
async def test_the_version_of_a_pinned_ref_is_written_in_any_way(
    start_worker: Start, project: Callable[..., Path], tmp_path: Path, server: BlobServer, version: str
) -> None:
    async with served(start_worker, project, tmp_path) as scheduler:
        scheduler.workers[0].send(pinned(server, {"weights": b"pinned"}, version))
        await scheduler.until(lambda: PINNED in scheduler.workers[0].resources.disk_models)


async def test_files_of_another_version_are_not_served_under_a_pinned_ref(
    start_worker: Start, project: Callable[..., Path], tmp_path: Path, server: BlobServer
) -> None:
    async with served(start_worker, project, tmp_path) as scheduler:
        scheduler.workers[0].send(pinned(server, {"weights": b"others"}, f"blake3:{'cd' * 32}"))
        await scheduler.until(lambda: told_of(scheduler, PINNED) == ["model.download.started", "model.download.failed"])
        assert not server.requests
