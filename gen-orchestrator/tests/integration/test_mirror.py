"""The platform downloads a Hugging Face model when a worker first requests it, once for all workers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from blob_server import BlobServer
from hugging_face import COMMIT, HuggingFace
from model_project import CODE, COZY_TOML, safetensors, verb
from platform_process import PlatformProcess

from gen_orchestrator.hub.mirror import mirrored
from gen_orchestrator.hub.model_records import DamagedStoreError
from gen_orchestrator.hub.models import ModelStore
from gen_worker.refs import HuggingFaceRef, parse_model_ref

FILES = {"config.json": b'{"model_type": "bert"}', "weights.safetensors": safetensors(), "LICENSE": b"MIT"}


@pytest.fixture
def hub() -> Iterator[HuggingFace]:
    with BlobServer() as server:
        yield HuggingFace(server, "demo/m", {name.replace("weights", "model"): data for name, data in FILES.items()})


def ask(platform: PlatformProcess, ref: str, *dtypes: str) -> Any:
    body = {"model_ref": ref, "constraints": {"dtypes": list(dtypes)}, "include_urls": True}
    return platform.http.post("/api/v1/public/models/request", json=body)


def test_a_model_that_is_not_here_is_fetched_once(hub: HuggingFace, tmp_path: Path) -> None:
    project = tmp_path / "reader"
    (project / "src" / "reader").mkdir(parents=True)
    (project / "cozy.toml").write_text(COZY_TOML.replace("cozy:me/toy:latest", "hf:demo/m"))
    (project / "src" / "reader" / "__init__.py").write_text("")
    (project / "src" / "reader" / "main.py").write_text(CODE.replace('"weights.safetensors"', '"model.safetensors"'))
    env = {"HF_ENDPOINT": hub.server.url, "TENSORHUB_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    platform = PlatformProcess(project, tmp_path / "data", "--mirror", env=env)
    try:
        first = ask(platform, "hf:demo/m", "fp16")
        assert first.status_code in (202, 200), first.text
        if first.status_code == 202:
            assert first.json()["ingest_job_id"] == ask(platform, "hf:demo/m", "fp16").json().get(
                "ingest_job_id", first.json()["ingest_job_id"]
            )
        answer = platform.until(lambda: found if (found := ask(platform, "hf:demo/m", "fp16")).status_code == 200 else None)
        files = {file["path"]: file for file in answer.json()["snapshot_manifest"]["files"]}
        assert files["model.safetensors"]["blake3"] == blake3(safetensors()).hexdigest()
        assert platform.http.get(files["model.safetensors"]["url"]).content == safetensors()
        assert answer.json()["cozy_repo_ref"] == "cozy:hf/demo--m:latest"

        run = platform.http.post("/v1/local/reader/read", json={"payload": {}})
        assert run.status_code == 200, run.text
        assert run.json()["output"]["links"] >= 3, "the worker has linked the platform's file"
        assert hub.sent()["model.safetensors"] <= len(safetensors()) + 8 + 200, "its bytes came once, beside a look at its head"
        lists = hub.asked
        assert ask(platform, "hf:demo/m", "fp16").status_code == 200
        assert hub.asked == lists, "what is here asks nobody"
        shown = verb(platform, "show", "hf/demo--m").stdout
        assert f"hf:demo/m at {COMMIT}" in shown

        for ref in ("hf:demo/other", f"hf:demo/m@{'f' * 40}"):
            refused = platform.until(lambda ref=ref: found if (found := ask(platform, ref, "fp16")).status_code != 202 else None)
            assert (refused.status_code, refused.json()["code"]) == (403, "not_mirrored"), refused.text
            assert "could not be fetched" in refused.json()["detail"]
        assert ask(platform, "hf:demo/m", "fp99").status_code == 400
        collected = verb(platform, "hub", "gc")
        assert (collected.returncode, collected.stdout) == (0, "0 files removed, 0.0 MB freed\n"), collected.stderr
    finally:
        platform.close()


@pytest.mark.parametrize(
    ("ref", "place"),
    [
        ("hf:demo/m", "cozy:hf/demo--m:latest"),
        (f"hf:demo/m@{COMMIT}", f"cozy:hf/demo--m:{COMMIT}"),
        ("hf:demo/m@refs/pr/1", "cozy:hf/demo--m:refs--pr--1"),
    ],
)
def test_where_a_mirror_lies(ref: str, place: str) -> None:
    parsed = parse_model_ref(ref)
    assert isinstance(parsed, HuggingFaceRef)
    assert mirrored(parsed).canonical() == place
    assert parse_model_ref(place) == mirrored(parsed)


def test_what_no_model_has_goes_and_what_is_new_or_unclear_stays(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    folder = tmp_path / "incoming"
    folder.mkdir()
    for name, data in (*FILES.items(), ("other", b"of no model")):
        (folder / name).write_bytes(data)
    files = [store.adopt(folder / name, name) for name in FILES]
    assert store.blob_path(files[0].blake3).stat().st_nlink == 2, "by a second name, not by a copy"
    store.commit("me", "toy", "latest", files)
    other = store.adopt(folder / "other", "other")
    (folder / "other").unlink()
    assert store.collect().blobs == 0, "it came just now"
    assert (store.collect(young_s=-60).blobs, store.missing([other])) == (1, [other.blake3])
    assert store.missing(files) == []
    (record,) = (tmp_path / "models" / "repos").rglob("versions/*.json")
    record.write_bytes(b"{")
    with pytest.raises(DamagedStoreError, match="no blob is deleted"):
        store.collect(young_s=-60)
    assert store.missing(files) == []
