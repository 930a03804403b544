"""What a file API's refusals and absences mean for a run that saves a file."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gen_worker.errors import FatalError, RetryableError, StorageError
from gen_worker.files.file_api import RETRIES, TRIES, TRIES_WHILE_AWAY, FileApi
from gen_worker.http.problems import status_of
from gen_worker.net.retry import Retries, Wait
from gen_worker.outcome import outcome_of
from gen_worker.testing.file_server import FileServer


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FileServer]:
    with FileServer(tmp_path / "files") as server:
        yield server


def api_of(files: FileServer | str, pause: Callable[[], None] = lambda: None) -> FileApi:
    def sleep(wait: Wait, seconds: float) -> bool:
        pause()
        return False

    base_url = files if isinstance(files, str) else files.base_url
    return FileApi(base_url, "run-token", "me", Retries(RETRIES, sleep=sleep))


def save(api: FileApi) -> None:
    api.save("runs/r1/a.bin", lambda: iter([b"abc"]), 3, create=False)


def test_a_full_store_is_not_the_workers_fault(files: FileServer) -> None:
    api = api_of(files)
    files.fail_with = [507]
    save(api)  # room that comes back costs no run
    files.requests.clear()
    files.fail_with = [507] * TRIES
    with pytest.raises(StorageError) as raised:
        save(api)
    outcome = outcome_of(raised.value)
    assert (outcome.error_type, outcome.code, outcome.retryable, len(files.requests)) == ("retryable", "storage", True, TRIES)
    assert status_of(outcome.code, outcome.error_type) == 507
    assert outcome.safe_message == "saving 'runs/r1/a.bin' failed in 3 tries: there is no room left for it (HTTP 507): asked for"


def test_a_limit_is_not_the_workers_fault(files: FileServer) -> None:
    files.fail_with = [413]
    with pytest.raises(FatalError, match="was refused with HTTP 413: asked for"):
        save(api_of(files))


@pytest.mark.parametrize(("status", "tries"), [(503, TRIES_WHILE_AWAY), (429, TRIES), (500, TRIES)])
def test_refusals_that_pass(files: FileServer, status: int, tries: int) -> None:
    api = api_of(files)
    files.fail_with = [status] * (tries - 1)
    save(api)
    files.requests.clear()
    files.fail_with = [status] * tries
    with pytest.raises(RetryableError, match=f"in {tries} tries: 127.0.0.1 answered HTTP {status}: asked for"):
        save(api)
    assert (len(files.requests), files.fail_with) == (tries, [])


def test_a_platform_that_restarts_costs_no_run(tmp_path: Path) -> None:
    pauses: list[int] = []
    with socket.socket() as port, contextlib.ExitStack() as resources:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # bound, so that nobody else gets it, and closed
        port.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{port.getsockname()[1]}"
        with pytest.raises(RetryableError, match=f"in {TRIES_WHILE_AWAY} tries: .*refused"):
            save(api_of(f"http://{address}"))

        def pause() -> None:
            pauses.append(1)
            if len(pauses) == TRIES + 1:
                resources.enter_context(FileServer(tmp_path / "files", address))

        save(api_of(f"http://{address}", pause))
    assert len(pauses) == TRIES + 1
