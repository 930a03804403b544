"""cozyctl's verbs against a platform that really runs."""

import json
import os
import signal
import subprocess
import time

from platform_process import COZYCTL, PlatformProcess


def verb(platform: PlatformProcess, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url}
    return subprocess.run([str(COZYCTL), *arguments], env=env, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_invoke_prints_the_output_and_reads_fields_by_their_types(platform: PlatformProcess) -> None:
    done = verb(platform, "invoke", "local/probe/echo", "-i", "text=12", "-i", "times=3")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == "12"
    whole = verb(platform, "invoke", "local/probe/echo", "--payload", "-", "--json", text='{"text": "x"}')
    assert json.loads(whole.stdout)["output"]["text"] == "x"


def test_invoke_streams_items_as_they_come(platform: PlatformProcess) -> None:
    done = verb(platform, "invoke", "local/probe/count", "-i", "times=3")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"number": 0}, {"number": 1}, {"number": 2}]
    whole = verb(platform, "invoke", "local/probe/count", "-i", "times=2", "--json")
    assert json.loads(whole.stdout)["output"] == [{"number": 0}, {"number": 1}]


def test_what_is_wrong_is_said_with_the_right_status(platform: PlatformProcess) -> None:
    for arguments, status, word in (
        (("invoke", "local/probe/ecko"), 3, "echo"), (("invoke", "probe"), 2, "owner/endpoint/function"),
        (("invoke", "local/probe/echo", "-i", "txt=1"), 2, "text"), (("invoke", "local/probe/echo", "-i", "times=x"), 2, "integer"),
        (("invoke", "local/probe/refuse"), 1, "text is empty"), (("invoke", "local/probe/brief", "-i", "seconds=30"), 5, "timeout"),
        (("runs", "get", "nothing"), 3, "no run"),
    ):  # fmt: skip
        done = verb(platform, *arguments)
        assert (done.returncode, word in done.stderr) == (status, True), (arguments, done)


def test_without_a_platform_the_next_command_is_named() -> None:
    env = {**os.environ, "COZY_URL": "http://127.0.0.1:1"}
    done = subprocess.run([str(COZYCTL), "ps"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cozyctl up" in done.stderr


def test_ctrl_c_cancels_the_run(platform: PlatformProcess) -> None:
    env = {**os.environ, "COZY_URL": platform.url}
    child = subprocess.Popen([str(COZYCTL), "invoke", "local/probe/sleep", "-i", "seconds=60"], env=env, stderr=subprocess.PIPE, text=True)
    run = platform.until(lambda: next(iter(platform.http.get("/v1/runs", params={"status": "running"}).json()["data"]), None))
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 130
    assert child.stderr is not None
    child.stderr.close()
    assert platform.run(run["id"], 10)["status"] == "canceled"


def test_runs_are_listed_explained_canceled_and_repeated(platform: PlatformProcess) -> None:
    first = platform.invoke("echo", {"text": "a"}).json()["id"]
    listed = verb(platform, "runs", "list")
    assert first in listed.stdout, listed.stdout
    assert "chosen because: no_models" in verb(platform, "runs", "get", first, "--why").stdout
    again = verb(platform, "runs", "retry", first).stdout.strip()
    assert platform.run(again, 30)["parent_id"] == first
    assert "succeeded" not in verb(platform, "runs", "watch", again).stderr
    slow = platform.submit("sleep", {"seconds": 60})
    assert verb(platform, "runs", "cancel", slow).stdout.strip() == "canceled"
    assert "local/probe/echo:prod" in verb(platform, "ps").stdout


def test_an_async_invoke_comes_back_at_once(platform: PlatformProcess) -> None:
    began_s = time.monotonic()
    done = verb(platform, "invoke", "local/probe/sleep", "-i", "seconds=30", "--async", "--json")
    assert time.monotonic() - began_s < 25
    run = json.loads(done.stdout)
    assert run["status"] in ("queued", "starting", "running")
    platform.http.post(f"/v1/runs/{run['id']}/cancel")
