"""Run ids that a scheduler chooses: they become folder names, so a bad one is refused, and deletes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import WorkerProcess
from tests.wire_project import CODE

from gen_worker.names import is_run_id
from gen_worker.testing.file_server import FileServer
from gen_worker.testing.loopback import LoopbackScheduler

BAD = [
    "",
    ".",
    "..",
    "/",
    "a/b",
    "r1/..",
    "../run",
    ".input-cache",
    "-x",
    "a\0b",
    'a\n{"level":"error"}\x1b[31m',
    "a" * 129,
    "a" * 5000,
    "ä",
    "a b",
]


@pytest.mark.parametrize("run_id", [*BAD, "/etc", "～", "\u202e", "a\ud800"])
def test_ids_that_are_refused(run_id: str) -> None:
    assert not is_run_id(run_id)


@pytest.mark.parametrize("run_id", ["0", "run-1", "R.1_x", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "input-cache", "a" * 128])
def test_ids_that_are_taken(run_id: str) -> None:
    assert is_run_id(run_id)


async def test_a_bad_run_id_is_refused_and_nothing_is_removed(
    start_worker: Callable[..., WorkerProcess], project: Callable[..., Path], tmp_path: Path
) -> None:
    run_dir = tmp_path / "a" / "run"
    for folder in (run_dir / "bystander", run_dir.parent / "sibling", tmp_path / "victim"):
        folder.mkdir(parents=True)
        (folder / "keep").write_text("mine")
    with FileServer(tmp_path / "files", token="run-token") as files:
        files.folder.mkdir(exist_ok=True)
        (files.folder / "x").write_bytes(b"input")
        async with LoopbackScheduler() as scheduler:
            scheduler.file_api = (files.base_url, "run-token")
            start_worker(project(CODE), scheduler.address, WORKER_RUN_DIR=str(run_dir))
            await scheduler.worker()
            for run_id in [*BAD, str(tmp_path / "victim")]:
                run = await scheduler.start_run("look", {"image": {"ref": "x"}}, run_id=run_id)
                result = await run.result(60)
                assert (result.run_id, result.error_type, result.retryable) == (run_id, "validation", False)
                assert "expected 1 to 128 letters" in result.safe_message
                assert len(result.safe_message) < 1000
                assert result.safe_message.isprintable()
                assert files.requests == []
                assert not run.of_type("task.started")
                without_files = await scheduler.start_run("echo", {}, run_id=run_id)
                assert (await without_files.result(60)).error_type == "validation"
            # An id that is the name of a folder of the worker's own, in a program that did not know this rule.
            await scheduler.call("look", {"image": {"ref": "x"}}, owner="me")
            await scheduler.call("look", {"image": {"ref": "x"}}, owner="me", run_id="input-cache")
            await scheduler.call("look", {"image": {"ref": "x"}}, owner="me")
            assert [method for method, _ in files.requests].count("GET") == 1, "the cache is as it was"
    for folder in (run_dir / "bystander", run_dir.parent / "sibling", tmp_path / "victim"):
        assert (folder / "keep").read_text() == "mine"


async def test_a_bad_session_id_is_refused(start_worker: Callable[..., WorkerProcess], project: Callable[..., Path]) -> None:
    async with LoopbackScheduler() as scheduler:
        start_worker(project(CODE), scheduler.address)
        await scheduler.worker()
        session = await scheduler.open_realtime("mirror", session_id="../x")
        assert await session.receive() is None
        assert session.reason == "invalid_session_id"
        assert await scheduler.call("echo", {"prompt": "still here"}) == {"text": "still here"}
