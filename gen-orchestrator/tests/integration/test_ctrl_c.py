"""Ctrl-C in long verbs: one line, status 130, and the platform's work for this caller alone is cancelled."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hello_project import write_hello
from platform_process import COZYCTL, PlatformProcess, write_project
from terminal import Terminal

TAG = "/v1/endpoints/local/probe/functions/version/tags/{}"
QUICK, ENDLESS = "    return Output(text=str(VERSION))", "    time.sleep(3600)\n    return Output(text=str(VERSION))"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """A platform whose function `version` answers at `prod`, and does not end at `dev`."""
    folder = tmp_path_factory.mktemp("ctrl-c")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    main = started.project / "src" / "probe" / "main.py"
    main.write_text(main.read_text().replace(QUICK, ENDLESS))
    started.until(lambda: points_at(started, "dev") != points_at(started, "prod"))
    yield started
    started.close()


def points_at(platform: PlatformProcess, tag: str) -> str:
    return str(platform.http.get(TAG.format(tag)).json()["release_id"])


def running(platform: PlatformProcess, release_id: str) -> str:
    """The id of the run that goes on at a release, once there is one."""

    def look() -> str:
        found = platform.http.get("/v1/runs", params={"status": "running"}).json()["data"]
        return next((run["id"] for run in found if run["release_id"] == release_id), "")

    return str(platform.until(look))


def test_what_a_verb_waits_for_ends_with_it(platform: PlatformProcess, tmp_path: Path) -> None:
    env = {"COZY_URL": platform.url}
    prod, dev = points_at(platform, "prod"), points_at(platform, "dev")
    run = platform.invoke("version", {}).json()
    exported = tmp_path / "run.json"
    exported.write_bytes(platform.http.get(f"/v1/runs/{run['id']}/export").content)
    assert platform.http.post(f"/v1/runs/{run['id']}/golden", json={}).status_code == 201
    for arguments in (
        ("invoke", "local/probe/version:dev"),
        ("replay", str(exported), "--release", dev),
        ("golden", "run", dev),
        ("promote", dev, "--function", "version"),
    ):
        with Terminal([COZYCTL, *arguments], env=env) as terminal:
            run_id = running(platform, dev)
            terminal.interrupt()
            assert terminal.status() == 130, terminal.text
            platform.until(lambda run_id=run_id: platform.run(run_id)["status"] == "canceled")
            assert "Traceback" not in terminal.text
            assert terminal.lines[-2] in ("interrupted", f"run {run_id} is canceled"), terminal.text
    assert points_at(platform, "prod") == prod


def test_runs_watch_leaves_the_run_alone(platform: PlatformProcess) -> None:
    run_id = platform.submit("sleep", {"seconds": 3600})
    with Terminal([COZYCTL, "runs", "watch", run_id], env={"COZY_URL": platform.url}) as terminal:
        terminal.until("running")
        terminal.interrupt()
        assert terminal.status() == 130
        assert f"the run continues; cancel it with: cozyctl runs cancel {run_id}" in terminal.text
    assert platform.http.post(f"/v1/runs/{run_id}/cancel").status_code == 200
    platform.run(run_id, 60)


def test_a_publish_cancels_its_build(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_hello(tmp_path / "slow", "slow", "import time\ntime.sleep(3600)\n")
    with Terminal([COZYCTL, "publish", folder], env={"COZY_URL": platform.url}) as terminal:
        terminal.until("reading its functions")
        terminal.interrupt()
        assert terminal.status() == 130
        (build,) = platform.http.get("/v1/builds").json()["data"]
        assert f"build {build['build_id']} is canceled" in terminal.text
    assert build["status"] == "canceled"


def test_as_json_it_is_a_document(platform: PlatformProcess) -> None:
    command = [str(COZYCTL), "invoke", "local/probe/version:dev", "--json"]
    with subprocess.Popen(command, env={**os.environ, "COZY_URL": platform.url}, stdout=subprocess.PIPE, text=True) as child:
        run_id = running(platform, points_at(platform, "dev"))
        child.send_signal(2)
        assert child.stdout is not None
        body = json.loads(child.stdout.read())
        assert child.wait(60) == 130
    assert (body["id"], body["status"]) == (run_id, "canceled")


def test_a_canary_of_an_endpoint_passes_over_functions_that_are_there_already(platform: PlatformProcess) -> None:
    env = {**os.environ, "COZY_URL": platform.url}

    def promote(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(COZYCTL), "promote", *arguments, "--skip-gates"]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert promote("local/probe/echo:dev").returncode == 0
    done = promote("local/probe:dev", "--canary", "10%")
    assert done.returncode == 0, done.stderr
    assert "echo:prod already points at" in done.stderr
    assert "local/probe/version:prod" in done.stdout
    assert "local/probe/echo:prod" not in done.stdout
