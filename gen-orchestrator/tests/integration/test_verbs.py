"""cozyctl's verbs against a running platform."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from platform_process import COZYCTL, PlatformProcess

from gen_worker.cli.sections import OTHERS
from gen_worker.cli.verbs import ELSEWHERE, verbs


def verb(platform: PlatformProcess, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url}
    return subprocess.run([str(COZYCTL), *arguments], env=env, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_invoke_prints_the_output_and_reads_fields_by_their_types(served: PlatformProcess) -> None:
    done = verb(served, "invoke", "local/probe/echo", "-i", "text=12", "-i", "times=3")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == "12"
    assert "starting" not in done.stderr, "a worker that is there starts nothing"
    whole = verb(served, "invoke", "local/probe/echo", "--payload", "-", "--json", text='{"text": "x"}')
    assert json.loads(whole.stdout)["output"]["text"] == "x"


def test_invoke_says_how_to_get_the_files_of_a_run(served: PlatformProcess, tmp_path: Path) -> None:
    done = verb(served, "invoke", "local/probe/save", "-i", "text=kept")
    command = next(line for line in done.stderr.splitlines() if line.startswith("download it: ")).removeprefix("download it: cozyctl ")
    assert verb(served, *command.split(), "-o", str(tmp_path / "note.txt")).returncode == 0
    assert (tmp_path / "note.txt").read_text() == "kept"


def test_invoke_and_watch_say_why_a_run_waits(served: PlatformProcess) -> None:
    first = served.submit("one-at-a-time", {"seconds": 60})
    served.until(lambda: served.run(first)["status"] == "running")
    env = {**os.environ, "COZY_URL": served.url}
    command = [str(COZYCTL), "invoke", "local/probe/one-at-a-time", "-i", "text=x"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        lines = iter(child.stderr.readline, "")
        said = next(line for line in lines if "busy" in line)
        assert said.startswith("local/probe/one-at-a-time: queued: ")
        assert "1 run of one-at-a-time" in said
        served.http.post(f"/v1/runs/{first}/cancel")
        child.communicate(timeout=60)
        assert child.returncode == 0


def test_invoke_streams_items_as_they_come(served: PlatformProcess) -> None:
    done = verb(served, "invoke", "local/probe/count", "-i", "times=3")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"number": 0}, {"number": 1}, {"number": 2}]
    whole = verb(served, "invoke", "local/probe/count", "-i", "times=2", "--json")
    assert json.loads(whole.stdout)["output"] == [{"number": 0}, {"number": 1}]


def test_text_streams_print_as_text_and_again_when_they_are_watched(served: PlatformProcess) -> None:
    done = verb(served, "invoke", "local/probe/words", "-i", "text=one two\nthree", "--priority", "high")
    assert (done.returncode, done.stdout) == (0, "onetwo\nthree\n"), done.stderr
    assert "local/probe/words: 50%" in done.stderr.splitlines()
    run = served.http.get("/v1/runs", params={"function": "words"}).json()["data"][0]["id"]
    watched = verb(served, "runs", "watch", run)
    assert (watched.returncode, watched.stdout) == (0, "onetwo\nthree\n"), watched.stderr
    assert "local/probe/words: 50%" in watched.stderr.splitlines()
    as_json = verb(served, "runs", "watch", run, "--json")
    assert (json.loads(as_json.stdout)["output"], as_json.stderr) == ([{"text": "one"}, {"text": "two\nthree"}], "")
    assert verb(served, "runs", "watch", "nothing").returncode == 3


@pytest.mark.parametrize(
    "command",
    [["ps"], ["runs", "list"], ["runs", "list", "--json"], ["workers", "list"], ["logs"], ["tags"], ["releases"], ["invoke", "local/probe/count", "-i", "times=9"]],
)  # fmt: skip
def test_a_reader_who_goes_away_ends_the_verb_without_a_word(served: PlatformProcess, command: list[str]) -> None:
    served.invoke("echo", {"text": "a"})
    read, write = os.pipe()
    os.close(read)
    try:
        env = {**os.environ, "COZY_URL": served.url}
        done = subprocess.run([str(COZYCTL), *command], env=env, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    finally:
        os.close(write)
    shown = [line for line in done.stderr.splitlines() if not line.startswith("local/probe/count: ")]
    assert (done.returncode, shown) == (141, [])


def test_a_stream_that_nobody_reads_any_more_is_canceled(served: PlatformProcess) -> None:
    child = subprocess.Popen(
        [str(COZYCTL), "invoke", "local/probe/words", "-i", "text=word\n", "-i", "times=6000", "-i", "seconds=0.01"],
        env={**os.environ, "COZY_URL": served.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"word\n"
    child.stdout.close()
    assert child.wait(60) == 141
    run = served.http.get("/v1/runs", params={"function": "words"}).json()["data"][0]["id"]
    assert served.run(run, 60)["status"] == "canceled"


@pytest.mark.parametrize("columns", [80, 72])
def test_tables_leave_nothing_out(served: PlatformProcess, columns: int) -> None:
    run = served.invoke("one-at-a-time", {"text": "a"}).json()["id"]
    piped = verb(served, "runs", "list", "--limit", "1").stdout.splitlines()
    assert piped[1].split()[:3] == [run, "local/probe/one-at-a-time", "succeeded"]
    assert "\x1b" not in "".join(piped)
    shown = on_a_terminal(served, columns, "runs", "list", "--limit", "1")
    assert all(len(line) <= columns for line in shown)
    name = "".join(line[34:].partition("  ")[0] for line in shown if "local" in line or not line[:34].strip())
    assert (shown[1][:32], name) == (run, "local/probe/one-at-a-time")


def on_a_terminal(platform: PlatformProcess, columns: int, *command: str) -> list[str]:
    """What a verb prints on a terminal of so many columns, without its colors."""
    master, slave = pty.openpty()
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": str(columns), "TERM": "xterm"}
    try:
        done = subprocess.run([str(COZYCTL), *command], env=env, stdout=slave, stderr=subprocess.PIPE, timeout=60, check=False)
        os.close(slave)
        data = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while chunk := os.read(master, 65536):
                data += chunk
    finally:
        os.close(master)
    assert done.returncode == 0, done.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", data.decode()).splitlines()


def test_runs_of_a_function_by_its_whole_name(served: PlatformProcess) -> None:
    run = served.invoke("version", {}).json()["id"]
    for name in ("version", "local/probe/version"):
        assert verb(served, "runs", "list", "--function", name).stdout.splitlines()[1].startswith(run)
    nothing = verb(served, "runs", "list", "--function", "local/probe/nothing")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no runs of local/probe/nothing" in nothing.stderr
    for odd in ("probe/version", "local/probe/version:prod", "//"):
        assert verb(served, "runs", "list", "--function", odd).returncode == 2


def test_every_verb_of_this_distribution_is_known_without_it() -> None:
    added = {point.name for point in entry_points(group="gen_worker.cli") if point.value.startswith("gen_orchestrator")}
    assert set(ELSEWHERE) == added - {"doctor"}  # without this distribution `doctor` is `check`
    helped = subprocess.run(
        [str(COZYCTL), "--help"], capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "COLUMNS": "80"}
    )
    listed = helped.stdout.partition("Write functions:")[2]
    assert "..." not in listed
    assert OTHERS not in listed, "each verb of ours has a section"
    assert {line.split()[0] for line in listed.splitlines() if line.startswith("  ")} == set(verbs()), (
        "a line for each, and no line is broken"
    )
    assert max(map(len, listed.splitlines())) <= 80


def test_what_is_wrong_is_said_with_the_right_status(served: PlatformProcess) -> None:
    for arguments, status, word in (
        (("invoke", "local/probe/ecko"), 3, "echo"), (("invoke", "probe"), 2, "owner/endpoint/function"),
        (("invoke", "local/probe/echo", "-i", "txt=1"), 2, "text"), (("invoke", "local/probe/echo", "-i", "times=x"), 2, "integer"),
        (("invoke", "local/probe/refuse"), 1, "text is empty"), (("invoke", "local/probe/brief", "-i", "seconds=30"), 5, "timeout"),
        (("runs", "get", "nothing"), 3, "no run"), (("logs", "local/prob"), 3, "Did you mean 'local/probe'?"),
        (("runs", "get", "a?b#c"), 3, "no run 'a?b#c'"), (("runs", "cancel", ".."), 3, "no run '..'"), (("runs", "retry", ""), 2, "empty"),
        (("logs", "nobody"), 3, "Workers: probe-"), (("drain", "nobody"), 3, "Workers: probe-"),
    ):  # fmt: skip
        done = verb(served, *arguments)
        assert (done.returncode, word in done.stderr) == (status, True), (arguments, done)


def test_without_a_platform_the_next_command_is_named() -> None:
    env = {**os.environ, "COZY_URL": "http://127.0.0.1:1"}
    done = subprocess.run([str(COZYCTL), "ps"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "connection refused; is it running? Start it with: cozyctl up" in done.stderr


def test_ctrl_c_cancels_the_run(served: PlatformProcess) -> None:
    env = {**os.environ, "COZY_URL": served.url}
    child = subprocess.Popen([str(COZYCTL), "invoke", "local/probe/sleep", "-i", "seconds=60"], env=env, stderr=subprocess.PIPE, text=True)
    run = served.until(lambda: next(iter(served.http.get("/v1/runs", params={"status": "running"}).json()["data"]), None))
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    assert child.stderr is not None
    child.stderr.close()
    assert served.run(run["id"], 60)["status"] == "canceled"


def test_runs_are_listed_explained_canceled_and_repeated(served: PlatformProcess) -> None:
    first = served.invoke("echo", {"text": "a"}).json()["id"]
    listed = verb(served, "runs", "list")
    assert first in listed.stdout, listed.stdout
    assert "chosen because: no_models" in verb(served, "runs", "get", first, "--why").stdout
    again = verb(served, "runs", "retry", first).stdout.strip()
    assert served.run(again, 60)["parent_id"] == first
    assert "succeeded" not in verb(served, "runs", "watch", again).stderr
    slow = served.submit("sleep", {"seconds": 60})
    assert verb(served, "runs", "cancel", slow).stdout.strip() == "canceled"
    assert "local/probe/echo:prod" in verb(served, "ps").stdout


def test_an_async_invoke_comes_back_at_once(served: PlatformProcess) -> None:
    done = verb(served, "invoke", "local/probe/sleep", "-i", "seconds=600", "--async", "--json")
    run = json.loads(done.stdout)
    assert run["status"] in ("queued", "starting", "running")
    served.http.post(f"/v1/runs/{run['id']}/cancel")
