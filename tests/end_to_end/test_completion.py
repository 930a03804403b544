"""Tab in real shells, on a terminal."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gen_worker.cli.named_functions import named_functions

ON_ITS_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
PROMPT = "READY> "
STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(cozyctl completion bash)"\n'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -Uz compinit; compinit -u; eval "$(cozyctl completion zsh)"\n'),
    "fish": (["fish", "--private", "-i"], "cozyctl completion fish | source\n"),
}


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, command: list[str], folder: Path, home: Path) -> None:
        self._leader, follower = pty.openpty()
        home.mkdir()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {"PATH": path, "HOME": str(home), "TERM": "dumb", "PS1": PROMPT, "LANG": "C.UTF-8", "COLUMNS": "100"}
        command = [sys.executable, "-c", ON_ITS_TERMINAL, *command]  # fish wants a terminal that it controls
        self.process = subprocess.Popen(command, cwd=folder, env=env, stdin=follower, stdout=follower, stderr=follower)
        os.close(follower)
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def wait(self, expected: str, limit_s: float = 60) -> None:
        """Until this stands behind what was there before."""
        before, deadline_s = len(self.text), time.monotonic() + limit_s
        while expected not in self.text[before:]:
            assert time.monotonic() < deadline_s, f"no {expected!r} in {self.text[before:]!r}"
            if select.select([self._leader], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._leader, 65536).decode(errors="replace")
                except OSError:  # the shell has ended
                    raise AssertionError(f"no {expected!r} in {self.text[before:]!r}, and the shell has ended") from None

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        os.close(self._leader)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[str, Path], Terminal]]:
    opened: list[Terminal] = []

    def start(shell: str, folder: Path) -> Terminal:
        command, source = STARTS[shell]
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        opened.append(Terminal(command, folder, tmp_path / f"home-{shell}"))
        opened[-1].type(f"{source}echo SOUR''CED\n")
        opened[-1].wait("SOURCED")
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.mark.parametrize("shell", STARTS)
def test_tab_completes_commands_functions_and_codes(
    shell: str, project: Callable[..., Path], terminal: Callable[[str, Path], Terminal]
) -> None:
    code = "class In(msgspec.Struct):\n    a: int = 1\n\n@worker_function\ndef draw_a_kite(ctx: ActionContext, payload: In) -> In:\n    return payload\n"
    screen = terminal(shell, project(code))
    for typed, completed in (
        ("cozyctl disc\t", "discover"),
        ("cozyctl run dr\t", "draw-a-kite"),
        ("cozyctl explain out_\t", "out_of_memory"),
    ):
        screen.type(typed)
        screen.wait(completed[len(typed.split()[-1]) :])
        screen.type("\x15" if shell != "bash" else "\x01\x0b")


def test_functions_are_found_without_running_the_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import gen_worker\nraise SystemExit\n@gen_worker.worker_function()\nasync def One_two(): ...\n")
    (tmp_path / "b.py").write_text("@worker_websocket\nasync def talk(): ...\n@other\ndef no(): ...\n")
    (tmp_path / "broken.py").write_text("@worker_function\ndef (")
    (tmp_path / "bytes.py").write_bytes(b"\xff worker_function")
    assert named_functions(tmp_path) == ["one-two", "talk"]
