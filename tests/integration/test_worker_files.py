"""Files of a run over the file API: saved ones and inputs, by a real worker against a real HTTP server."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import WorkerProcess
from tests.wire_project import CODE

from gen_worker.testing.file_server import FileServer
from gen_worker.testing.loopback import LoopbackScheduler, RunFailedError
from gen_worker.wire.messages import RunResult

Start = Callable[..., WorkerProcess]
PNG = b"\x89PNG\r\n\x1a\n" + b"picture"


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    return project(CODE)


@asynccontextmanager
async def served(start_worker: Start, folder: Path, tmp_path: Path, **env: str) -> AsyncIterator[tuple[LoopbackScheduler, FileServer]]:
    (tmp_path / "run").mkdir()
    env = {"WORKER_RUN_DIR": str(tmp_path / "run"), "WORKER_CACHE_DIR": str(tmp_path / "cache"), **env}
    with FileServer(tmp_path / "files", token="run-token") as files:
        async with LoopbackScheduler() as scheduler:
            scheduler.file_api = (files.base_url, "run-token")
            start_worker(folder, scheduler.address, **env)
            await scheduler.worker()
            yield scheduler, files


async def failure(scheduler: LoopbackScheduler, function: str, payload: Any = None, **options: Any) -> RunResult:
    with pytest.raises(RunFailedError) as raised:
        await scheduler.call(function, payload, **options)
    return raised.value.result


async def test_a_file_is_saved(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, files):
        text = (await scheduler.call("save", {"size": 3_000_000}, run_id="r1", owner="me"))["text"]
        digest = hashlib.sha256(b"x" * 3_000_000).hexdigest()
        assert text == f"runs/r1/outputs/a b.bin 3000000 {digest}"
        assert (files.folder / "runs/r1/outputs/a b.bin").stat().st_size == 3_000_000
        assert files.requests == [("PUT", "runs/r1/outputs/a b.bin")]
        run = await scheduler.start_run("save", {"size": 10})
        await run.result()
        assert run.of_type("metrics.run")[0]["upload_ms"] >= 0


async def test_two_gigabytes_in_constant_memory(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path, WORKER_MAX_UPLOAD_BYTES="0") as (scheduler, files):
        size_bytes = 2 << 30
        text = (await scheduler.call("save-large", {"size": size_bytes}, timeout_s=110))["text"]
        saved, grown_kb = map(int, text.split())
        assert saved == size_bytes
        assert grown_kb < 40_000
        (files.folder / "large.bin").unlink()


async def test_create_refuses_to_replace(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, _):
        assert await scheduler.call("save-new", {"prompt": "/new//file"}) == {"text": "new/file"}
        result = await failure(scheduler, "save-new", {"prompt": "new/file"})
        assert result.error_type == "internal"
        assert "already exists" in result.error_message


async def test_refusals_of_the_file_api(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, files):
        files.fail_with = [403]
        result = await failure(scheduler, "save", {"size": 1})
        assert result.error_type == "auth"
        assert "403" in result.error_message
        assert "file_token" in result.error_message
        files.fail_with = [503, 429]
        assert "3" in (await scheduler.call("save", {"size": 3}))["text"], "passing faults are tried again"
        files.requests.clear()
        files.fail_with = [500, 500, 500]
        result = await failure(scheduler, "save", {"size": 1})
        assert (result.error_type, result.retryable, len(files.requests)) == ("retryable", True, 3)
        files.fail_with = [418]
        result = await failure(scheduler, "save", {"size": 1})
        assert (result.error_type, "418" in result.error_message) == ("internal", True)


@pytest.mark.parametrize("ref", ["../x", "a/../../x", "", "https://host/x", "a\x00b", "x/" * 70 + "y"])
async def test_bad_output_refs(start_worker: Start, folder: Path, tmp_path: Path, ref: str) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, files):
        assert (await failure(scheduler, "save-new", {"prompt": ref})).error_type == "validation"
        assert files.requests == []


async def test_too_large_and_nowhere_to_save(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path, WORKER_MAX_UPLOAD_BYTES="100") as (scheduler, _):
        result = await failure(scheduler, "save", {"size": 101})
        assert (result.error_type, "output file too large" in result.safe_message) == ("validation", True)
        result = await failure(scheduler, "save", {"size": 1}, file_base_url="", file_token="")
        assert "FILE_API_BASE_URL" in result.error_message
        result = await failure(scheduler, "save", {"size": 1}, file_base_url="ftp://somewhere")
        assert "expected http://host or https://host" in result.error_message
        assert "100" in (await scheduler.call("save", {"size": 100}))["text"]


async def test_the_environments_file_api_serves_runs_that_bring_none(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    with FileServer(tmp_path / "shared", token="env-token") as shared:
        env = {"FILE_API_BASE_URL": shared.base_url + "/", "FILE_API_TOKEN": "env-token"}
        async with served(start_worker, folder, tmp_path, **env) as (scheduler, files):
            await scheduler.call("save", {"size": 5}, run_id="own")
            await scheduler.call("save", {"size": 5}, run_id="none", file_base_url="", file_token="")
            assert [ref for _, ref in files.requests] == ["runs/own/outputs/a b.bin"]
            assert [ref for _, ref in shared.requests] == ["runs/none/outputs/a b.bin"]
            # For inputs only the run's own base and token count.
            result = await failure(scheduler, "look", {"image": {"ref": "x"}}, file_base_url="", file_token="")
            assert "file_base_url" in result.error_message
            assert len(shared.requests) == 1


async def test_an_input_is_fetched_checked_and_removed(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, files):
        (files.folder / "in").mkdir(parents=True)
        (files.folder / "in/pic ture.png").write_bytes(PNG)
        payload = {"image": {"ref": "/in/pic ture.png", "local_path": "/etc/passwd", "owner": "root", "sha256": "forged", "size_bytes": 1}}
        head, size, digest, mime, owner, path = (await scheduler.call("look", payload, run_id="r1", owner="me"))["text"].split()
        assert (bytes.fromhex(head), size, mime, owner) == (PNG[:8], str(len(PNG)), "image/png", "me")
        assert digest == hashlib.sha256(PNG).hexdigest()
        assert path.startswith(str(tmp_path / "run" / "r1"))
        assert not Path(path).exists()
        assert list((tmp_path / "run").iterdir()) == []
        assert [method for method, _ in files.requests] == ["HEAD", "GET"]
        await scheduler.call("look", payload, owner="me")
        assert [method for method, _ in files.requests] == ["HEAD", "GET", "HEAD"], "the second time it comes from the cache"
        await scheduler.call("look", payload, owner="somebody else")
        assert [method for method, _ in files.requests][3:] == ["HEAD", "GET"], "nobody is given another owner's copy"


@pytest.mark.parametrize("book", [lambda image: {"pages": [{"image": image}, {"image": image}]}, lambda image: {"row": {"image": image}}])
async def test_inputs_in_classes_of_every_kind_are_fetched(start_worker: Start, folder: Path, tmp_path: Path, book: Any) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, files):
        files.folder.mkdir(exist_ok=True)
        (files.folder / "text").write_bytes(b"fetched")
        answer = await scheduler.call("look-in-book", book({"ref": "text", "local_path": "/etc/hostname"}))
        assert set(answer["text"].split()) == {"fetched"}
        result = await failure(scheduler, "look-in-book", book({"ref": "nothing", "local_path": "/etc/hostname"}))
        assert result.error_type == "validation"


async def test_a_run_that_writes_into_its_input_spoils_it_for_nobody(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, files):
        files.folder.mkdir(exist_ok=True)
        (files.folder / "text").write_bytes(b"original")
        for _ in range(3):
            assert await scheduler.call("spoil", {"image": {"ref": "text"}}, owner="me") == {"text": "original"}


async def test_inputs_that_cannot_be_had(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path, WORKER_MAX_INPUT_FILE_BYTES="10") as (scheduler, files):
        files.folder.mkdir(exist_ok=True)
        (files.folder / "large").write_bytes(b"x" * 11)
        result = await failure(scheduler, "look", {"image": {"ref": "nothing"}})
        assert (result.error_type, "404" in result.error_message) == ("validation", True)
        result = await failure(scheduler, "look", {"image": {"ref": "large"}})
        assert (result.error_type, "at most 10 are allowed" in result.safe_message) == ("validation", True)
        assert [method for method, _ in files.requests] == ["HEAD", "HEAD"]
        files.fail_with = [401]
        assert (await failure(scheduler, "look", {"image": {"ref": "large"}})).error_type == "auth"
        result = await failure(scheduler, "look", {"image": {"ref": "../../etc/passwd"}})
        assert result.error_type == "validation"
        for url in (files.base_url + "/api/v1/file/large", "http://169.254.169.254/x", "ftp://host/x"):
            result = await failure(scheduler, "look", {"image": {"ref": url}})
            assert (result.error_type, "input url blocked" in result.error_message) == ("validation", True)
