"""Ctrl-C in verbs: one line, status 130, no traceback; a second Ctrl-C ends the verb at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.terminal import Terminal

COZYCTL = [sys.executable, "-m", "gen_worker.cli"]
SLOW = """
import sys, time
print("importing", file=sys.stderr, flush=True)
time.sleep(3600)
"""
VERBS = [
    ["discover"],
    ["check"],
    ["run"],
    ["dev", "--listen", "127.0.0.1:0"],
    ["models", "plan"],
    ["client", "generate", ".", "--lang", "python"],
]


EARLY = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from gen_worker.cli.main import main
main(["--help"])
"""


def test_while_it_is_imported_itself() -> None:
    found = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("verb", VERBS, ids=[verb[0] for verb in VERBS])
def test_while_a_project_is_imported(project: Callable[..., Path], verb: list[str]) -> None:
    with Terminal([*COZYCTL, *verb], cwd=project(SLOW)) as terminal:
        terminal.until("importing")
        terminal.interrupt()
        assert terminal.status() == 130
        said = terminal.text.replace("\r", "").replace("\n", "").replace("^C", "")  # the terminal shows ^C before or after what is printed
        assert said == "importinginterrupted"


@pytest.mark.parametrize(
    "command", [["gen_worker.cli", "run"], ["gen_worker.cli", "dev"], ["gen_worker.testing.http_runner"], ["gen_worker.discover"]]
)
def test_a_service_manager_may_end_it_then_too(project: Callable[..., Path], tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=project(SLOW), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"importing\n"
    process.terminate()
    assert process.communicate(timeout=60)[0] == b"interrupted\n"
    assert process.returncode == 128 + signal.SIGTERM
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("module", ["gen_worker.discover", "gen_worker.testing.http_runner"])
def test_of_modules(project: Callable[..., Path], module: str) -> None:
    with Terminal([sys.executable, "-m", module], cwd=project(SLOW)) as terminal:
        terminal.until("importing")
        terminal.interrupt()
        assert terminal.status() == 130
        assert "Traceback" not in terminal.text


def test_twice_it_ends_at_once() -> None:
    code = """
import contextlib, time
from gen_worker.leaving import interrupted_once
with interrupted_once():
    try:
        print("works", flush=True)
        time.sleep(3600)
    finally:
        print("cleans up", flush=True)
        time.sleep(3600)
"""
    with Terminal([sys.executable, "-c", code]) as terminal:
        terminal.until("works")
        terminal.interrupt()
        terminal.until("cleans up")
        terminal.interrupt()
        assert terminal.status() == 130
        assert terminal.text.endswith("ended at once\r\n")
        assert "Traceback" not in terminal.text
