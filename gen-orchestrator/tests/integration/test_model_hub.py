"""Models stored on the platform: pushed by their author, resolved, fetched and linked by workers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from model_project import CODE, COZY_TOML, safetensors, verb, write_model
from platform_process import PlatformProcess


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("models")
    project = folder / "reader"
    (project / "src" / "reader").mkdir(parents=True)
    (project / "cozy.toml").write_text(COZY_TOML)
    (project / "src" / "reader" / "__init__.py").write_text("")
    (project / "src" / "reader" / "main.py").write_text(CODE)
    started = PlatformProcess(project, folder / "data", env={"TENSORHUB_CACHE_DIR": str(folder / "cache")})
    yield started
    started.close()


def ask(platform: PlatformProcess, ref: str, *dtypes: str) -> Any:
    body = {"model_ref": ref, "constraints": {"dtypes": list(dtypes)}, "include_urls": True}
    return platform.http.post("/api/v1/public/models/request", json=body)


def test_a_pushed_model_is_used_and_nothing_is_copied(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "toy", safetensors(), '{"a": 1}')
    done = verb(platform, "push", str(folder), "me/toy")
    assert (done.returncode, done.stdout) == (0, "cozy:me/toy:latest\n"), done.stderr
    answer = platform.http.post("/v1/local/reader/read", json={"payload": {}})
    assert answer.status_code == 200, answer.text
    output = answer.json()["output"]
    assert output["names"] == ["LICENSE", "config.json", "weights.safetensors"]
    assert output["text"] == '{"a": 1}'
    blob = next((platform.data / "models" / "blobs").rglob(blake3(safetensors()).hexdigest()))
    assert blob.stat().st_nlink == output["links"] >= 3, "the hub's blob, the worker's, and the one in the model's folder are one file"


def test_figures_follow_the_models_of_runs(platform: PlatformProcess, tmp_path: Path) -> None:
    assert verb(platform, "push", str(write_model(tmp_path / "toy", safetensors(), '{"a": 1}')), "me/toy").returncode == 0
    platform.http.post("/v1/local/reader/read", json={"payload": {}})
    before = platform.until(lambda: found if (found := platform.figures()).get('model_bytes{tier="vram"}') else None)
    # from wherever: a worker that hears of a pushed model may have fetched it before its first run asks for it
    assert sum(value for name, value in before.items() if name.startswith("model_load_seconds_count")) >= 1
    platform.http.post("/v1/local/reader/read", json={"payload": {}})
    after = platform.figures()
    for name in (
        'model_cache_hits_total{tier="vram"}',
        'route_total{reason="hot",tier="vram"}',
        'runs_total{function="local/reader/read",status="succeeded"}',
        'run_duration_seconds_count{function="local/reader/read"}',
        'queue_wait_seconds_count{function="local/reader/read"}',
    ):
        assert after[name] == before.get(name, 0) + 1, name


def test_what_is_there_is_not_sent_again(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "again", safetensors("F32"))
    first = json.loads(verb(platform, "push", str(folder), "me/again:v1", "--json").stdout)
    again = json.loads(verb(platform, "push", str(folder), "me/again:v2", "--json").stdout)
    assert first["version"]["digest"] == again["version"]["digest"]
    files = first["version"]["files"]
    listed = platform.http.put("/v1/models/me/other/tags/x", json={"files": files})
    assert (listed.status_code, listed.json()["version"]["precision"]) == (200, "fp32")
    shown = verb(platform, "show", "me/again")
    assert "v1, v2" in shown.stdout
    assert "me/again:v1" in verb(platform, "hub").stdout


def test_a_tag_has_a_version_for_each_precision(platform: PlatformProcess, tmp_path: Path) -> None:
    for dtype in ("F16", "BF16"):
        assert verb(platform, "push", str(write_model(tmp_path / dtype, safetensors(dtype))), "me/two").returncode == 0
    labels = [
        ask(platform, "cozy:me/two", *dtypes).json().get("variant_label") for dtypes in (["bf16"], ["fp16", "bf16"], ["fp32", "bf16"])
    ]
    assert labels == ["bf16", "fp16", "bf16"]
    none = ask(platform, "cozy:me/two", "fp8")
    assert (none.status_code, "bf16, fp16" in none.json()["detail"]) == (409, True)
    assert ask(platform, "cozy:me/two:nope", "fp16").status_code == 404
    assert ask(platform, "hf:org/name", "fp16").status_code == 403, "so that a worker asks Hugging Face itself"
    assert verb(platform, "push", str(tmp_path / "F16"), "hf/org--name").returncode == 0
    assert ask(platform, "hf:org/name", "fp16").json()["repo"] == "org--name"


def test_addresses_expire_and_cannot_be_made_up(platform: PlatformProcess, tmp_path: Path) -> None:
    assert verb(platform, "push", str(write_model(tmp_path / "signed", safetensors())), "me/signed").returncode == 0
    file = ask(platform, "cozy:me/signed", "fp16").json()["snapshot_manifest"]["files"][-1]
    assert platform.http.get(file["url"]).status_code == 200
    part = platform.http.get(file["url"], headers={"range": "bytes=0-3"})
    assert (part.status_code, len(part.content)) == (206, 4)
    path, _, query = file["url"].partition("?")
    for other in (path, f"{path}?{query}0", f"{path}?{query.replace('until=', 'until=9')}", path[:-1] + "0?" + query):
        assert platform.http.get(other).status_code == 403


def test_an_author_who_asked_for_other_precisions_is_told(platform: PlatformProcess, tmp_path: Path) -> None:
    assert verb(platform, "push", str(write_model(tmp_path / "rm", safetensors("BF16"), "unique")), "me/gone").returncode == 0
    assert verb(platform, "rm", "me/gone").returncode == 0
    assert verb(platform, "push", str(tmp_path / "rm"), "me/gome").returncode == 0
    gone = verb(platform, "show", "me/gone")
    assert (gone.returncode, "no model 'me/gone'. Did you mean 'me/gome'?" in gone.stderr) == (3, True), gone
    tag = verb(platform, "rm", "me/gome:lates")
    assert (tag.returncode, "no model 'me/gome:lates'. Did you mean 'me/gome:latest'?" in tag.stderr) == (3, True), tag
    assert verb(platform, "rm", "me/gone").returncode == 3


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("weights.bin", b"x", "safetensors"),
        ("model.py", b"x", "run code"),
        ("weights.safetensors", b"\xff" * 40, "header"),
        ("a.pkl", b"", "run code"),
    ],
)
def test_what_may_run_code_or_lies_is_refused(platform: PlatformProcess, tmp_path: Path, name: str, content: bytes, word: str) -> None:
    folder = write_model(tmp_path / "bad", safetensors())
    (folder / name).write_bytes(content)
    listed = [{"path": name, "size_bytes": len(content) + 1, "blake3": blake3(content + b"?").hexdigest()}]
    first = platform.http.put("/v1/models/me/bad/tags/x", json={"files": listed})
    assert first.status_code == (400 if word in first.text else 202), "no client sends bytes that are refused by their name"
    assert ("inbox" in first.text) == (name == "weights.safetensors")
    done = verb(platform, "push", str(folder), "me/bad")
    assert "reading" not in done.stderr or name == "weights.safetensors"
    assert (done.returncode, word in done.stderr, name in done.stderr) == (2, True, True), done.stderr
    assert platform.http.get("/v1/models/me/bad").status_code == 404
    if word == "run code":
        assert verb(platform, "push", str(folder), "me/allowed", "--allow-unsafe").returncode == 0


@pytest.mark.parametrize(
    ("path", "files", "status"),
    [
        ("me/x/tags/..%2f..%2fx", [], 404),
        ("me/%2e%2e/tags/x", [], 400),
        ("me/x/tags/x", [{"path": "../x", "size_bytes": 0, "blake3": blake3(b"").hexdigest()}], 400),
        ("me/x/tags/x", [{"path": "x", "size_bytes": 0, "blake3": "../../../x"}], 400),
        ("me/x/tags/x", [], 400),
        ("me/x/tags/x", [{"path": "x", "size_bytes": 0}], 400),
    ],
)
def test_names_that_lead_elsewhere(platform: PlatformProcess, path: str, files: list[Any], status: int) -> None:
    platform.http.put(f"/v1/blobs/{blake3(b'').hexdigest()}", content=b"")
    answer = platform.http.put(f"/v1/models/{path}", json={"files": files})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_blob_of_another_content_is_not_kept(platform: PlatformProcess) -> None:
    digest = blake3(b"right").hexdigest()
    assert platform.http.put(f"/v1/blobs/blake3:{digest}", content=b"wrong").status_code == 400
    assert not list((platform.data / "models" / "blobs").rglob(digest))
    assert not list((platform.data / "models" / "blobs").rglob(".new-*"))
    assert platform.http.put("/v1/blobs/sha256:" + "0" * 64, content=b"").status_code == 400
