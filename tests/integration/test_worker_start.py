"""What a worker needs to start, and its error when that is missing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.conftest import WorkerProcess
from tests.waiting import until
from tests.wire_project import CODE

from gen_worker.testing.loopback import LoopbackScheduler

Start = Callable[..., WorkerProcess]


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    return project(CODE)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"SCHEDULER_PUBLIC_ADDR": ""}, "SCHEDULER_PUBLIC_ADDR is not set"),
        ({"WORKER_JWT": ""}, "WORKER_JWT is not set"),
        ({"WORKER_JWT": "two words"}, "the worker token contains invalid characters"),
        ({"GEN_WORKER_MANIFEST_PATH": "/nowhere/manifest.json"}, "manifest /nowhere/manifest.json cannot be read"),
        ({"RECONNECT_DELAY": "soon"}, "RECONNECT_DELAY='soon'"),
        ({"RECONNECT_DELAY": "-1"}, "RECONNECT_DELAY=-1.0: expected seconds from 0 up"),
        ({"WORKER_MAX_MESSAGE_BYTES": "10"}, "WORKER_MAX_MESSAGE_BYTES=10: expected bytes from 65536 up"),
        ({"WORKER_CACHE_DIR": "/proc/cannot"}, "cannot be written"),
        ({"USE_TLS": "1", "SCHEDULER_TLS_CA_FILE": "/nowhere.pem"}, "TLS file '/nowhere.pem' cannot be read"),
    ],
)
def test_what_cannot_start_says_why(start_worker: Start, folder: Path, env: dict[str, str], said: str) -> None:
    worker = start_worker(folder, "127.0.0.1:1", **env)
    assert worker.process.wait(60) == 1
    assert said in worker.log
    assert worker.logged("worker.fatal")[0]["exit_code"] == 1


def test_a_module_that_cannot_be_imported_ends_it(start_worker: Start, folder: Path) -> None:
    manifest = folder / "manifest.json"
    found = subprocess.run([sys.executable, "-m", "gen_worker.discover"], cwd=folder, capture_output=True, check=True)
    manifest.write_bytes(found.stdout)
    (module,) = (folder / "src").glob("*/main.py")
    module.write_text("import not_there_at_all")
    worker = start_worker(folder, "127.0.0.1:1", GEN_WORKER_MANIFEST_PATH=str(manifest))
    assert worker.process.wait(60) == 1
    assert "not_there_at_all" in worker.log


def test_a_version_that_does_not_fit(start_worker: Start, folder: Path) -> None:
    cozy = folder / "cozy.toml"
    cozy.write_text(cozy.read_text().replace(">=0.2.0,<0.3.0", ">=9"))
    worker = start_worker(folder, "127.0.0.1:1")
    assert worker.process.wait(60) == 2
    assert "does not satisfy gen_worker = '>=9'" in worker.log


async def test_the_baked_manifest_is_served(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, "-m", "gen_worker.discover"], cwd=folder, capture_output=True, check=True)
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(found.stdout)
    assert {entry["name"] for entry in msgspec.json.decode(found.stdout)["functions"]} >= {"echo", "batch"}
    async with LoopbackScheduler() as scheduler:
        start_worker(tmp_path, scheduler.address, GEN_WORKER_MANIFEST_PATH=str(manifest), GEN_WORKER_ENDPOINT_ROOT=str(folder))
        assert await scheduler.call("echo", {"prompt": "baked"}) == {"text": "baked"}


def test_sigterm_while_functions_are_imported(project: Callable[..., Path], start_worker: Callable[..., WorkerProcess]) -> None:
    worker = start_worker(project('print("importing", flush=True)\ntime.sleep(30)\n'), "127.0.0.1:1")
    until(lambda: "importing" in worker.log)
    assert worker.stop(5) == 0
