"""Files that callers upload: stored, used as inputs, listed, signed, and deleted."""

import hashlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from platform_process import COZYCTL, PlatformProcess, write_project
from upload_conditions import check_conditions

LIMITS = {"GEN_ORCHESTRATOR_UPLOAD_BYTES": "3000000", "GEN_ORCHESTRATOR_OWNER_BYTES": "5000000", "GEN_ORCHESTRATOR_RUN_BYTES": "2000",
          "GEN_ORCHESTRATOR_RUN_EVENT_BYTES": "20000"}  # fmt: skip


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("uploads")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data", env=LIMITS)
    yield started
    started.close()


def blobs(platform: PlatformProcess) -> list[Path]:
    """Of uploads, those included that came in half."""
    return [path for path in (platform.data / "blobs" / "uploads").rglob("*") if path.is_file()]


def test_an_upload_is_an_input_by_its_ref(limited: PlatformProcess) -> None:
    kept = limited.http.put("/v1/files/local/uploads/a b.txt", content=b"hello").json()
    assert (kept["ref"], kept["size_bytes"], kept["sha256"]) == ("uploads/a b.txt", 5, hashlib.sha256(b"hello").hexdigest())
    assert (kept["mime_type"], kept["url"]) == ("text/plain", "/v1/files/local/uploads/a%20b.txt")
    answer = limited.invoke("read", {"image": {"ref": "uploads/a b.txt"}})
    assert answer.json()["output"]["texts"] == ["hello"], answer.text
    got = limited.http.get(kept["url"])
    assert (got.content, got.headers["x-cozy-sha256"], got.headers["content-type"].split(";")[0]) == (
        b"hello",
        kept["sha256"],
        "text/plain",
    )
    part = limited.http.get(kept["url"], headers={"range": "bytes=1-2"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"el", "bytes 1-2/5")
    assert limited.http.get(kept["url"], headers={"range": "bytes=9-"}).status_code == 416
    assert limited.http.get(kept["url"], headers={"range": "bytes=--1"}).status_code == 200
    assert limited.http.get(kept["url"], headers={"range": "bytes=0-0,9-"}).content == b"h"
    head = limited.http.head(kept["url"])
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "5", b"")
    assert limited.http.delete(kept["url"]).json()["ref"] == "uploads/a b.txt"
    assert [limited.http.get(kept["url"]).status_code, limited.http.delete(kept["url"]).status_code] == [404, 404]
    assert limited.invoke("read", {"image": {"ref": "uploads/a b.txt"}}).status_code == 400


def test_create_refuses_and_put_replaces(limited: PlatformProcess) -> None:
    url = "/v1/files/local/uploads/twice"
    assert limited.http.post(url, content=b"one").status_code == 201
    assert limited.http.post(url, content=b"two").status_code == 409
    assert limited.http.get(url).content == b"one"
    assert limited.http.put(url, content=b"three", headers={"content-range": "bytes 0-4/9"}).status_code == 400, (
        "a part would be taken for all"
    )
    assert limited.http.put(url, content=b"three").status_code == 200
    assert limited.http.get(url).content == b"three"
    assert limited.http.delete(url).status_code == 200
    assert blobs(limited) == []


@pytest.mark.parametrize("ref", ["runs/x/outputs/y", "%2e%2e/x", "a%00b", "%FF", "a%C3b", "x" * 300])
def test_refs_that_are_none_are_refused(limited: PlatformProcess, ref: str) -> None:
    answer = limited.http.put(f"/v1/files/local/{ref}", content=b"x")
    assert answer.status_code == 400, answer.text
    assert blobs(limited) == []


def raw(platform: PlatformProcess, method: str, path: str, body: bytes = b"") -> int:
    """The status of a request whose path is sent as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(platform.url).port or 0, timeout=60)
    connection.request(method, path, body)
    status = connection.getresponse().status
    connection.close()
    return status


def test_no_upload_replaces_a_file_of_another_name(limited: PlatformProcess) -> None:
    folder = "/v1/files/local"
    for name in ("n.txt", "q/w"):
        assert limited.http.put(f"{folder}/{name}", content=b"mine").status_code == 200
    refs = (
        "n.txt%20",
        "%20n.txt",
        "n.txt%09",
        "%E3%80%80n.txt",
        "q%5cw",
        "q//w",
        "q/%2e/w",
        "./n.txt",
        "n.txt/",
        "n.txt/.",
        "/n.txt",
        "%2Fn.txt",
    )
    for ref in refs:
        for method in ("PUT", "POST", "DELETE"):
            assert raw(limited, method, f"{folder}/{ref}", b"other") == 400, (method, ref)
        assert raw(limited, "GET", f"{folder}/{ref}?sign=1h&method=PUT") == 400, ref
    why = limited.http.put(f"{folder}/n.txt%20", content=b"other").json()["detail"]
    assert why.startswith("'n.txt ' would replace 'n.txt': expected a ref without white space at its ends"), why
    for name in ("n.txt", "q/w"):
        assert limited.http.get(f"{folder}/{name}").content == b"mine"
        assert limited.http.delete(f"{folder}/{name}").status_code == 200
    assert blobs(limited) == []


def test_a_file_is_changed_under_conditions(limited: PlatformProcess) -> None:
    check_conditions(limited)
    assert blobs(limited) == []


def test_lists_go_by_prefix_and_page(limited: PlatformProcess) -> None:
    for name in ("b/2", "b/1", "a/1", "c"):
        limited.http.put(f"/v1/files/local/{name}", content=b"x")
    first = limited.http.get("/v1/files", params={"limit": 3}).json()
    rest = limited.http.get("/v1/files", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [each["ref"] for each in first["data"] + rest["data"]] == ["a/1", "b/1", "b/2", "c"]
    assert rest["next_cursor"] is None
    assert [each["ref"] for each in limited.http.get("/v1/files", params={"prefix": "b/"}).json()["data"]] == ["b/1", "b/2"]
    assert limited.http.get("/v1/files", params={"owner": "bob"}).json()["data"] == []
    assert limited.http.get("/v1/files", params={"limit": 0}).status_code == 400
    limited.kill()
    limited.start()
    assert len(limited.http.get("/v1/files").json()["data"]) == 4, "kept over a restart"
    for name in ("b/2", "b/1", "a/1", "c"):
        assert limited.http.delete(f"/v1/files/local/{name}").status_code == 200


def pieces(size_bytes: int) -> Iterator[bytes]:
    for _ in range(size_bytes // 100_000):
        yield bytes(100_000)


def test_what_is_too_large_is_refused_declared_or_not(limited: PlatformProcess) -> None:
    url = "/v1/files/local/uploads/large"
    for content in (bytes(3_000_001), pieces(3_100_000)):
        answer = limited.http.put(url, content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large"), answer.text
    assert limited.http.put("/v1/files/local/uploads/first", content=bytes(3_000_000)).status_code == 200
    for content in (bytes(2_000_001), pieces(2_100_000)):
        answer = limited.http.put(url, content=content)
        assert (answer.status_code, answer.json()["code"]) == (507, "quota"), answer.text
        assert "5000000" in answer.json()["detail"]
    assert limited.http.put("/v1/files/local/uploads/first", content=bytes(2_999_999)).status_code == 200, "replaced, both have no room"
    assert limited.http.put(url, content=bytes(2_000_001)).status_code == 200, "what was refused is not counted"
    assert limited.http.get(url).status_code == 200
    for name in ("large", "first"):
        assert limited.http.delete(f"/v1/files/local/uploads/{name}").status_code == 200
    assert blobs(limited) == []


def test_an_attempt_saves_within_its_budget(limited: PlatformProcess) -> None:
    assert limited.invoke("save", {"text": "x" * 2000}).status_code == 200
    refused = limited.invoke("save", {"text": "x" * 2001})
    assert refused.status_code == 500, refused.text
    assert not list((limited.data / "files").rglob(".saving-*"))


def test_a_stream_ends_when_more_was_sent_than_is_kept_of_a_run(limited: PlatformProcess) -> None:
    assert limited.invoke("echo").status_code == 200
    before = limited.worker_pids()
    ended = limited.run(limited.submit("count", {"times": 1_000_000}), 60)
    assert (ended["status"], ended["error"]["code"], ended["error"].get("retryable")) == ("failed", "resource", None), ended
    assert "20000 bytes" in ended["error"]["detail"]
    assert "GEN_ORCHESTRATOR_RUN_EVENT_BYTES" in ended["error"]["detail"]
    outputs = [data for _, name, data in limited.events(ended["id"]) if name == "output"]
    assert outputs == [{"number": number} for number in range(len(outputs))]
    assert 100 < len(outputs) < 250
    assert limited.run(limited.submit("count", {"times": 50}), 60)["status"] == "succeeded"
    reported = limited.run(limited.submit("progress", {"times": 1000}), 60)
    assert reported["status"] == "succeeded", "what is no output is dropped"
    assert limited.worker_pids() == before, "the worker is not at fault"


def test_signed_addresses_hold_for_one_object_and_method(tmp_path: Path) -> None:
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data", "--keys")
    try:
        operator = {"authorization": f"Bearer {(platform.data / 'operator.key').read_text().strip()}"}
        assert platform.http.put("/v1/files/local/x.txt", content=b"x").status_code == 401
        platform.http.put("/v1/files/local/x.txt", content=b"mine", headers=operator)
        run = platform.http.post("/v1/local/probe/save", json={"payload": {"text": "output"}}, headers=operator).json()
        made = platform.http.get("/v1/files/local/x.txt", params={"sign": "10m"}, headers=operator).json()
        (shown,) = run["files"]
        output = platform.http.get(shown["url"].partition("?")[0], params={"sign": "10m"}, headers=operator).json()
        check_signed_output(platform, run["id"], shown, operator)
        assert httpx.get(made["url"]).content == b"mine"
        assert httpx.head(made["url"]).status_code == 200
        assert httpx.get(output["url"]).content == b"output"
        assert httpx.put(made["url"], content=b"y").status_code == 403
        assert httpx.delete(made["url"]).status_code == 403
        assert httpx.get(made["url"].replace("x.txt", "y.txt")).status_code == 403
        assert httpx.get(made["url"] + "&sign=7d").status_code == 403
        assert httpx.get(made["url"].replace("until=", "until=9")).status_code == 403
        put = platform.http.get("/v1/files/local/new/y.txt", params={"sign": "10m", "method": "PUT"}, headers=operator).json()
        assert httpx.put(put["url"], content=b"sent").status_code == 200
        assert httpx.get(put["url"]).status_code == 403
        brief = platform.http.get("/v1/files/local/x.txt", params={"sign": "1s"}, headers=operator).json()
        platform.until(lambda: httpx.get(brief["url"]).status_code == 403)
        for wrong in ("0s", "8d", "soon"):
            assert platform.http.get("/v1/files/local/x.txt", params={"sign": wrong}, headers=operator).status_code == 400
        assert platform.http.get("/v1/files/local/none", params={"sign": "1h"}, headers=operator).status_code == 404
    finally:
        platform.close()


def check_signed_output(platform: PlatformProcess, run_id: str, shown: dict[str, str], operator: dict[str, str]) -> None:
    """A run's own addresses of its files need no key, hold for a day, and are of one file."""
    url = f"{platform.url}{shown['url']}"
    assert httpx.get(url).content == b"output"
    part = httpx.get(url, headers={"range": "bytes=1-2"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"ut", "bytes 1-2/6")
    left_s = datetime.fromisoformat(shown["expires_at"]).timestamp() - time.time()
    assert 23.9 * 3600 < left_s < 25.1 * 3600
    assert [httpx.put(url, content=b"x").status_code, httpx.delete(url).status_code] == [403, 403]
    assert httpx.get(url.replace("note", "mote")).status_code == 403
    assert httpx.get(url.partition("?")[0]).status_code == 401
    done = platform.http.get(f"/v1/runs/{run_id}/events", headers={**operator, "accept": "application/x-ndjson"}).text.splitlines()[-1]
    again = [json.loads(done)["data"], platform.http.get(f"/v1/runs/{run_id}", headers=operator).json()]
    again += platform.http.get("/v1/runs", headers=operator).json()["data"]
    for run in again:
        assert httpx.get(f"{platform.url}{run['files'][0]['url']}").content == b"output"
    exported = platform.http.get(f"/v1/runs/{run_id}/export", headers=operator).json()
    assert "?" not in exported["run"]["files"][0]["url"], "a file that is handed on grants nothing"


def test_the_verbs_do_what_they_say(limited: PlatformProcess, tmp_path: Path) -> None:
    env = {**os.environ, "COZY_URL": limited.url, "COZY_HOME": str(tmp_path / "home")}

    def verb(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run([str(COZYCTL), "files", *arguments], env=env, cwd=tmp_path, capture_output=True, timeout=60, check=False)

    (tmp_path / "x.png").write_bytes(b"picture")
    assert verb("put", "x.png").stdout == b"uploads/x.png\n"
    assert verb("put", "x.png", "--create").returncode == 1
    assert b"uploads/x.png" in verb("list").stdout
    assert verb("get", "uploads/x.png", "-o", "-").stdout == b"picture"
    assert verb("get", "uploads/x.png", "-o", "y.png").returncode == 0
    assert (tmp_path / "y.png").read_bytes() == b"picture"
    made = json.loads(verb("url", "uploads/x.png", "--life", "1h", "--json").stdout)
    assert httpx.get(made["url"]).content == b"picture"
    assert verb("rm", "uploads/x.png").returncode == 0
    assert verb("get", "uploads/x.png").returncode == 3
