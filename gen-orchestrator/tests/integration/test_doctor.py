"""The platform's disk use, and which command frees how much: `cozyctl doctor`, `/metrics`, with and without a running platform."""

import json
from pathlib import Path

from blake3 import blake3
from greeting_releases import publish, verb
from platform_process import PlatformProcess, write_project

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
