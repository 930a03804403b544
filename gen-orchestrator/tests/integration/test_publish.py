"""`cozyctl publish`: from a folder to a release that serves, on a platform that has never seen the folder."""

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hello_project import HELLO, write_hello
from model_project import safetensors, write_model
from platform_process import COZYCTL, PlatformProcess, write_project


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("publish")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    yield started
    started.close()


def verb(platform: PlatformProcess, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), *arguments], env=env, capture_output=True, text=True, timeout=100, check=False, cwd=cwd)


def greet(platform: PlatformProcess, endpoint: str, tag: str = "") -> Any:
    answer = platform.http.post(f"/v1/local/{endpoint}/greet{tag}", json={"payload": {"name": "you"}})
    return answer.json()["output"]["text"] if answer.status_code == 200 else answer.json()


def test_the_first_release_is_prod_and_later_ones_wait(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_hello(tmp_path / "first", "first")
    done = verb(platform, "publish", "-m", "the first", cwd=folder)
    assert done.returncode == 0, done.stderr
    release = done.stdout.strip()
    assert "cozyctl invoke local/first/greet" in done.stderr
    assert greet(platform, "first") == "hello you"
    write_hello(folder, "first", HELLO.replace("hello", "hi"))
    done = verb(platform, "publish", "--folder", str(folder), "--json")
    build = json.loads(done.stdout)
    assert (build["status"], build["release_id"] != release) == ("succeeded", True), done.stderr
    assert greet(platform, "first") == "hello you", "publishing moves nothing"
    assert verb(platform, "promote", build["release_id"]).returncode == 0
    assert greet(platform, "first") == "hi you"
    assert build["existed"] is False
    same = json.loads(verb(platform, "publish", "--folder", str(folder), "--json").stdout)
    assert (same["existed"], same["release_id"]) == (True, build["release_id"]), "the same again"
    again = verb(platform, "publish", "--folder", str(folder), "-m", "is it new?")
    assert f"release {build['release_id']} existed already: its files are the same" in again.stderr, again
    assert "the release has no message, and releases never change: 'is it new?' is kept with the build alone" in again.stderr
    assert len(platform.http.get("/v1/releases", params={"endpoint": "first"}).json()["data"]) == 2, "is the same release"
    assert "the first" in verb(platform, "releases", "local/first").stdout
    kept = [path for path in (platform.data / "releases").rglob("*") if path.name == ".env" and "first" in str(list(path.parent.iterdir()))]
    assert kept == [], "files of secrets stay with the author"


def test_secrets_that_are_not_set_are_named_with_the_command_that_sets_them(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_hello(tmp_path / "hidden", "hidden")
    with (folder / "cozy.toml").open("a") as file:
        file.write('\n[secrets]\nFIRST = "of one service"\nSECOND = "of another"\n')
    assert verb(platform, "publish", str(folder), "--json").returncode == 0
    assert platform.http.put("/v1/endpoints/local/hidden/secrets/FIRST", json={"value": "long enough"}).status_code == 200
    done = verb(platform, "publish", str(folder))
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: no worker of it starts before SECOND is set: cozyctl secrets set local/hidden SECOND"], done
    assert json.loads(verb(platform, "publish", str(folder), "--json").stdout)["unset_secrets"] == ["SECOND"]
    assert platform.http.put("/v1/endpoints/local/hidden/secrets/SECOND", json={"value": "long enough"}).status_code == 200
    assert "warning" not in verb(platform, "publish", str(folder)).stderr
    assert greet(platform, "hidden") == "hello you"


def test_models_that_are_not_there_are_named_with_the_command_that_stores_them(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_hello(tmp_path / "reader", "reader")
    with (folder / "cozy.toml").open("a") as file:
        file.write('\n[models]\ntoy = { ref = "cozy:me/toy", dtypes = ["fp16"] }\nother = "hf:demo/other"\n')
    done = verb(platform, "publish", str(folder))
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    missing = "the model cozy:me/toy:latest is not stored on this platform: cozyctl models push FOLDER me/toy:latest"
    assert warnings == [f"warning: {missing}"], done
    assert verb(platform, "models", "push", str(write_model(tmp_path / "toy", safetensors("BF16"))), "me/toy").returncode == 0
    problems = json.loads(verb(platform, "publish", str(folder), "--json").stdout)["model_problems"]
    assert problems == ["the model cozy:me/toy:latest exists as bf16, not as fp16"]
    assert verb(platform, "models", "push", str(write_model(tmp_path / "toy", safetensors())), "me/toy").returncode == 0
    assert "warning" not in verb(platform, "publish", str(folder)).stderr


def test_a_websocket_function_is_not_suggested_to_invoke(platform: PlatformProcess, tmp_path: Path) -> None:
    code = """
from gen_worker import RealtimeSocket, worker_websocket

@worker_websocket()
async def activity(ctx: ActionContext, socket: RealtimeSocket) -> None:
    await socket.send_json({})
"""
    done = verb(platform, "publish", str(write_hello(tmp_path / "live", "live", HELLO + code)))
    assert "it is activity:prod, greet:prod. Try it: cozyctl invoke local/live/greet\n" in done.stderr, done.stderr


def test_a_rollback_that_moves_nothing_is_an_error(platform: PlatformProcess, tmp_path: Path) -> None:
    assert verb(platform, "publish", str(write_hello(tmp_path / "alone", "alone"))).returncode == 0
    done = verb(platform, "rollback", "local/alone")
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "greet:prod has no earlier release that still exists: it stays at alone-" in done.stderr
    as_json = verb(platform, "rollback", "local/alone", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["code"], as_json.stderr) == (1, "conflict", "")


def test_broken_code_is_told_to_its_author_and_serves_nobody(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_hello(tmp_path / "broken", "broken", HELLO.replace("payload: Input", "payload: Inputt"))
    done = verb(platform, "publish", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert ("Inputt" in done.stderr, "error: error:" in done.stderr) == (True, False), done.stderr
    newest = platform.http.get("/v1/builds").json()["data"][0]
    assert newest["status"] == "failed"
    assert "Inputt" in newest["error"]
    assert "Inputt" in verb(platform, "builds", "logs", newest["build_id"]).stderr
    assert platform.http.get("/v1/releases", params={"endpoint": "broken"}).json()["data"] == []
    assert "failed" in verb(platform, "builds", "list").stdout
    left = sorted(path.name for path in (platform.data / "builds" / newest["build_id"]).iterdir())
    assert left == ["build.json", "log"]


def send(platform: PlatformProcess, data: bytes, kind: str = "application/gzip") -> httpx.Response:
    return platform.http.post("/v1/endpoints/publish", content=data, headers={"content-type": kind})


def test_what_is_no_project_is_refused(platform: PlatformProcess, tmp_path: Path) -> None:
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w:gz") as tar:
        link = tarfile.TarInfo("cozy.toml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for data, word in ((b"", "cut off"), (b"not gzip", "gzip"), (gzip.compress(b"x" * 600), "tar"), (evil.getvalue(), "symbolic link")):
        build = send(platform, data).json()
        ended = platform.http.get(f"/v1/builds/{build['build_id']}", params={"wait": 60}).json()
        assert (ended["status"], word in ended["error"]) == ("failed", True), ended
    assert send(platform, b"x", "text/plain").status_code == 415
    assert platform.http.get("/v1/builds/b-0000").status_code == 404
    empty = verb(platform, "publish", cwd=tmp_path)
    assert (empty.returncode, "cozy.toml" in empty.stderr) == (3, True)


def test_a_kill_in_the_middle_loses_no_build(tmp_path: Path) -> None:
    slow = "import time\ntime.sleep(3)\n" + HELLO
    started = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data")
    try:
        folder = write_hello(tmp_path / "slow", "slow", slow)
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as tar:
            tar.add(folder / "cozy.toml", "cozy.toml")
            tar.add(folder / "src", "src")
        answer = send(started, made.getvalue())
        assert answer.status_code == 202
        build_id = answer.json()["build_id"]
        started.until(lambda: started.http.get(f"/v1/builds/{build_id}").json()["status"] == "running")
        started.kill()
        started.start()
        ended = started.http.get(f"/v1/builds/{build_id}", params={"wait": 60}).json()
        assert ended["status"] == "succeeded", ended
        assert greet(started, "slow") == "hello you"
        started.kill()
        started.start()
        assert greet(started, "slow") == "hello you", "a published release is served by the next start, too"
    finally:
        started.close()


def test_a_build_is_canceled(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_hello(tmp_path / "stuck", "stuck", "import time\ntime.sleep(1000)\n" + HELLO)
    child = subprocess.Popen([str(COZYCTL), "publish"], cwd=folder, env={**os.environ, "COZY_URL": platform.url}, stderr=subprocess.PIPE)
    running = platform.until(lambda: next((b for b in platform.http.get("/v1/builds").json()["data"] if b["status"] == "running"), None))
    assert verb(platform, "builds", "cancel", running["build_id"]).stdout == "canceled\n"
    assert child.wait(60) == 1
    assert child.stderr is not None
    child.stderr.close()
    assert platform.http.get(f"/v1/builds/{running['build_id']}").json()["status"] == "canceled"


def worker_ids(platform: PlatformProcess, release_id: str) -> set[str]:
    return {each["worker_id"] for each in platform.http.get("/v1/workers").json()["data"] if each["release_id"] == release_id}


def test_a_promote_waits_for_a_worker_and_a_rollback_finds_the_old_one(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_hello(tmp_path / "swap", "swap")
    old = verb(platform, "publish", cwd=folder).stdout.strip()
    assert greet(platform, "swap") == "hello you"
    mine = worker_ids(platform, old)
    new = verb(platform, "publish", cwd=write_hello(folder, "swap", HELLO.replace("hello", "hi"))).stdout.strip()
    assert worker_ids(platform, new) == set(), "what nobody calls has no worker"
    assert verb(platform, "promote", new).returncode == 0
    assert worker_ids(platform, new) != set()
    assert verb(platform, "rollback", "local/swap").returncode == 0
    assert greet(platform, "swap") == "hello you"
    assert worker_ids(platform, old) == mine


def test_a_release_that_cannot_start_gets_no_tag(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_hello(tmp_path / "dies", "dies")
    old = verb(platform, "publish", cwd=folder).stdout.strip()
    dies = "import os, sys\nif os.environ.get('WORKER_JWT'):\n    sys.exit('no licence for this machine')\n" + HELLO
    new = verb(platform, "publish", cwd=write_hello(folder, "dies", dies)).stdout.strip()
    assert new not in ("", old)
    refused = verb(platform, "promote", new)
    assert refused.returncode == 1
    assert "no licence for this machine" in refused.stderr
    assert "--now" in refused.stderr
    assert greet(platform, "dies") == "hello you"
    assert verb(platform, "promote", new, "--now").returncode == 0
    assert platform.http.get("/v1/tags", params={"endpoint": "dies"}).json()["data"][0]["release_id"] == new
    assert verb(platform, "rollback", "local/dies").returncode == 0
    assert greet(platform, "dies") == "hello you"
