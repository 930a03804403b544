"""The platform's disk use, and which command frees how much: `cozyctl doctor`, `/metrics`, with and without a running platform."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from blake3 import blake3
from free_ports import free_port
from greeting_releases import publish, verb
from platform_process import COZYCTL, PlatformProcess, write_project

from gen_orchestrator.hub.disk_report import DataFolder
from gen_orchestrator.hub.models import ModelStore

UNUSED = b"u" * 3_000_000


def test_doctor_says_what_takes_room_and_what_frees_it(tmp_path: Path) -> None:
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data", env={"TENSORHUB_CACHE_DIR": str(tmp_path / "cache")})
    try:
        old, new = (publish(platform, tmp_path, "gone", version) for version in (1, 2))
        assert platform.http.put(f"/v1/blobs/blake3:{blake3(UNUSED).hexdigest()}", content=UNUSED).status_code == 204
        assert platform.http.put("/v1/files/local/large.bin", content=b"f" * 2_000_000).status_code in (200, 201)
        folder = str(tmp_path / "gone-1")
        done = verb(platform, "doctor", folder, "--json")
        found = json.loads(done.stdout)
        assert (done.returncode, found["ok"]) == (1, False), "the project has no Dockerfile"
        assert found["project"]["functions"] == ["greet"]
        disk = found["disk"]
        assert disk["folder"] == str(platform.data)
        assert 0 < disk["free_bytes"] < disk["size_bytes"]
        taken = disk["bytes"]
        assert list(taken) == ["store", "models", "files", "releases", "environments", "images", "logs", "other"]
        assert taken["store"] > 8 << 20, "with what is set aside for deletes"
        assert (taken["models"] >= len(UNUSED), taken["files"] >= 2_000_000) == (True, True)
        assert min(taken["releases"], taken["logs"]) > 0
        freeable = {each["command"]: each["size_bytes"] for each in disk["freeable"]}
        assert freeable["cozyctl models hub gc"] == len(UNUSED)
        assert 0 < freeable["cozyctl releases prune --keep 0"] < taken["releases"] + taken["environments"]
        shown = verb(platform, "doctor", folder)
        assert "error: missing Dockerfile" in shown.stderr
        assert "3.0 MB are free after: cozyctl models hub gc" in shown.stdout
        assert "all of it, and what frees it: cozyctl doctor" in verb(platform, "ps").stdout

        platform.until(lambda: platform.figures().get('data_folder_bytes{kind="models"}', 0) >= len(UNUSED))
        assert platform.figures()["data_folder_free_bytes"] > 0

        pruned = platform.http.post("/v1/releases/prune", json={"keep": 0}).json()
        assert new in [each["release_id"] for each in pruned["data"]]
        assert old not in [each["release_id"] for each in pruned["data"]], "prod points at it"
        after = platform.http.get("/v1/disk").json()
        assert after["bytes"]["releases"] < taken["releases"]
        assert "cozyctl releases prune --keep 0" not in [each["command"] for each in after["freeable"]]
    finally:
        platform.close()
    offline = json.loads(verb(platform, "doctor", str(tmp_path), "--json", "--data", str(platform.data)).stdout)
    assert offline["project"] is None
    assert offline["disk"]["bytes"]["models"] == after["bytes"]["models"]
    assert [each["command"] for each in offline["disk"]["freeable"]] == ["cozyctl models hub gc"]
    (platform.data / "models" / "repos" / "me" / "x" / "versions").mkdir(parents=True)
    (platform.data / "models" / "repos" / "me" / "x" / "versions" / "y.json").write_text("{")
    damaged = DataFolder(platform.data, ModelStore(platform.data / "models")).look()
    assert damaged.freeable == (), "what is damaged frees nothing, and hides nothing"
    assert verb(platform, "doctor", str(tmp_path), "--data", "/dev/null").returncode == 2


def doctor(folder: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    folder.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("COZY_URL", "COZY_API_KEY", "COZY_PROFILE")}
    env = {**kept, "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder), **env}
    command = [str(COZYCTL), "doctor", *arguments]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_doctor_without_a_platform(tmp_path: Path) -> None:
    """Of what was not looked at, it never says that it is well."""
    here, there = f"http://127.0.0.1:{free_port()}", "http://nowhere.invalid"
    nothing = doctor(tmp_path / "none", "--url", here)
    assert (nothing.returncode, "no control plane answers at" in nothing.stderr) == (1, True), nothing
    assert nothing.stdout == ""
    (tmp_path / "some" / "data" / "cozy" / "up" / "logs").mkdir(parents=True)
    (tmp_path / "some" / "data" / "cozy" / "up" / "logs" / "w").write_bytes(b"x" * 100_000)
    local = json.loads(doctor(tmp_path / "some", "--json", COZY_URL=here).stdout)
    assert (local["ok"], local["platform"]["code"], local["project"]) == (False, "unreachable", None)
    assert local["disk"]["bytes"]["logs"] >= 100_000
    far = json.loads(doctor(tmp_path / "some", "--json", "--url", there).stdout)
    assert (far["ok"], far["platform"]["url"], far["disk"]) == (False, there, None), "this machine's disk says nothing about another"


def test_doctor_shows_the_project_whatever_the_platform_says(tmp_path: Path) -> None:
    project = write_project(tmp_path / "probe")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        serving = threading.Thread(target=other.serve_forever)
        serving.start()
        try:
            done = doctor(tmp_path / "home", str(project), "--json", "--url", f"http://127.0.0.1:{other.server_port}")
        finally:
            other.shutdown()
            serving.join()
    found = json.loads(done.stdout)
    assert (done.returncode, found["platform"]["code"], "echo" in found["project"]["functions"]) == (1, "unexpected", True), done
    named = doctor(tmp_path / "home", str(project), "--url", "nonsense")
    assert (named.returncode, "expected one such as" in named.stderr) == (2, True)
