"""Values of `cozyctl run -i`: pipes, stdin, and texts that the locale cannot encode."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RUN = [sys.executable, "-m", "gen_worker.cli", "run", "--json"]
CODE = """
class In(msgspec.Struct):
    file: Asset | None = None
    text: str = ""

class Out(msgspec.Struct):
    text: str
    name: str

@worker_function
def go(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.file.read_bytes().decode() if payload.file else payload.text, payload.file.ref if payload.file else "")
"""


def run(folder: Path, *arguments: str | bytes, stdin: bytes = b"", **env: str) -> "subprocess.CompletedProcess[bytes]":
    command = [*RUN, *arguments]
    return subprocess.run(command, cwd=folder, input=stdin, env={**os.environ, **env}, capture_output=True, timeout=60, check=False)


def test_a_pipe_and_stdin_are_files(project: Callable[..., Path], tmp_path: Path) -> None:
    folder, pipe = project(CODE), tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["bash", "-c", f"printf piped > {pipe}"]):
        found = run(folder, "-i", f"file=@{pipe}")
    assert json.loads(found.stdout)["output"]["text"] == "piped", found
    for name in ("-", "/dev/stdin"):
        assert json.loads(run(folder, "-i", f"file=@{name}", stdin=b"typed").stdout)["output"]["text"] == "typed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-i", "file=@."], "-i file=@.: . is a folder; expected a file"),
        (["-i", "file=@none"], "-i file=@none: there is no file none"),
        (["-i", "file=@-", "--payload", "-"], "stdin, which is named -, can be read once"),
        (["-i", b"text=\xff"], "-i text: the value is not UTF-8; send it as a file: @PATH"),
    ],
)
def test_what_cannot_be_read_is_said(project: Callable[..., Path], arguments: list[str | bytes], said: str) -> None:
    found = run(project(CODE), *arguments)
    assert (found.returncode, json.loads(found.stdout)["error"]) == (2, said)


def test_a_text_is_taken_as_it_was_typed_whatever_the_locale(project: Callable[..., Path]) -> None:
    found = run(project(CODE), "-i", "text=w\u00f6rld \u2603".encode(), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert json.loads(found.stdout)["output"]["text"] == "w\u00f6rld \u2603", found
