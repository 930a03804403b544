"""The watch of `cozyctl dev` beside folders that vanish, cannot be read, or loop; and code that is broken from the start."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.waiting import until

from gen_worker.dev.reload import snapshot

CODE = """
class In(msgspec.Struct):
    prompt: str = ""

class Out(msgspec.Struct):
    text: str

@worker_function
def first(ctx: ActionContext, payload: In) -> Out:
    return Out("one")
"""


class Dev:
    """`cozyctl dev` on a folder."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.log = log
        command = [
            sys.executable,
            "-c",
            "from gen_worker.cli.main import main; main()",
            "dev",
            "--listen",
            "127.0.0.1:0",
            "--outputs",
            "out",
        ]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=folder, stderr=file, stdout=file)
        self.wait(lambda: "listening on" in self.text)
        self.url = re.findall(r"listening on (http://\S+)", self.text)[0]

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait(self, check: Callable[[], bool]) -> None:
        until(lambda: check() or self.process.poll() is not None, told=lambda: self.text)
        assert check(), self.text

    def says(self) -> str | None:
        answer = httpx.post(f"{self.url}/v1/run/first", json={}, trust_env=False).json()
        return answer["output"]["text"] if answer.get("output") else None


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Callable[[Path], Dev]]:
    started: list[Dev] = []

    def start(folder: Path) -> Dev:
        started.append(Dev(folder, tmp_path / f"dev{len(started)}.log"))
        return started[-1]

    yield start
    for each in started:
        each.process.terminate()
        assert each.process.wait(60) == 0, each.text


def test_folders_that_come_and_go_loop_or_cannot_be_read(project: Callable[..., Path], dev: Callable[[Path], Dev]) -> None:
    folder = project(CODE)
    main = next(folder.rglob("main.py"))
    running = dev(folder)
    (folder / "loop").symlink_to(".")
    (folder / "self.py").symlink_to("self.py")
    (folder / "dead.py").symlink_to("nowhere.py")
    (folder / "locked").mkdir(mode=0)
    os.mkfifo(folder / "pipe.py")
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            made = folder / "work" / f"run{number % 50}"
            (made / "a/b/c").mkdir(parents=True, exist_ok=True)
            (made / "a/x.py").touch()
            shutil.rmtree(made, ignore_errors=True)
            number += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for word in ("two", "three"):
            main.write_text(main.read_text().replace('Out("', f'Out("{word} ', 1))
            running.wait(lambda word=word: (running.says() or "").startswith(word))
    finally:
        stop.set()
        thread.join()
        (folder / "locked").chmod(0o700)


def test_a_project_that_vanishes_and_comes_back(project: Callable[..., Path], dev: Callable[[Path], Dev]) -> None:
    folder = project(CODE)
    running = dev(folder)
    away = folder.with_name("away")
    folder.rename(away)
    running.wait(lambda: "reload.failed" in running.text)
    assert running.says() == "one"
    main = next(away.rglob("main.py"))
    main.write_text(main.read_text().replace('"one"', '"back"'))
    away.rename(folder)
    running.wait(lambda: running.says() == "back")


def test_code_that_is_broken_from_the_start_is_waited_for(project: Callable[..., Path], dev: Callable[[Path], Dev]) -> None:
    folder = project(CODE)
    main = next(folder.rglob("main.py"))
    good = main.read_text()
    main.write_text(good.replace("def first", "def first(:"))
    running = dev(folder)
    assert "waiting for a change" in running.text
    assert httpx.get(f"{running.url}/readyz", trust_env=False).status_code == 503
    main.write_text(good)
    running.wait(lambda: running.says() == "one")


def test_a_snapshot_reads_a_folder_once_however_it_is_linked(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x.py").write_text("1")
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to("a")
    assert len(snapshot(tmp_path)) == 1
    assert snapshot(tmp_path / "gone") == {}
