"""Starting the runner: operators' mistakes, each with a helpful message; and limits from the environment."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Runner, write_project

CODE = """
class Text(msgspec.Struct):
    prompt: str = ""

class Out(msgspec.Struct):
    text: str

@worker_function
def echo(ctx: ActionContext, payload: Text) -> Out:
    return Out(str(len(payload.prompt)))

@worker_function
def endless(ctx: ActionContext, payload: Text) -> Iterator[Out]:
    while True:
        yield Out("again")
"""


def start(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gen_worker.testing.http_runner", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **(env or {})})


def test_a_port_in_use(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "p", CODE)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = start(folder, "--listen", f"127.0.0.1:{port}", "--outputs", str(tmp_path / "o"))
    assert found.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; port {port} is already used" in found.stderr


@pytest.mark.parametrize("listen", ["8081", "127.0.0.1:", "127.0.0.1:99999", ":80x", "no-such-host.invalid:80"])
def test_an_address_that_cannot_be_listened_on(tmp_path: Path, listen: str) -> None:
    found = start(write_project(tmp_path / "p", CODE), "--listen", listen, "--outputs", str(tmp_path / "o"))
    assert found.returncode == 1
    assert listen in found.stderr
    assert "Traceback" not in found.stderr


def test_an_outputs_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = start(write_project(tmp_path / "p", CODE), "--listen", "127.0.0.1:0", "--outputs", str(tmp_path / "file" / "outputs"))
    assert found.returncode == 1
    assert "cannot be written" in found.stderr
    assert "--outputs FOLDER" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        ([], {"WORKER_MAX_OUTPUT_BYTES": "many"}, "WORKER_MAX_OUTPUT_BYTES='many'"),
        (["--manifest", "missing.json"], {}, "manifest missing.json cannot be read"),
        (["--model", "nope"], {}, "expected KEY=FOLDER"),
        (["--model", "a=missing"], {}, "nothing at"),
        (["--model", "a=."], {}, "model override for 'a', which is unused"),
        ([], {"COZY_MODEL_OVERRIDES": "a=pkg:not_there/x"}, "the package 'not_there' is not installed"),
    ],
)
def test_starts_that_cannot_succeed(tmp_path: Path, arguments: list[str], env: dict[str, str], message: str) -> None:
    folder = write_project(tmp_path / "p", CODE)
    found = start(folder, "--listen", "127.0.0.1:0", "--outputs", str(tmp_path / "o"), *arguments, env=env)
    assert found.returncode == 1
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_limits_of_the_environment(project: Callable[..., Path], start_runner: Callable[..., Runner]) -> None:
    env = {
        "WORKER_MAX_INPUT_BYTES": "100",
        "WORKER_MAX_OUTPUT_BYTES": "12",
        "WORKER_MAX_UPLOAD_BYTES": "0",
        "WORKER_MAX_OUTPUT_DELTA_EVENTS": "3",
        "WORKER_MAX_CONCURRENCY": "1",
    }
    limited = start_runner(project(CODE), env=env)
    assert "at most 100 are allowed (WORKER_MAX_INPUT_BYTES)" in limited.run("echo", {"prompt": "x" * 100}).json()["safe_message"]
    assert limited.run("echo", {"prompt": "x" * 9}).json()["output"] == {"text": "9"}
    assert "at most 12 are allowed (WORKER_MAX_OUTPUT_BYTES)" in limited.run("echo", {"prompt": "x" * 10}).json()["safe_message"]
    answer = limited.run("endless").json()
    assert answer["success"] is True
    assert [event["event_type"] for event in answer["events"]].count("output.delta") == 3


def test_settings_of_a_function_in_cozy_toml(project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    nap = "@worker_function\ndef nap(ctx: ActionContext, payload: Text) -> Out:\n    time.sleep(0.5)\n    return Out(str(ctx.timeout_ms))\n"
    folder = project(CODE + nap, "[functions.nap]\nmax_concurrency = 1\ntimeout_s = 0.2\n")
    baked = tmp_path / "manifest.json"
    baked.write_bytes(subprocess.run([sys.executable, "-m", "gen_worker.discover"], cwd=folder, capture_output=True, check=True).stdout)
    for arguments in ([], ["--manifest", str(baked), "--endpoint-root", str(folder)]):
        runner = start_runner(folder, *arguments)
        assert runner.run("nap").json()["safe_message"] == "timed out after 200 ms"
        waiting = runner.http.post("/v1/run/nap", json={"payload": {}, "timeout_ms": 5000}, headers={"prefer": "respond-async"})
        assert waiting.json()["status"] == "queued"
        assert runner.http.get(waiting.headers["location"], params={"wait": 60}).json()["output"] == {"text": "5000"}


def test_a_command_given_to_the_image_runs_instead_of_the_worker() -> None:
    def entrypoint(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gen_worker.entrypoint", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    ran = entrypoint(sys.executable, "-c", "import sys; print('ran'); sys.exit(5)")
    assert (ran.stdout, ran.returncode) == ("ran\n", 5)
    missing = entrypoint("no-such-program", "--listen")
    assert missing.returncode == 127
    assert "cannot run 'no-such-program': No such file or directory" in missing.stderr
