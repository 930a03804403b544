"""Half-written files of a platform that was killed: its next start removes them, and leaves those of writers that live."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from platform_process import PlatformProcess, write_project

from gen_orchestrator.hub.half_files import begin, forget, hold
from gen_orchestrator.hub.models import ModelStore

WRITER = """
import sys
from pathlib import Path
from gen_orchestrator.hub.half_files import begin
file = begin(Path(sys.argv[1]))
file.write(b"half")
file.flush()
print(flush=True)
sys.stdin.read()
"""


def test_only_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    dead, finished, ours, link = (tmp_path / name for name in ("dead", "finished", "ours", "link"))
    with subprocess.Popen([sys.executable, "-c", WRITER, str(dead)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        link.symlink_to(dead)
        with begin(ours) as file:
            assert forget([dead, ours, link, tmp_path / "none"]) == 0
            writer.kill()
            writer.wait()
            file.write(b"whole")
            ours.replace(finished)
            assert forget([dead, finished, link]) == 1
            assert (dead.exists(), finished.read_bytes()) == (False, b"")
    assert finished.read_bytes() == b"whole"
    with finished.open("rb") as again:
        assert hold(again.fileno())
        assert forget([finished]) == 0


class Sender:
    """Requests whose bodies never end."""

    def __init__(self, platform: PlatformProcess) -> None:
        self._platform = platform
        self._gone = threading.Event()
        self._threads: list[threading.Thread] = []

    def send(self, method: str, path: str) -> None:
        def body() -> Iterator[bytes]:
            for _ in range(3):
                yield bytes(1 << 20)
            self._gone.wait()

        def request() -> None:
            with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=self._platform.url, timeout=60, trust_env=False) as http:
                http.request(method, path, content=body())

        self._threads.append(threading.Thread(target=request))
        self._threads[-1].start()

    def close(self) -> None:
        self._gone.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformProcess]:
    started = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data")
    yield started
    started.close()


def test_what_a_killed_platform_was_receiving_is_removed_at_its_next_start(platform: PlatformProcess) -> None:
    data = platform.data
    model = "0" * 64
    folder = data / "models" / "blobs" / "blake3" / "00" / "00"
    offer = platform.http.put("/v1/models/me/asked/tags/x", json={"files": [{"path": "a.txt", "size_bytes": 3, "blake3": model}]}).json()
    inbox = Path(offer["inbox"]["folder"])

    def halves() -> list[str]:
        found: list[Callable[[], Iterator[Path]]] = [
            lambda: (data / "blobs").rglob(".half-*"),
            lambda: folder.glob(".new-*"),
        ]
        return [str(path) for each in found for path in each()]

    sender = Sender(platform)
    sender.send("PUT", "/v1/files/local/a.bin")
    sender.send("PUT", f"/v1/blobs/blake3:{model}")
    platform.until(lambda: len(halves()) == 2)
    platform.kill()
    sender.close()
    assert len(halves()) == 2
    (data / "blobs" / "runs" / "local" / "r1").mkdir(parents=True)
    (data / "blobs" / "runs" / "local" / "r1" / ".half-1").write_bytes(b"half")  # what a run saved
    (data / "releases" / "published-1" / "source").mkdir(parents=True)  # without a manifest
    (data / "environments" / "0123456789abcdef" / "bin").mkdir(parents=True)
    (data / "builds" / "b-1").mkdir(parents=True)
    (data / "builds" / "b-1" / "source.tar.gz").write_bytes(b"half")
    (inbox / model[:32]).write_bytes(b"of a client that is dead")
    with begin(inbox / ("1" * 32)):
        platform.start()
        platform.until(lambda: not halves())
        platform.until(lambda: {path.name for path in inbox.iterdir()} == {"nonce", "1" * 32})
        assert not (data / "releases" / "published-1").exists()
        assert (data / "trash").is_dir(), "made while there is room: on a full disk, deletes need it"
        assert list((data / "environments").iterdir()) == []
        assert not (data / "builds" / "b-1").exists()
    assert platform.invoke("echo", {"text": "on"}).json()["output"]["text"] == "on"


def test_a_push_begins_by_removing_what_dead_clients_left(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    inbox = Path(store.inbox.offer().folder)
    (inbox / ("0" * 32)).write_bytes(b"of a client that is dead")
    (inbox / ("1" * 32)).hardlink_to(tmp_path / "models" / "inbox" / "nonce")
    store.inbox.offer()
    assert {path.name for path in inbox.iterdir()} == {"nonce", "1" * 32}
