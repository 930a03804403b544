"""Fixtures: projects written into a folder, and a dev runner that really serves them."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests import inherited_signals, patient_http  # noqa: F401 - for their effect
from tests.async_tests import pytest_pyfunc_call  # noqa: F401 - a hook
from tests.browser import browser, expect, tab  # noqa: F401 - fixtures
from tests.readable_failures import pytest_runtest_makereport  # noqa: F401 - a hook
from tests.waiting import LIMIT_S, until

# Laws are about results, not about how busy the machine is.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
HEADER = """\
import asyncio, os, sys, time
from collections.abc import AsyncIterator, Iterator, Iterable
from pathlib import Path
from typing import Annotated
import msgspec
from gen_worker import *
"""


class Runner:
    """A dev runner in a process of its own."""

    program = (sys.executable, "-m", "gen_worker.testing.http_runner")

    def __init__(self, folder: Path, outputs: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = [*self.program, "--listen", "127.0.0.1:0", "--outputs", str(outputs), *arguments]
        self.outputs = outputs
        self.log = outputs.parent / "runner.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env={**os.environ, **(env or {})}, stderr=log, stdout=log)
        self.url = self._wait_for_url()
        self.http = httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def _wait_for_url(self) -> str:
        until(lambda: "listening on" in self.log.read_text() or self.process.poll() is not None, 60, self.log.read_text)
        found = re.search(r"listening on (http://\S+)", self.log.read_text())
        assert found, self.log.read_text()
        return found[1]

    def run(self, function: str, payload: Any = None, **options: Any) -> httpx.Response:
        return self.http.post(f"/v1/run/{function}", json={"payload": payload or {}, **options})

    def until(self, check: Callable[[], bool], timeout_s: float = LIMIT_S) -> None:
        """Wait for a state of the server that it cannot announce."""
        until(check, timeout_s)

    def stop(self) -> int:
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def write_project(folder: Path, code: str, cozy: str = "", name: str = "demo") -> Path:
    """An endpoint folder whose module holds `code`."""
    package = f"demo_{abs(hash(str(folder))) % 10**8}"
    (folder / "src" / package).mkdir(parents=True)
    (folder / "src" / package / "__init__.py").write_text("")
    (folder / "src" / package / "main.py").write_text(HEADER + code)
    (folder / "cozy.toml").write_text(
        f'schema_version = 1\nname = "{name}"\nmain = "{package}.main"\ngen_worker = ">=0.2.0,<0.3.0"\n{cozy}'
    )
    return folder


@pytest.fixture(autouse=True)
def _own_caches(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes this machine's model caches, or asks a model hub on the Internet."""
    caches = tmp_path_factory.getbasetemp() / "caches"
    for name, value in {
        "TENSORHUB_CACHE_DIR": str(caches / "tensorhub"),
        "HF_HOME": str(caches / "hf"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "COZY_HUB_URL": "",
        "HF_TOKEN": "",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    def make(code: str, cozy: str = "", name: str = "demo") -> Path:
        return write_project(tmp_path / "project", code, cozy, name)

    return make


@pytest.fixture
def start_runner(tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    runners: list[Runner] = []

    def start(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Runner:
        runners.append(Runner(folder, tmp_path / f"outputs{len(runners)}", *arguments, env=env))
        return runners[-1]

    yield start
    for runner in runners:
        if runner.process.poll() is None:
            runner.stop()


class WorkerProcess:
    """A production worker in a process of its own."""

    def __init__(self, folder: Path, log: Path, address: str, env: dict[str, str] | None = None) -> None:
        self._log = log
        fast = {"RECONNECT_DELAY": "0.1", "RECONNECT_MAX_DELAY": "0.5", "RECONNECT_JITTER_SECONDS": "0.05"}
        settings = {"SCHEDULER_PUBLIC_ADDR": address, "WORKER_JWT": "test-token", "LOG_FORMAT": "json", **fast, **(env or {})}
        environ = {**os.environ, **settings}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gen_worker.entrypoint"],
                cwd=folder,
                env={name: text for name, text in environ.items() if text},
                stderr=file,
                stdout=file,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log_lines if line["event"] == event]

    def stop(self, timeout_s: float = 15) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    async def ended(self, timeout_s: float = 15) -> int:
        """Wait for the end without standing in the way of a scheduler in the test's own loop."""
        return await asyncio.to_thread(self.process.wait, timeout_s)


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    workers: list[WorkerProcess] = []

    def start(folder: Path, address: str, **env: str) -> WorkerProcess:
        workers.append(WorkerProcess(folder, tmp_path / f"worker{len(workers)}.log", address, env))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.kill()
            worker.process.wait()


def sse_events(response: httpx.Response) -> Iterator[tuple[int, str, Any]]:
    """Events of a stream as (id, name, data)."""
    event_id, name = 0, ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            event_id = int(value)
        elif field == "event":
            name = value
        elif field == "data":
            yield event_id, name, json.loads(value)
