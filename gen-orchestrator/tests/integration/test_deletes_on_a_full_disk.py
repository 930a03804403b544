"""Another program fills the disk again and again: deletes still work, also after a kill, and new runs are refused until there is space."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from greeting_releases import publish, verb
from platform_process import PlatformProcess, write_project
from waiting import until

from gen_orchestrator.store.reserve import NAME, SIZE_BYTES
from gen_orchestrator.store.sqlite import FILE_NAME

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder that is a small file system for processes that join a namespace, by the id of the process that holds it."""
    folder = tmp_path / "small"
    folder.mkdir()
    script = f"mount -t tmpfs -o size=64m tmpfs {folder} && echo mounted && exec sleep 600"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"mounted\n":
            pytest.skip("no file system can be mounted here")
        try:
            yield folder, holder.pid
        finally:
            holder.kill()


class SmallPlatform(PlatformProcess):
    """A platform whose data folder is on the small file system; `disk` is that file system as the test sees it."""

    def __init__(self, project: Path, small: tuple[Path, int]) -> None:
        folder, self._holder = small
        self.disk = Path(f"/proc/{self._holder}/root{folder}")
        super().__init__(project, folder / "data")

    def _command(self) -> list[str]:
        return ["nsenter", "--mount", "--target", str(self._holder), "--", *super()._command()]


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[Callable[[], None]]:
    """Fill the disk, and take what becomes free within milliseconds, until told to give it all back."""
    stop = threading.Event()
    is_full = threading.Event()
    file = disk / "fill"

    def fill() -> None:
        with file.open("ab", buffering=0) as target:
            while not stop.is_set():
                try:
                    target.write(b"x" * 16384)
                except OSError:
                    is_full.set()
                    time.sleep(0.002)  # waits: a neighbour that takes room as soon as there is some

    filler = threading.Thread(target=fill)
    filler.start()
    assert is_full.wait(60)

    def give_back() -> None:
        stop.set()
        filler.join()
        file.unlink(missing_ok=True)

    try:
        yield give_back
    finally:
        give_back()


def accepts(platform: SmallPlatform) -> bool:
    answer = platform.invoke("echo", {"text": "x" * 4096}, headers={"prefer": "respond-async"})
    assert answer.status_code in (202, 507), answer.text
    return answer.status_code == 202


def is_reserved(platform: SmallPlatform) -> bool:
    """Whether both pieces of disk space that deletes may use are whole."""
    log, file = ((platform.disk / "data" / name).stat() for name in (f"{FILE_NAME}-wal", NAME))
    return log.st_blocks * 512 - log.st_size >= SIZE_BYTES and file.st_blocks * 512 >= SIZE_BYTES


def done(answer: Any) -> Any:
    assert answer.status_code in (200, 204), answer.text
    return answer


def test_what_deletes_goes_on_and_new_runs_wait_for_room(small: tuple[Path, int], tmp_path: Path) -> None:
    platform = SmallPlatform(write_project(tmp_path / "probe"), small)
    http = platform.http
    try:
        releases = [publish(platform, tmp_path, "gone", version) for version in range(1, 4)]
        run = platform.invoke("version").json()
        golden = http.post(f"/v1/runs/{run['id']}/golden", json={}).json()["golden_id"]
        key = http.post("/v1/keys", json={"name": "one", "scopes": ["invoke"]}).json()["key_id"]
        assert is_reserved(platform)
        with filled(platform.disk) as give_back:
            until(lambda: not accepts(platform), 60)
            assert verb(platform, "promote", "local/gone:prod", "--tag", "other").returncode == 1, "that needs room, and deletes nothing"
            done(http.delete(f"/v1/releases/{releases[1]}"))
            until(lambda: not (platform.disk / "data" / "releases" / releases[1]).exists(), 60)
            done(http.delete(f"/v1/goldens/{golden}"))
            done(http.delete(f"/v1/keys/{key}"))
            until(lambda: not accepts(platform), 60)  # what became free may have been enough for a moment

            platform.kill()
            platform.start()
            http = platform.http
            until(lambda: not accepts(platform), 60)  # what became free may have been enough for a moment
            removed = done(http.post("/v1/releases/prune", json={"keep": 0, "endpoint": "gone"})).json()["data"]
            assert [each["release_id"] for each in removed] == releases[2:]
            done(http.delete("/v1/endpoints/local/gone"))
            assert releases[0] in [each["release_id"] for each in http.get("/v1/releases").json()["data"]]
            done(http.delete(f"/v1/releases/{releases[0]}"))
            until(lambda: not accepts(platform), 60)  # what became free may have been enough for a moment
            actions = [row["action"] for row in http.get("/v1/audit").json()["data"]]
            assert (actions.count("release.deleted"), actions.count("golden.removed"), actions.count("key.revoked")) == (3, 1, 1)
            give_back()
            until(lambda: accepts(platform), 60)
        assert is_reserved(platform)
        assert platform.invoke("version").json()["output"] == run["output"]
        assert platform.stop() == 0
    finally:
        platform.close()
