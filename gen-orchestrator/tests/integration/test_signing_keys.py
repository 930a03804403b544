"""A new signing key for worker tokens while workers run: they are not interrupted."""

import json
import os
import subprocess
from pathlib import Path

import httpx
from bounded_platform import Bounded
from platform_process import COZYCTL, PlatformProcess


def test_workers_notice_no_rotation(project: Path, tmp_path: Path) -> None:
    started = PlatformProcess(project, tmp_path / "data", "--keys")
    try:
        platform = Bounded(started)
        key = platform.make()["key"]
        env = {**os.environ, "COZY_URL": started.url, "COZY_API_KEY": platform.operator}
        slow = platform.start(key).json()["id"]
        started.until(lambda: platform.ask(key, "GET", f"/v1/runs/{slow}").json()["status"] == "running")
        worker_id = platform.ask(key, "GET", f"/v1/runs/{slow}").json()["worker_id"]
        for scope in ("invoke", "admin"):
            theirs = platform.make(scope)["key"]
            assert {platform.ask(theirs, method, "/v1/signing-keys").status_code for method in ("GET", "POST")} == {403}
        command = [str(COZYCTL), "keys", "rotate-signing", "--json"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        assert [(each["kid"] == made["kid"], each["signs"]) for each in made["data"]] == [(True, True), (False, False)]
        published = httpx.get(f"{started.url}/.well-known/jwks.json", trust_env=False).json()["keys"]
        assert {each["kid"] for each in published} == {each["kid"] for each in made["data"]}
        assert not any(secret in each for each in published for secret in ("d", "p", "q"))
        assert platform.run(key).json()["worker_id"] == worker_id
        run = platform.ask(key, "GET", f"/v1/runs/{slow}").json()
        assert (run["status"], run["attempt"], run["worker_id"]) == ("running", 1, worker_id)
        canceled = platform.ask(key, "POST", f"/v1/runs/{slow}/cancel").json()
        assert (canceled["status"], canceled["attempt"]) == ("canceled", 1), "its worker still hears what it is told"
        assert platform.ask(platform.operator, "GET", "/v1/signing-keys").json()["data"] == made["data"]
        rows = platform.ask(platform.operator, "GET", "/v1/audit").json()["data"]
        assert [row["subject"] for row in rows if row["action"] == "signing_key.rotated"] == [made["kid"]]
    finally:
        started.close()
