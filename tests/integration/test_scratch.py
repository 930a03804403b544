"""Temporary folders of killed programs: the next program removes them, and nothing else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import Runner, WorkerProcess
from tests.waiting import eventually, until

from gen_worker.scratch import OWNER, own, scratch_folder, sweep
from gen_worker.testing.loopback import LoopbackScheduler

CODE = """
class In(msgspec.Struct):
    image: Asset

class Out(msgspec.Struct):
    text: str

@worker_function
def hold(ctx: ActionContext, payload: In) -> Out:
    payload.image.read_bytes()
    Path(os.environ["BEGUN"]).touch()
    while not ctx.is_canceled():
        time.sleep(0.05)
    return Out(text="")
"""
OWNS = """
import sys
from gen_worker.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "inputs").mkdir()
    (folder / "inputs" / "a file").write_bytes(b"a caller's")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, for this process and those that it starts."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@contextmanager
def owner(code: str = OWNS) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def mark(folder: Path) -> None:
    """What `own` writes, without its lock: as if the owner were dead."""
    owned = own(folder)
    assert owned is not None
    os.close(owned._lock or 0)


def test_only_folders_of_dead_owners_are_removed(tmp: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    mark(theirs)
    (tmp / "gen-worker-link").symlink_to(theirs)
    (tmp / "gen-worker-unmarked").mkdir()
    (tmp / "gen-worker-marked-by-a-link").mkdir()
    (tmp / "gen-worker-marked-by-a-link" / OWNER).symlink_to(theirs / OWNER)
    (tmp / "gen-worker-marked-by-another-name").mkdir()
    (tmp / "gen-worker-marked-by-another-name" / OWNER).hardlink_to(theirs / OWNER)
    (tmp / "gen-worker-file").touch()
    (tmp / "of another program").mkdir()
    mark(tmp / "of another program")
    (tmp / "gen-worker-without-a-name").mkdir()
    (tmp / "gen-worker-without-a-name" / OWNER).touch()
    (tmp / "gen-worker-original").mkdir()
    mark(tmp / "gen-worker-original")
    shutil.copytree(tmp / "gen-worker-original", tmp / "gen-worker-copy")
    assert sweep() == [tmp / "gen-worker-original"]
    others = set(tmp.iterdir())
    assert tmp / "gen-worker-copy" in others
    with owner() as (_, living), owner() as (process, dead):
        assert set(tmp.iterdir()) == others | {living, dead}
        assert sweep() == []
        process.kill()
        process.wait()
        assert dead.exists()
        with scratch_folder() as ours:
            assert set(tmp.iterdir()) == others | {living, ours}
            assert sweep() == []
            assert (living / "inputs" / "a file").read_bytes() == b"a caller's"
    assert set(tmp.iterdir()) == others | {living}
    assert sweep() == [living]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_stays(tmp: Path) -> None:
    for name, whose in (("gen-worker-folder", ""), ("gen-worker-marker", OWNER)):
        (tmp / name).mkdir()
        mark(tmp / name)
        os.chown(tmp / name / whose, 12345, 12345)
    assert sweep() == []


def test_a_forked_child_keeps_the_folder_of_its_dead_parent_and_does_not_remove_it_as_it_ends(tmp: Path) -> None:
    code = OWNS.replace("    print", "    import os\n    if os.fork() == 0:\n        sys.stdin.read()\n        sys.exit()\n    print")
    with owner(code) as (process, folder):
        assert process.stdin is not None
        process.kill()
        process.wait()
        assert sweep() == []
        process.stdin.close()
        until(lambda: sweep() == [folder])


def test_a_removal_that_was_cut_short_is_continued(tmp: Path) -> None:
    folder = tmp / "gen-worker-half"
    (folder / "a" / "b").mkdir(parents=True)
    owned = own(folder)
    assert owned is not None
    os.chmod(folder / "a", 0o500)  # noqa: PTH101
    owned.remove()
    if os.geteuid() != 0:
        assert (folder / OWNER).exists()
        os.chmod(folder / "a", 0o700)  # noqa: PTH101
        assert sweep() == [folder]
    assert not folder.exists()


def test_an_owner_that_was_too_slow_to_lock_its_folder_learns_it(tmp: Path) -> None:
    assert own(tmp / "removed meanwhile") is None
    (tmp / "taken").mkdir()
    assert own(tmp / "taken") is not None
    assert own(tmp / "taken") is None


@pytest.mark.parametrize("given", [True, False])
async def test_the_next_worker_removes_what_a_killed_one_left(
    project: Callable[..., Path], start_worker: Callable[..., WorkerProcess], tmp: Path, tmp_path: Path, given: bool
) -> None:
    where = tmp_path / "run" if given else tmp
    env = {"BEGUN": str(tmp_path / "begun"), **({"WORKER_RUN_DIR": str(where)} if given else {})}
    folder = project(CODE)
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(folder, scheduler.address, **env)
        await scheduler.worker()
        await scheduler.start_run("hold", {"image": {"ref": "data:text/plain,abc"}}, run_id="r1")
        await eventually((tmp_path / "begun").exists, 60)
        worker.process.kill()
        worker.process.wait()
        left = {path.relative_to(where).parts[0] for path in where.rglob("inputs/*")}
        assert len(left) == 1
        start_worker(folder, scheduler.address, **env)
        await eventually(lambda: not any((where / name).exists() for name in left), 60)


def test_the_next_runner_removes_what_a_killed_one_left(
    project: Callable[..., Path], start_runner: Callable[..., Runner], tmp: Path, tmp_path: Path
) -> None:
    folder, env = project(CODE), {"BEGUN": str(tmp_path / "begun"), "WORKER_RUN_DIR": str(tmp_path / "run")}
    runner = start_runner(folder, env=env)
    files = {"image": ("a.txt", b"abc", "text/plain")}
    runner.http.post("/v1/run/hold", files=files, headers={"prefer": "respond-async"})
    runner.http.close()
    until((tmp_path / "begun").exists, 60)
    runner.process.kill()
    runner.process.wait()
    left = {path.name for path in tmp.iterdir()}
    assert len(left) == 1
    assert len(list((tmp_path / "run").iterdir())) == 2  # the upload, and the run's own name for it
    start_runner(folder, env=env)
    assert not left & {path.name for path in tmp.iterdir()}
    assert list((tmp_path / "run").iterdir()) == []
