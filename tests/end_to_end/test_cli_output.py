"""Where `cozyctl` prints what: only JSON on stdout whoever else writes there, streams as text, real tracebacks, a quiet end when a pipe
is closed."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.end_to_end.test_cli import cozyctl

COMMAND = [sys.executable, "-c", "from gen_worker.cli.main import main; main()"]
LOUD = """
import atexit, subprocess
print("import print"); os.write(1, b"import fd\\n"); subprocess.run(["echo", "import child"])
atexit.register(lambda: os.write(1, b"at exit\\n"))

class In(msgspec.Struct):
    way: str = ""
    n: int = 3

class Out(msgspec.Struct):
    text: str

class Pair(msgspec.Struct):
    text: str
    index: int

@worker_function
def shout(ctx: ActionContext, payload: In) -> Out:
    match payload.way:
        case "print": print("loud")
        case "fd": os.write(1, b"loud\\n")
        case "child": subprocess.run(["echo", "loud"])
        case "dunder": print("loud", file=sys.__stdout__, flush=True)
        case "forked":
            if os.fork() == 0:
                os.write(1, b"loud\\n")
                os._exit(0)
            os.wait()
    return Out(payload.way)

@worker_function
def words(ctx: ActionContext, payload: In) -> Iterator[Out]:
    for index in range(payload.n):
        ctx.progress(index / payload.n, stage="talking")
        yield Out(f"w{index} ")
    if payload.way == "bad":
        raise KeyError("late")

@worker_function
def pairs(ctx: ActionContext, payload: In) -> Iterator[Pair]:
    yield Pair("a", 0)

def half(x):
    return 1 / x

@worker_function
def breaks(ctx: ActionContext, payload: In) -> Out:
    try:
        half(0)
    except ZeroDivisionError as exc:
        raise RuntimeError("no half") from exc

@worker_function
def misreads(ctx: ActionContext, payload: In) -> Out:
    return Out(str(int("seven")))
"""


@pytest.mark.parametrize("way", ["", "print", "fd", "child", "dunder", "forked"])
def test_json_alone_on_stdout_whoever_writes_there(project: Callable[..., Path], way: str) -> None:
    found = cozyctl("run", "shout", "-i", f"way={way}", "--json", cwd=project(LOUD))
    assert json.loads(found.stdout) == {"ok": True, "output": {"text": way}, "files": []}
    assert "import child" in found.stderr
    assert ("loud" in found.stderr) == bool(way)


@pytest.mark.parametrize("verb", ["check", "discover"])
def test_json_of_verbs_that_import(project: Callable[..., Path], verb: str) -> None:
    found = cozyctl(verb, "--json", cwd=project(LOUD))
    assert "functions" in json.loads(found.stdout)
    assert "import fd" in found.stderr


def test_usage_errors_are_json_too(project: Callable[..., Path]) -> None:
    folder = project(LOUD)
    for arguments in (["run", "--fodler", "x"], ["models", "plan", "--folder", "missing"], ["nothing"]):
        found = cozyctl(*arguments, "--json", cwd=folder)
        assert found.returncode == 2
        assert json.loads(found.stdout)["code"] == "usage"


def test_text_streams_print_as_text_and_others_as_lines(project: Callable[..., Path]) -> None:
    folder = project(LOUD)
    assert cozyctl("run", "words", cwd=folder).stdout == "w0 w1 w2 \n"
    assert json.loads(cozyctl("run", "pairs", cwd=folder).stdout) == {"text": "a", "index": 0}
    assert json.loads(cozyctl("run", "words", "--json", cwd=folder).stdout)["output"] == [{"text": f"w{n} "} for n in range(3)]


def on_a_terminal(arguments: list[str], cwd: Path) -> str:
    """What a terminal shows that is stdout and stderr of a command."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen([*COMMAND, *arguments], cwd=cwd, stderr=theirs, stdout=theirs, env=env) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:
            pass
        process.wait(60)
    os.close(ours)
    return seen.decode()


def test_tokens_take_the_place_of_the_bar(project: Callable[..., Path]) -> None:
    seen = on_a_terminal(["run", "words", "-i", "n=5"], project(LOUD))
    tokens = seen[seen.index("w0 ") : seen.index("at exit")]
    assert tokens.replace("\r", "") == "w0 w1 w2 w3 w4 \n"


def test_a_failure_begins_a_line_of_its_own(project: Callable[..., Path]) -> None:
    seen = on_a_terminal(["run", "words", "-i", "way=bad"], project(LOUD))
    assert "w2 \r\nTraceback (most recent call last):\r\n" in seen


def test_a_closed_pipe_cancels_the_run_without_a_word(project: Callable[..., Path]) -> None:
    with subprocess.Popen(
        [*COMMAND, "run", "words", "-i", "n=1000000"], cwd=project(LOUD), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(3) == b"w0 "
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(60) == 141
    for word in ("BrokenPipe", "Traceback", "Exception ignored", "error:"):
        assert word not in said


def test_tracebacks_show_the_authors_frames_alone(project: Callable[..., Path]) -> None:
    found = cozyctl("run", "breaks", cwd=project(LOUD))
    trace = found.stderr[found.stderr.index("Traceback") :]
    for line in ("    return 1 / x\n", "ZeroDivisionError: division by zero\n", '    raise RuntimeError("no half") from exc\n'):
        assert line in trace
    assert "execution/call.py" not in trace
    assert trace.splitlines()[-2].startswith("error: RuntimeError: no half (src/")


def test_an_error_that_is_no_accident_of_ours_names_the_line(project: Callable[..., Path]) -> None:
    found = cozyctl("run", "misreads", cwd=project(LOUD))
    assert 'in misreads: return Out(str(int("seven"))))' in found.stderr


def test_dev_says_json_from_its_first_line(project: Callable[..., Path]) -> None:
    folder = project("class In(msgspec.Struct): ...\n\n@worker_function\ndef f(ctx: ActionContext, payload: In) -> In: ...\n")
    with subprocess.Popen([*COMMAND, "dev", "--json", "--listen", "127.0.0.1:0"], cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        process.terminate()
        rest = process.stderr.read()
        assert process.wait(60) == 0
    assert first["event"] == "dev.listening"
    assert first["functions"] == ["f"]
    assert all(json.loads(line) for line in rest.splitlines())
    found = cozyctl("dev", "--json", "--listen", "nowhere", cwd=folder)
    assert json.loads(found.stderr)["event"] == "dev.failed"


def test_a_worker_that_logs_json_logs_nothing_else(project: Callable[..., Path], tmp_path: Path) -> None:
    folder = project("import not_there_at_all\n")
    env = {**os.environ, "SCHEDULER_PUBLIC_ADDR": "127.0.0.1:9", "WORKER_JWT": "t"}
    command = [sys.executable, "-m", "gen_worker.entrypoint"]
    found = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1
    assert "not_there_at_all" in [json.loads(line) for line in found.stderr.splitlines()][-1]["exception_message"]
    found = subprocess.run(command, cwd=folder, env={**env, "LOG_FORMAT": "text"}, capture_output=True, text=True, timeout=60, check=False)
    assert "\nerror: src/" in found.stderr
