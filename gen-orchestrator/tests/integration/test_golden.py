"""Golden requests: a release with a different output is not promoted."""

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from platform_process import COZYCTL, PlatformProcess, write_project

TAG = "/v1/endpoints/local/probe/functions/{}/tags/{}"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """A platform whose project was edited once: `version` says 2 at `dev`, and 1 at `prod`."""
    folder = tmp_path_factory.mktemp("golden")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    main = started.project / "src" / "probe" / "main.py"
    main.write_text(main.read_text().replace("VERSION = 1", "VERSION = 2"))
    started.until(lambda: tagged(started, "version", "dev") != tagged(started, "version", "prod"))
    yield started
    started.close()


def tagged(platform: PlatformProcess, function: str, tag: str) -> str:
    return str(platform.http.get(TAG.format(function, tag)).json()["release_id"])


def verb(platform: PlatformProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_promote_that_changes_a_golden_output_is_refused(platform: PlatformProcess) -> None:
    old, new = tagged(platform, "version", "prod"), tagged(platform, "version", "dev")
    run = platform.invoke("version", {"text": "a"}).json()
    added = verb(platform, "golden", "add", run["id"])
    golden = added.stdout.strip()
    assert (added.returncode, golden[:2]) == (0, "g-"), added.stderr
    assert run["id"] in verb(platform, "golden", "list", "local/probe").stdout

    refused = platform.http.put(TAG.format("version", "prod"), json={"release_id": new})
    assert (refused.status_code, refused.json()["code"]) == (409, "golden_failed")
    assert refused.json()["errors"] == [
        {"pointer": "/text", "message": f"version, golden {golden}: the output differs", "expected": '"1"', "got": '"2"'}
    ]
    done = verb(platform, "promote", new, "--function", "refuse", "--function", "version")
    assert (done.returncode, golden in done.stderr, "--skip-gates" in done.stderr) == (1, True, True), done
    assert (tagged(platform, "version", "prod"), tagged(platform, "refuse", "prod")) == (old, old), "no promote is half done"

    shown = verb(platform, "gates", new)
    assert (shown.returncode, f"FAILED  golden {golden} of version" in shown.stdout, '/text: "1" -> "2"' in shown.stdout) == (
        0,
        True,
        True,
    ), shown
    found = platform.http.get(f"/v1/releases/{new}/gates").json()["data"]
    made = platform.run(found[0]["detail"]["run_id"])
    assert (made["invoker_id"], made["parent_id"], made["release_id"], made["tag"]) == ("gate:golden", run["id"], new, f"@{new}")

    same = verb(platform, "golden", "run", old)
    assert (same.returncode, f"passed  golden {golden} of version" in same.stdout) == (0, True), same
    assert verb(platform, "promote", new, "--function", "version", "--skip-gates").returncode == 0
    assert tagged(platform, "version", "prod") == new
    assert verb(platform, "rollback", "local/probe/version").returncode == 0, "back is always possible"

    assert verb(platform, "golden", "rm", golden).returncode == 0
    assert verb(platform, "golden", "rm", golden).returncode == 3
    assert verb(platform, "promote", new, "--function", "version").returncode == 0
    actions = [row["action"] for row in platform.http.get("/v1/audit").json()["data"]]
    assert {"golden.added", "golden.removed"} <= set(actions)


def test_streams_and_numbers_are_golden_too(platform: PlatformProcess) -> None:
    new = tagged(platform, "count", "dev")
    made = []
    for function, payload in (("count", {"times": 3}), ("echo", {"text": "a"})):
        run = platform.invoke(function, payload).json()
        made.append(platform.http.post(f"/v1/runs/{run['id']}/golden", json={"tolerance": 1.0}).json()["golden_id"])
    found = platform.http.post(f"/v1/releases/{new}/goldens").json()
    assert (found["passed"], {each["subject"] for each in found["data"]}) == (True, set(made)), found
    assert json.loads(verb(platform, "golden", "run", new, "--function", "count", "--json").stdout)["data"][0]["subject"] == made[0]
    for each in made:
        platform.http.delete(f"/v1/goldens/{each}")


def test_only_a_run_that_was_right_is_golden(platform: PlatformProcess) -> None:
    failed = platform.invoke("refuse").json()["id"]
    answers = [
        platform.http.post(f"/v1/runs/{failed}/golden"),
        platform.http.post("/v1/runs/none/golden"),
        platform.http.post(f"/v1/runs/{platform.invoke('echo').json()['id']}/golden", json={"tolerance": -1}),
        platform.http.post(f"/v1/runs/{failed}/golden", json={"tolerence": 1}),
        platform.http.post("/v1/releases/none/goldens"),
        platform.http.delete("/v1/goldens/none"),
    ]
    assert [answer.status_code for answer in answers] == [409, 404, 409, 400, 404, 404]
    assert "failed" in answers[0].json()["detail"]
