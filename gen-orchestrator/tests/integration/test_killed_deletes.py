"""Deletes that are interrupted by a kill, at every step and at random moments: nothing half-deleted is served, nothing needed is lost,
and the next start completes them."""

import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from blake3 import blake3
from greeting_releases import publish
from platform_process import PlatformProcess, write_project

from gen_orchestrator.hub.model_records import ModelFile, UnknownModelError
from gen_orchestrator.hub.models import ModelStore
from gen_worker.refs import CozyRef

TAG = "/v1/endpoints/local/{}/functions/greet/tags/prod"
# For n = 1, 2, ...: copies the store, and removes from the copy in a process that ends as by a kill at its nth change of the file system (a
# rename, an unlink, a folder that is made or removed), until one comes to its end.
KILLED_AT_EACH_STEP = """
import os, shutil, sys
from pathlib import Path
from gen_orchestrator.hub.models import ModelStore
whole, tag = Path(sys.argv[1]), sys.argv[2]
for step in range(1, 200):
    folder = whole.with_name(str(step))
    shutil.copytree(whole, folder)
    child = os.fork()
    if not child:
        seen = 0
        def look(event, arguments):
            global seen
            if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
                seen += 1
                if seen == step:
                    os._exit(9)
        store = ModelStore(folder)
        sys.addaudithook(look)
        store.remove("me", "one", tag)
        store.collect(young_s=-1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(step)
        break
"""


def keep(store: ModelStore, content: bytes) -> ModelFile:
    digest = blake3(content).hexdigest()
    saving = store.receive(digest)
    saving.write(content)
    assert saving.finish()
    saving.drop()
    return ModelFile(f"{digest[:8]}.txt", len(content), digest)


def filled(folder: Path) -> ModelStore:
    """Two repositories that share a blob, one with two tags that share another."""
    store = ModelStore(folder)
    every, both, first, second = (keep(store, name) for name in (b"every", b"both", b"first", b"second"))
    store.commit("me", "one", "a", [every, both, first])
    store.commit("me", "one", "b", [every, both, second])
    store.commit("me", "two", "a", [every])
    return store


def served(store: ModelStore) -> dict[str, list[bytes]]:
    """What each tag that is listed gives, whole."""
    found = {}
    for repo in store.repos():
        for tag in repo.tags:
            version = store.resolve(CozyRef(repo.owner, repo.repo, tag=tag.tag), ())
            found[f"{repo.repo}:{tag.tag}"] = [store.blob_path(file.blake3).read_bytes() for file in version.files]
    return found


@pytest.mark.parametrize("tag", ["a", ""])
def test_a_model_is_there_or_gone_wherever_its_removal_was_cut_off(tmp_path: Path, tag: str) -> None:
    whole = served(filled(tmp_path / "whole"))
    left = {name: files for name, files in whole.items() if name != "one:a" and (tag or name == "two:a")}
    command = [sys.executable, "-c", KILLED_AT_EACH_STEP, str(tmp_path / "whole"), tag]
    steps = int(subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout)
    assert steps >= 5
    outcomes = set()
    for step in range(1, steps + 1):
        folder = tmp_path / str(step)
        store = ModelStore(folder)
        assert served(store) in (whole, left), step
        store.finish_removals()
        store.collect(young_s=-1)
        after = served(store)
        assert after in (whole, left), step
        outcomes.add(len(after))
        contents = {path.read_bytes() for path in store.blobs.rglob("*") if path.is_file()}
        assert contents == {content for files in after.values() for content in files}, "nothing needed is lost, and nothing else stays"
        versions = list(folder.glob("repos/me/one/versions/*"))
        assert len(versions) == sum(name.startswith("one:") for name in after)
    assert outcomes == {len(whole), len(left)}


def test_versions_of_a_tag_that_cannot_be_read_stay(tmp_path: Path) -> None:
    store = filled(tmp_path)
    damaged = tmp_path / "repos" / "me" / "one" / "tags" / "b.json"
    right = damaged.read_bytes()
    damaged.write_bytes(right[:10])
    store.remove("me", "one", "a")
    damaged.write_bytes(right)
    store.collect(young_s=-1)
    assert [len(files) for files in served(store).values()] == [3, 1]


def test_what_was_removed_is_unknown_also_the_second_time(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.remove("me", "one", "a")
    store.remove("me", "one", "b")
    assert [repo.repo for repo in store.repos()] == ["two"], "a repository goes with its last tag"
    for repo, tag in (("one", "a"), ("one", ""), ("two", "b"), ("three", ""), ("two", "a.removed")):
        with pytest.raises(UnknownModelError):
            store.remove("me", repo, tag)


class Things:
    """What a platform has, as its callers see it."""

    def __init__(self, platform: PlatformProcess) -> None:
        self.platform = platform

    def check(self) -> dict[str, set[str]]:
        """Everything that is listed is whole."""
        http = self.platform.http
        releases = {each["release_id"] for each in http.get("/v1/releases", params={"endpoint": "cut"}).json()["data"]}
        for release in releases:
            source = Path(http.get(f"/v1/releases/{release}").json()["source"])
            assert sorted(path.name for path in source.rglob("*.py")), (release, "its code is there")
        models = set()
        for repo in http.get("/v1/repos").json()["data"]:
            whole = http.get(f"/v1/models/{repo['owner']}/{repo['repo']}")
            assert whole.status_code == 200, whole.text
            body = {"model_ref": f"cozy:{repo['owner']}/{repo['repo']}:v", "constraints": {"dtypes": []}, "include_urls": True}
            for file in http.post("/api/v1/public/models/request", json=body).json()["snapshot_manifest"]["files"]:
                assert blake3(http.get(file["url"]).content).hexdigest() == file["blake3"]
            models.add(repo["repo"])
        files = set()
        for file in http.get("/v1/files").json()["data"]:
            content = http.get(f"/v1/files/local/{file['ref']}")
            assert (content.status_code, hashlib.sha256(content.content).hexdigest()) == (200, file["sha256"]), file
            files.add(file["ref"])
        return {"releases": releases, "models": models, "files": files}


def push(http: httpx.Client, name: str, contents: list[bytes]) -> None:
    files: list[dict[str, Any]] = []
    for number, content in enumerate(contents):
        digest = blake3(content).hexdigest()
        assert http.put(f"/v1/blobs/blake3:{digest}", content=content).status_code == 204
        files.append({"path": f"{number}.txt", "size_bytes": len(content), "blake3": digest})
    assert http.put(f"/v1/models/local/{name}/tags/v", json={"files": files}).status_code == 200


def test_kills_at_random_moments_of_live_deletes(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    dice = random.Random(seed)
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data")
    things = Things(platform)
    try:
        made = [publish(platform, tmp_path, "cut", version) for version in range(4)]
        for number in range(8):
            push(platform.http, f"m{number}", [b"shared", b"own %d" % number, b"x" * 100_000 + b"%d" % number])
            assert platform.http.put(f"/v1/files/local/f{number}.bin", content=b"%d" % number * 50_000).status_code in (200, 201)
        prod = platform.http.get(TAG.format("cut")).json()["release_id"]
        goes = iter([release for release in made if release != prod])
        asked: dict[str, set[str]] = {"releases": set(), "models": set(), "files": set()}
        answered: dict[str, set[str]] = {"releases": set(), "models": set(), "files": set()}
        everything = things.check()
        for turn in range(3):
            release, models, files = next(goes), [f"m{turn * 2}", f"m{turn * 2 + 1}"], [f"f{turn * 2}.bin", f"f{turn * 2 + 1}.bin"]
            orders = [("releases", release, f"/v1/releases/{release}")]
            orders += [("models", name, f"/v1/models/local/{name}{dice.choice(('', '/tags/v'))}") for name in models]
            orders += [("files", ref, f"/v1/files/local/{ref}") for ref in files]
            dice.shuffle(orders)
            url = platform.url

            def delete(kind: str, name: str, path: str, url: str = url) -> None:
                try:
                    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
                        if http.delete(path).status_code == 200:
                            answered[kind].add(name)
                except httpx.HTTPError:
                    pass  # the kill was faster

            threads = [threading.Thread(target=delete, args=order) for order in orders]
            for kind, name, _ in orders:
                asked[kind].add(name)
            for thread in threads:
                thread.start()
            time.sleep(dice.uniform(0, 0.08))  # waits: the moment of the kill is what is tried
            platform.kill()
            for thread in threads:
                thread.join()
            platform.start()
            now = things.check()
            for kind, there in now.items():
                assert not there & answered[kind], (kind, "what was answered is gone")
                assert everything[kind] - asked[kind] <= there, (kind, "what nobody asked to delete is there")
        # Nothing of what is gone stays on the disk.
        trash = platform.data / "trash"
        platform.until(lambda: not trash.exists() or not list(trash.iterdir()))
        listed = things.check()["releases"]
        sources = {Path(platform.http.get(f"/v1/releases/{release}").json()["source"]).parent for release in listed}
        platform.until(lambda: {path for path in (platform.data / "releases").iterdir() if path.name.startswith("cut")} <= sources)
        assert platform.http.post("/v1/local/cut/greet", json={"payload": {}}).json()["status"] == "succeeded"
        assert json.loads(platform.http.post("/v1/repos/gc").text)["blobs"] >= 0
        assert not list((platform.data / "models").glob("repos/*/*/tags/*.removed"))
        assert not (platform.data / "models" / "trash").exists()
    finally:
        platform.close()
