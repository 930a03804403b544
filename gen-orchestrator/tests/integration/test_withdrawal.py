"""Taking an endpoint out of service: new runs are refused, accepted ones end, no later start serves it, and it can come back."""

import os
import subprocess
from pathlib import Path

from hello_project import HELLO, write_hello
from platform_process import COZYCTL, PlatformProcess

WAITS = HELLO.replace("import msgspec", "import time\nimport msgspec").replace(
    "    return Output", "    while payload.name == 'wait' and not ctx.is_canceled():\n        time.sleep(0.01)\n    return Output"
)


def verb(platform: PlatformProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), *arguments], env=env, capture_output=True, text=True, timeout=100, check=False)


def test_an_endpoint_goes_out_of_service_and_comes_back(tmp_path: Path) -> None:
    first = write_hello(tmp_path / "first", "first", WAITS)
    with (first / "cozy.toml").open("a") as toml:
        toml.write("[functions.greet]\nmax_concurrency = 1\n")
    second = write_hello(tmp_path / "second", "second")
    data = tmp_path / "data"
    platform = PlatformProcess(first, data, str(second))
    try:
        there = platform.http.get("/v1/tags", params={"endpoint": "first"}).json()["data"]
        release = there[0]["release_id"]
        held, queued = (
            platform.http.post("/v1/local/first/greet", json={"payload": {"name": name}}, headers={"prefer": "respond-async"}).json()["id"]
            for name in ("wait", "later")
        )
        platform.until(lambda: platform.run(held)["status"] == "running")
        gone = verb(platform, "rm", "local/first")
        assert (gone.returncode, gone.stdout) == (0, "local/first is out of service; it had greet:dev, greet:prod\n"), gone
        assert "1 run that runs and 1 run in the queue continue to their end" in gone.stderr
        assert f"cozyctl promote {release}" in gone.stderr

        refused = verb(platform, "invoke", "local/first/greet")
        assert (refused.returncode, f"out of service: none of its functions has a tag. Serve its newest release with: cozyctl promote {release}" in refused.stderr) == (3, True), refused  # fmt: skip
        assert verb(platform, "rm", "local/first").returncode == 3
        assert verb(platform, "rm", "local/first/greet:prod").returncode == 2
        near = verb(platform, "rm", "local/secnd")
        assert (near.returncode, "Did you mean 'second'?" in near.stderr) == (3, True), near
        main = first / "src/first_package/main.py"
        main.write_text(WAITS + "# an edit\n")
        assert platform.process.stdout is not None
        assert any(b"was taken out of service" in line for line in iter(platform.process.stdout.readline, b""))

        platform.http.post(f"/v1/runs/{held}/cancel")
        assert platform.run(queued, 60)["output"] == {"text": "hello later"}
        assert platform.run(held)["status"] == "canceled"
        assert release in verb(platform, "releases", "local/first").stdout
    finally:
        platform.close()

    again = PlatformProcess(second, data)
    try:
        refs = {tag["ref"] for tag in again.status()["tags"]}
        assert {ref.rpartition("/")[0] for ref in refs} == {"local/second"}
        back = verb(again, "promote", release)
        assert back.returncode == 0, back
        assert again.http.post("/v1/local/first/greet", json={"payload": {}}).json()["output"] == {"text": "hello world"}
        history = again.http.get("/v1/endpoints/local/first/functions/greet/tags/prod").json()["history"]
        assert [(each["release_id"], each["version"]) for each in history] == [(release, 3), (release, 1)]
        assert again.http.delete("/v1/deployments/first").status_code == 204
        again.until(lambda: not [each for each in again.http.get("/v1/workers").json()["data"] if each["release_id"] == release])
    finally:
        again.close()
