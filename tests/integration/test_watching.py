"""`cozyctl dev` watching folders that vanish, cannot be read, or loop; and code that is broken from the start."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.waiting import until

from gen_worker.project.cozy_toml import CozyTomlError, load_cozy_toml
from gen_worker.project.source_tree import Watched
from gen_worker.project.watching import follow_changes

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

    def answer(self) -> Any:
        return httpx.post(f"{self.url}/v1/run/first", json={}, trust_env=False).json()

    def says(self) -> str | None:
        answer = self.answer()
        return answer["output"]["text"] if answer.get("output") else None

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}", trust_env=False).json()


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


def test_a_tree_is_read_once_however_it_is_linked(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x.py").write_text("1")
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to("a")
    assert len(Watched(tmp_path).read().files) == 1
    assert Watched(tmp_path / "gone").read().files == {}


def test_the_last_good_code_says_that_it_is_not_the_newest(project: Callable[..., Path], dev: Callable[[Path], Dev]) -> None:
    folder = project(CODE)
    main = next(folder.rglob("main.py"))
    good = main.read_text()
    running = dev(folder)
    assert "warnings" not in running.answer()
    before = running.get("/v1/status")["code"]
    assert before["problem"] is None
    main.write_text(good.replace("def first", "def first(:"))
    running.wait(lambda: running.get("/v1/status")["code"]["revision"] > before["revision"])
    assert "SyntaxError" in running.get("/v1/status")["code"]["problem"]
    answer = running.answer()
    assert answer["success"]
    assert "comes from the last working version of the code" in answer["warnings"][0]["message"]
    assert "SyntaxError" in running.get(f"/v1/runs/{answer['run_id']}")["warnings"][0]["message"]
    main.write_text(good.replace("prompt: str", "prompt: int").replace('""', "0"))
    running.wait(lambda: running.get("/v1/status")["code"]["problem"] is None)
    assert "warnings" not in running.answer()
    fields = running.get("/openapi.json")["components"]["schemas"]["In"]["properties"]
    assert fields["prompt"]["type"] == "integer"


def test_editors_checkouts_and_links(project: Callable[..., Path], dev: Callable[[Path], Dev], tmp_path: Path) -> None:
    folder = project(CODE)
    main = next(folder.rglob("main.py"))
    good = main.read_text()
    running = dev(folder)

    # An editor that writes a swap file, moves the old file away and writes a new one.
    (main.parent / ".main.py.swp").write_text("x")
    main.rename(main.with_name("main.py~"))
    main.write_text(good.replace('"one"', '"moved"'))
    running.wait(lambda: running.says() == "moved")

    # One that writes beside and renames over it, with the same size and times.
    new = main.with_name("new.tmp")
    new.write_text(good.replace('"one"', '"other"'))
    os.utime(new, ns=(main.stat().st_atime_ns, main.stat().st_mtime_ns))
    new.replace(main)
    running.wait(lambda: running.says() == "other")

    # A folder that is deleted and made again at once: notifications of the old one would say nothing any more.
    for word in ("again", "twice"):
        shutil.rmtree(main.parent)
        main.parent.mkdir()
        (main.parent / "__init__.py").touch()
        main.write_text(good.replace('"one"', f'"{word}"'))
        running.wait(lambda word=word: running.says() == word)

    # A file that is a link: what it leads to is edited, and later it leads elsewhere.
    aside, another = tmp_path / "aside", tmp_path / "another"
    for place, word in ((aside, "aside"), (another, "another")):
        place.mkdir()
        (place / "target.py").write_text(good.replace('"one"', f'"{word}"'))
    main.unlink()
    main.symlink_to(aside / "target.py")
    running.wait(lambda: running.says() == "aside")
    (aside / "target.py").write_text(good.replace('"one"', '"edited"'))
    running.wait(lambda: running.says() == "edited")
    main.unlink()
    main.symlink_to(another / "target.py")
    running.wait(lambda: running.says() == "another")


def test_what_cozy_toml_names_is_watched(project: Callable[..., Path], dev: Callable[[Path], Dev], tmp_path: Path) -> None:
    folder = project(CODE.replace('Out("one")', "Out(WORD)"), "[dev]\nwatch = ['src', '../shared', 'prompts/**/*.txt']")
    main = next(folder.rglob("main.py"))
    shared, text = folder.parent / "shared", folder / "prompts/deep/one.txt"
    shared.mkdir()
    (shared / "words.py").write_text("SUFFIX = '!'")
    text.parent.mkdir(parents=True)
    text.write_text("first")
    head = f"import sys\nsys.path.append({str(shared)!r})\nimport words\nWORD = open({str(text)!r}).read() + words.SUFFIX\n"
    main.write_text(head + main.read_text())
    running = dev(folder)
    assert running.says() == "first!"
    text.write_text("second")
    running.wait(lambda: running.says() == "second!")
    (shared / "words.py").write_text("SUFFIX = '?'")
    running.wait(lambda: running.says() == "second?")
    (folder / "not_watched.py").write_text("x = (")
    text.write_text("third")
    running.wait(lambda: running.says() == "third?")
    assert "reload.failed" not in running.text


@pytest.mark.parametrize(
    ("entries", "path", "expected"),
    [
        (["."], "a/b/x.py", True),
        (["."], "a/x.txt", False),
        (["."], "cozy.toml", True),
        (["src"], "other/x.py", False),
        (["src"], "src/x.py", True),
        (["src/one.json"], "src/one.json", True),
        (["*.txt"], "a.txt", True),
        (["*.txt"], "deep/a.txt", False),
        (["p/**/*.j2"], "p/a.j2", True),
        (["p/**/*.j2"], "p/q/r/a.j2", True),
        (["p/*/a?.[jt]2"], "p/q/ab.t2", True),
        (["p/*/a?.[!jt]2"], "p/q/ab.t2", False),
        (["p/**"], "p/q/anything", True),
        (["../shared"], "../shared/x.py", True),
        (["a+(b).txt"], "a+(b).txt", True),
    ],
)
def test_patterns(tmp_path: Path, entries: list[str], path: str, expected: bool) -> None:
    root = tmp_path / "project"
    file = Path(os.path.normpath(root / path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    watched = Watched(root, entries)
    assert watched.takes(str(file)) is expected
    assert (str(file) in watched.read().files) is expected


@pytest.mark.parametrize("wrong", ["watch = 'src'", "watch = [1]", "watch = ['']", "wtach = ['.']"])
def test_a_watch_that_cannot_be_is_an_error(project: Callable[..., Path], wrong: str) -> None:
    folder = project(CODE, f"[dev]\n{wrong}")
    with pytest.raises(CozyTomlError, match="watch"):
        load_cozy_toml(folder / "cozy.toml")


async def test_thousands_of_files_and_folders(tmp_path: Path) -> None:
    """An edit among them is seen as soon as among few; the others are not read for it."""
    for number in range(3000):
        folder = tmp_path / f"p{number % 300}"
        folder.mkdir(exist_ok=True)
        (folder / f"m{number}.py").touch()
    files = Watched(tmp_path)
    seen, changes = files.read().files, asyncio.Queue[str]()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(follow_changes(files, seen, changes.put, lambda text: None))
        for number in (7, 2999):
            edited = tmp_path / f"p{number % 300}/m{number}.py"
            edited.write_text("1")
            assert await asyncio.wait_for(changes.get(), 60) == str(edited)
        watching.cancel()


NO_NOTIFICATIONS = """
import asyncio, os, pathlib, resource, sys
import watchfiles._rust_notify
from gen_worker.project.source_tree import Watched
from gen_worker.project.watching import follow_changes

root = pathlib.Path(sys.argv[1])

async def main():
    files, done = Watched(root), asyncio.Event()

    def say(text):
        print(text)
        (root / "new.py").touch()

    async def act(changed):
        print(pathlib.Path(changed).name)
        done.set()

    seen = files.read().files
    used = len(os.listdir("/proc/self/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, used + 1))  # one is left: enough to read a folder
    task = asyncio.ensure_future(follow_changes(files, seen, act, say))
    await done.wait()
    task.cancel()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors as Linux does")
def test_without_notifications_the_files_are_looked_at(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_NOTIFICATIONS, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert "checking for changes twice a second, because the system has no file notifications left" in said[0]
    assert "sysctl" in said[0]
    assert said[1:] == ["new.py"]


LIBRARY = """
import pathlib

class Kept:
    @classmethod
    def from_pretrained(cls, path):
        with (pathlib.Path(__file__).with_name("loads")).open("a") as file:
            file.write("x")
        return cls()
"""
WITH_MODEL = """
from typing import Annotated
from gen_worker import ModelRef, ModelRefSource
import kept

class In(msgspec.Struct):
    prompt: str = ""

class Out(msgspec.Struct):
    text: str

@worker_function
def first(ctx: ActionContext, model: Annotated[kept.Kept, ModelRef(ModelRefSource.FIXED, "base")], payload: In) -> Out:
    return Out("one")
"""


def test_models_stay_loaded_over_an_edit(
    project: Callable[..., Path], dev: Callable[..., Dev], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, model = tmp_path / "library", tmp_path / "model"
    library.mkdir()
    model.mkdir()
    (library / "kept.py").write_text(LIBRARY)
    (model / "config.json").write_text("{}")
    monkeypatch.setenv("PYTHONPATH", str(library))
    monkeypatch.setenv("COZY_MODEL_OVERRIDES", f"base={model}")
    folder = project(WITH_MODEL, '[models]\nbase = "hf:o/r"')
    main = next(folder.rglob("main.py"))
    running = dev(folder)
    assert running.says() == "one"
    main.write_text(main.read_text().replace('"one"', '"two"'))
    running.wait(lambda: running.says() == "two")
    assert (library / "loads").read_text() == "x"
