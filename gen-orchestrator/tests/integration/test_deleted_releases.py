"""Deleting unused releases: what prevents it, what is deleted, and what stays readable."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from greeting_releases import built, publish, verb
from platform_process import PlatformProcess, write_project

from gen_orchestrator.hub.release_disk import DiskUse, ReleaseDisk
from gen_orchestrator.store.base import Release
from gen_worker.images.engines import EngineError

SHARED, OWN = "a" * 16, "0" * 16
TAG = "/v1/endpoints/local/{}/functions/greet/tags/{}"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("deleted")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    yield started
    started.close()


def ask(platform: PlatformProcess, method: str, path: str, body: Any = None) -> Any:
    return platform.http.request(method, path, json=body)


def refusal(platform: PlatformProcess, release: str) -> str:
    answer = ask(platform, "DELETE", f"/v1/releases/{release}")
    assert (answer.status_code, answer.json()["code"]) == (409, "release_in_use"), answer.text
    return str(answer.json()["detail"])


def place_of(platform: PlatformProcess, release: str) -> Path:
    return Path(ask(platform, "GET", f"/v1/releases/{release}").json()["source"])


def test_a_release_goes_when_nothing_needs_it_and_what_it_did_stays_readable(platform: PlatformProcess, tmp_path: Path) -> None:
    old, new = (publish(platform, tmp_path, "gone", version) for version in (1, 2))
    run = ask(platform, "POST", "/v1/local/gone/greet", {"payload": {}}).json()
    assert run["output"]["text"] == "1: world"
    done = verb(platform, "releases", "rm", old)
    assert (done.returncode, "greet:prod points at it" in done.stderr) == (1, True), done.stderr
    assert verb(platform, "promote", new).returncode == 0
    source, build = place_of(platform, old), [b for b in ask(platform, "GET", "/v1/builds").json()["data"] if b["release_id"] == old]
    assert source.is_dir()

    asked = {"json": {"payload": {"name": "wait"}}, "headers": {"prefer": "respond-async"}}
    waiting = platform.http.post(f"/v1/local/gone/greet@{old}", **asked)
    assert waiting.status_code == 202, waiting.text
    assert refusal(platform, old) == f"release {old} is in use: 1 of its runs is still open"
    ask(platform, "POST", f"/v1/runs/{waiting.json()['id']}/cancel")
    platform.until(lambda: ask(platform, "GET", f"/v1/runs/{waiting.json()['id']}").json()["status"] == "canceled")

    done = verb(platform, "releases", "rm", old, "--json")
    [removed] = json.loads(done.stdout)["data"]
    assert (removed["release_id"], removed["cleared"], removed["freed_bytes"] > 0) == (old, True, True), done.stderr
    assert not source.parent.exists()
    assert ask(platform, "GET", f"/v1/builds/{build[0]['build_id']}").status_code == 404, "with its log"
    assert list((platform.data / "trash").iterdir()) == []
    assert old not in [worker["release_id"] for worker in ask(platform, "GET", "/v1/workers").json()["data"]]

    for method, path, body in (
        ("POST", f"/v1/local/gone/greet@{old}", {"payload": {}}),
        ("PUT", TAG.format("gone", "prod"), {"release_id": old, "breaking": True, "now": True, "skip_gates": True}),
        ("PUT", TAG.format("gone", "prod"), {"release_id": old, "breaking": True, "now": True, "skip_gates": True, "canary": 5}),
        ("PUT", TAG.format("gone", "prod") + "/shadow", {"release_id": old, "percent": 50}),
        ("DELETE", f"/v1/releases/{old}", None),
    ):
        answer = ask(platform, method, path, body)
        assert (answer.status_code, "was deleted on" in answer.json()["detail"]) == (404, True), (path, answer.text)
    assert ask(platform, "POST", f"/v1/releases/{old}/worker-tokens").status_code == 404

    assert ask(platform, "GET", f"/v1/runs/{run['id']}").json()["output"] == run["output"]
    exported = ask(platform, "GET", f"/v1/runs/{run['id']}/export").json()["release"]
    assert (exported["release_id"], exported["deleted_at"] > 0, exported["function"]["name"]) == (old, True, "greet")
    history = ask(platform, "GET", TAG.format("gone", "prod")).json()["history"]
    assert [(each["release_id"], "deleted_at" in each) for each in history] == [(new, False), (old, True)]
    assert ask(platform, "GET", f"/v1/releases/{old}/diff/{new}").status_code == 200
    assert old not in [each["release_id"] for each in ask(platform, "GET", "/v1/releases").json()["data"]]
    assert old in verb(platform, "releases", "--deleted").stdout
    assert "deleted:   " in verb(platform, "releases", "show", old).stdout
    assert "(deleted)" in verb(platform, "tags", "local/gone", "--history").stdout
    assert ["release.deleted", f"gone {old}"] in [
        [row["action"], row["subject"]] for row in ask(platform, "GET", "/v1/audit").json()["data"]
    ]
    done = verb(platform, "rollback", "local/gone")
    assert (done.returncode, "no earlier release that still exists" in done.stderr) == (1, True), done.stderr

    assert publish(platform, tmp_path, "gone", 1) == old, "the same source is the same release"
    assert ask(platform, "POST", f"/v1/local/gone/greet@{old}", {"payload": {}}).json()["output"]["text"] == "1: world"
    assert verb(platform, "rollback", "local/gone").stdout == f"local/gone/greet:prod is {old}\n"


def test_canaries_and_shadows_keep_a_release(platform: PlatformProcess, tmp_path: Path) -> None:
    old, new = (publish(platform, tmp_path, "kept", version) for version in (1, 2))
    tag = TAG.format("kept", "prod")
    assert ask(platform, "PUT", tag, {"release_id": new, "canary": 10}).status_code == 200
    assert refusal(platform, new).endswith("it is the canary of greet:prod")
    assert ask(platform, "PUT", tag, {"release_id": new, "canary": 0}).status_code == 200
    assert ask(platform, "PUT", f"{tag}/shadow", {"release_id": new, "percent": 50}).status_code == 200
    assert "it gets shadow runs of greet:prod" in refusal(platform, new)
    assert ask(platform, "DELETE", f"{tag}/shadow").status_code == 200
    assert ask(platform, "DELETE", f"/v1/releases/{new}").json()["cleared"] is True
    assert ask(platform, "POST", "/v1/local/kept/greet", {"payload": {}}).json()["output"]["text"] == "1: world", old


def test_old_releases_are_pruned(platform: PlatformProcess, tmp_path: Path) -> None:
    made = [publish(platform, tmp_path, "many", version) for version in range(4)]
    for release in (made[1], made[2]):
        assert verb(platform, "promote", release).returncode == 0
    done = verb(platform, "releases", "prune", "local/many", "--keep", "0", "--dry-run")
    assert done.stdout.split() == [made[0], made[3]], done.stderr + "neither what prod points at, nor what it did before"
    assert "releases take" in verb(platform, "ps").stdout
    disk = platform.status()["disk"]
    done = verb(platform, "releases", "prune", "local/many", "--keep", "1")
    assert (done.returncode, "1 deleted" in done.stderr) == (0, True), done.stderr
    there = [each["release_id"] for each in ask(platform, "GET", "/v1/releases?endpoint=many").json()["data"]]
    assert there == made[:0:-1]
    after = platform.status()["disk"]
    assert (after["releases"], after["sources_bytes"] < disk["sources_bytes"]) == (disk["releases"] - 1, True)
    assert "nothing to delete" in verb(platform, "releases", "prune", "--keep", "1", "local/many").stderr
    assert verb(platform, "releases", "prune").returncode == 2
    for body in ({}, {"keep": -1}, {"keep": 1.5}, {"keep": 1, "more": 2}):
        assert ask(platform, "POST", "/v1/releases/prune", body).status_code == 400, body


def test_a_kill_in_the_middle_leaves_a_release_whole_or_gone(tmp_path: Path) -> None:
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data", env={"GEN_ORCHESTRATOR_KEEP_RELEASES": "9"})
    try:
        old, _, gone, new = (publish(platform, tmp_path, "cut", version) for version in range(4))
        assert verb(platform, "promote", new).returncode == 0
        sources = [place_of(platform, release) for release in (old, gone)]
        platform.kill()
        with sqlite3.connect(platform.data / "store.sqlite") as store:  # marked, and no file was touched
            store.execute("update releases set deleted_at = 5 where release_id in (?, ?)", (old, gone))
        trash = platform.data / "trash"
        trash.mkdir(exist_ok=True)
        sources[1].parent.rename(trash / "cut-off")  # and one in the middle
        platform.start()
        platform.until(lambda: not sources[0].exists() and not list(trash.iterdir()))
        with sqlite3.connect(platform.data / "store.sqlite") as store:
            platform.until(lambda: store.execute("select count(*) from releases where cleared_at > 5").fetchone() == (2,))
        assert ask(platform, "POST", "/v1/local/cut/greet", {"payload": {}}).json()["output"]["text"] == "3: world"
        assert publish(platform, tmp_path, "cut", 0) == old
        assert ask(platform, "POST", f"/v1/local/cut/greet@{old}", {"payload": {}}).json()["output"]["text"] == "0: world"
    finally:
        platform.close()


def test_deletes_beside_promotes_publishes_and_runs_lose_nothing(platform: PlatformProcess, tmp_path: Path) -> None:
    made = [publish(platform, tmp_path, "race", version) for version in range(3)]
    over, wrong = threading.Event(), list[str]()
    began_s = time.monotonic()

    def until_over(act: Any) -> None:
        number = 0
        while not over.is_set():
            number += 1
            if told := act(number):
                wrong.append(told)
                over.set()

    def promote(number: int) -> str:
        answer = ask(platform, "PUT", TAG.format("race", "prod"), {"release_id": made[number % 3], "now": True})
        return "" if answer.status_code in (200, 404) else answer.text

    def delete(number: int) -> str:
        answer = ask(platform, "DELETE", f"/v1/releases/{made[number % 3]}")
        return "" if answer.status_code in (200, 404, 409) else answer.text

    def run(number: int) -> str:
        answer = ask(platform, "POST", "/v1/local/race/greet", {"payload": {}})
        return "" if answer.status_code == 200 and answer.json()["output"]["text"][1:] == ": world" else answer.text

    def again(number: int) -> str:
        build = built(platform, tmp_path, "race", number % 3)
        return "" if build["status"] == "succeeded" or "was deleted" in build["error"] else str(build)

    threads = [threading.Thread(target=until_over, args=(act,)) for act in (promote, delete, run, run, again)]
    for thread in threads:
        thread.start()
    over.wait(max(0.0, began_s + 3 - time.monotonic()))
    over.set()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    now = ask(platform, "GET", TAG.format("race", "prod")).json()["release_id"]
    assert place_of(platform, now).is_dir(), "what a tag points at is whole"


def a_release(name: str, source: Path) -> Release:
    return Release(release_id=name, owner="ann", endpoint="e", manifest=b"{}", source=str(source), created_at=1.0)


def test_an_environment_goes_with_the_last_release_that_has_it(tmp_path: Path) -> None:
    data, releases = tmp_path / "data", []
    for number in range(3):
        source = data / "releases" / f"published-{number}" / "source"
        source.mkdir(parents=True)
        (source / "main.py").write_bytes(b"x" * 10_000)
        environment = data / "environments" / (SHARED if number < 2 else OWN)
        environment.mkdir(parents=True, exist_ok=True)
        (environment / "lib.so").write_bytes(b"x" * 50_000)
        (source / ".venv").symlink_to(environment)
        releases.append(a_release(f"r{number}", source))
    outside = tmp_path / "outside" / "source"
    outside.mkdir(parents=True)

    def no_engine() -> Any:
        raise EngineError("none is here")

    disk = ReleaseDisk(data, no_engine)
    whole = disk.use(releases)
    assert whole == DiskUse(3 * 12288, 2 * 53248, 0)
    disk.take_away(releases[0])
    assert (data / "environments" / SHARED).is_dir(), "another release has it"
    disk.take_away(releases[1])
    disk.take_away(releases[1])
    disk.take_away(a_release("r9", outside))
    assert disk.throw_away() == 2 * 12288 + 53248
    assert [path.name for path in (data / "environments").iterdir()] == [OWN]
    assert outside.is_dir(), "a folder that is not the platform's own stays"
    assert disk.use(releases) == DiskUse(12288, 53248, 0)

    (data / "environments" / "wheel-1").mkdir()
    (data / "releases" / "published-2").rename(data / "trash" / "as-a-kill-leaves-it")
    disk.take_away(releases[2])
    assert [path.name for path in (data / "environments").iterdir()] == ["wheel-1"], "what no link names goes, too"
