"""Stored files that change after they were verified: noticed at their first use in a process, and fetched again."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from tests.blob_server import BlobServer
from tests.fake_hub import FakeCozyHub, read_tree

from gen_worker.content.cas import tree_digest
from gen_worker.content.disk import mount_of
from gen_worker.content.housekeeping import collect
from gen_worker.content.listing import Listing, RemoteFile
from gen_worker.content.progress import Progress
from gen_worker.content.seals import Seals
from gen_worker.errors import FatalError
from gen_worker.log import Log
from gen_worker.refs import ModelSpec
from gen_worker.settings import ModelSettings
from gen_worker.sources.arrivals import Arrivals
from gen_worker.sources.build import Sources, build_sources
from gen_worker.sources.checked import CheckedSource
from gen_worker.sources.localize import LocalCopies
from gen_worker.sources.source import LocalModel, ModelWant

FILES = {"a/w.safetensors": b"1" * 50_000, "config.json": b"{}", "b": b"2" * 4000}
OTHER = {"a/w.safetensors": FILES["a/w.safetensors"], "config.json": b"[]"}


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


@pytest.fixture
def process(tmp_path: Path) -> Callable[[], Sources]:
    """A new life: nothing of what an earlier one knew but its files."""
    env = {"TENSORHUB_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf"), "WORKER_MIN_FREE_DISK_GB": "0.01"}
    return lambda: build_sources(ModelSettings.from_env(env), {})


def listed(server: BlobServer, files: dict[str, bytes], key: str = "listed") -> ModelWant:
    hub = FakeCozyHub(server)
    ref = f"cozy:demo/{key}:latest"
    hub.add(ref, files)
    entries = [RemoteFile(str(f["path"]), int(str(f["size_bytes"])), str(f["blake3"]), str(f["url"])) for f in hub.files_of(ref)]
    return ModelWant(key, ModelSpec(f"demo/{key}"), Listing(tree_digest(Listing("", tuple(entries))), tuple(entries)))


def get(found: Sources, want: ModelWant) -> LocalModel:
    return found.source.present(want) or found.source.fetch(want, Progress(want.model_id), threading.Event())


def flip(path: Path, *, as_before: bool = False) -> None:
    """One bit, in place; `as_before`: with its times put back."""
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    if as_before:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("as_before", [False, True])
def test_a_flipped_byte_is_not_served(
    server: BlobServer, process: Callable[[], Sources], capsys: pytest.CaptureFixture[str], as_before: bool
) -> None:
    want = listed(server, FILES)
    get(process(), want)
    sent = server.sent_bytes
    found = process()
    flip(found.cas.blob_path(blake3(FILES["a/w.safetensors"]).hexdigest()), as_before=as_before)
    assert found.source.present(want) is None
    assert "model.file_damaged" in capsys.readouterr().err
    assert read_tree(get(found, want).path) == FILES
    assert server.sent_bytes == sent + 50_000, "only the damaged file comes again"
    assert read_tree(get(process(), want).path) == FILES


def test_right_files_are_not_hashed_again(server: BlobServer, process: Callable[[], Sources], monkeypatch: pytest.MonkeyPatch) -> None:
    want, other = listed(server, FILES), listed(server, OTHER, "other")
    first = process()
    get(first, want)
    get(first, other)  # its links to what both have change how the blob looks
    hashed: list[Path] = []
    monkeypatch.setattr("gen_worker.content.seals.digest_file", lambda path, digest: hashed.append(path) or digest)
    for found in (first, process(), process()):
        for model in (want, other):
            local = found.source.present(model)
            assert local is not None
            assert found.checked.is_right(local)
    assert hashed == []
    process().cas.forget("cozy:demo/other:latest")
    collect(process().cas, grace_s=0)
    local = process().source.present(want)
    assert local is not None
    assert process().checked.is_right(local)
    assert hashed == []


def test_what_an_older_program_left_is_hashed_at_its_first_use_only(
    server: BlobServer, process: Callable[[], Sources], tmp_path: Path
) -> None:
    want = listed(server, FILES)
    get(process(), want)
    shutil.rmtree(tmp_path / "cache/seals")
    found = process()
    flip(found.cas.blob_path(blake3(FILES["a/w.safetensors"]).hexdigest()))
    local = found.source.present(want)
    assert local is not None, "listing models hashes nothing"
    assert [ref for ref, _ in found.cas.inventory()] == ["cozy:demo/listed:latest"]
    assert not found.checked.is_right(local)
    assert read_tree(get(found, want).path) == FILES
    assert list((tmp_path / "cache/seals").glob("*/*.json"))


async def test_a_model_is_looked_at_before_its_first_use(server: BlobServer, process: Callable[[], Sources], tmp_path: Path) -> None:
    want = listed(server, FILES)
    get(process(), want)
    shutil.rmtree(tmp_path / "cache/seals")
    found = process()
    flip(found.cas.blob_path(blake3(FILES["a/w.safetensors"]).hexdigest()))
    arrivals = Arrivals(found.source, 1, None, found.checked.is_right)
    try:
        assert read_tree((await arrivals.locate(want)).path) == FILES
    finally:
        arrivals.close()


def test_a_damaged_blob_without_its_model_comes_again(server: BlobServer, process: Callable[[], Sources]) -> None:
    want = listed(server, FILES)
    local = get(process(), want)
    shutil.rmtree(local.path)
    found = process()
    flip(found.cas.blob_path(blake3(FILES["a/w.safetensors"]).hexdigest()))
    assert read_tree(get(found, want).path) == FILES


def test_a_damaged_local_copy_is_made_anew(server: BlobServer, process: Callable[[], Sources], tmp_path: Path) -> None:
    found = process()
    table = f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path}/cache rw - nfs4 server:/export rw\n"
    copies = LocalCopies(found.listed, str(tmp_path / "local"), 10**9, lambda path: mount_of(path, table))
    source = CheckedSource(copies, Seals(None), Log(), found.cas.blob_path)
    want = listed(server, FILES)
    local = source.fetch(want, Progress("m"), threading.Event())
    assert local.localized
    flip(local.path / "a/w.safetensors")
    assert source.present(want) is None
    assert read_tree(source.fetch(want, Progress("m"), threading.Event()).path) == FILES


def test_a_source_that_brings_damaged_files_twice_is_told_of(tmp_path: Path) -> None:
    class Broken:
        def present(self, want: ModelWant) -> LocalModel | None:
            return None

        def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
            (tmp_path / "w").write_bytes(b"other")
            return LocalModel("m", tmp_path, "1", {"w": f"blake3:{blake3(b'right').hexdigest()}"})

    with pytest.raises(FatalError, match="files do not match their digests"):
        CheckedSource(Broken(), Seals(None), Log(), lambda digest: tmp_path / "none").fetch(
            ModelWant("m", ModelSpec("demo/m")), Progress("m"), threading.Event()
        )


def test_seals_that_cannot_be_kept_cost_no_more_than_a_hash(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "x"
    path.write_bytes(b"1" * 2000)
    digest = f"blake3:{blake3(path.read_bytes()).hexdigest()}"
    for folder in (tmp_path / "file", None):
        seals = Seals(folder)
        seals.seal(path, digest)
        assert not seals.is_damaged(path, digest, unsealed=False)
        assert not Seals(folder).is_damaged(path, digest, unsealed=True)
    flip(path)
    assert Seals(None).is_damaged(path, digest, unsealed=True)
    assert seals.is_damaged(path, digest, unsealed=False)
    assert seals.is_damaged(tmp_path / "gone", digest, unsealed=False)


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"path":5}', b"\xff"])
def test_a_spoiled_seal_is_as_good_as_none(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1" * 2000)
    digest = f"blake3:{blake3(path.read_bytes()).hexdigest()}"
    Seals(tmp_path / "seals").seal(path, digest)
    (seal,) = (tmp_path / "seals").glob("*/*.json")
    seal.write_bytes(junk)
    assert not Seals(tmp_path / "seals").is_damaged(path, digest, unsealed=True)
    seal.write_bytes(junk)
    Seals(tmp_path / "seals").collect()
    assert not seal.exists()


@pytest.mark.parametrize("mode", [0o777, 0o707])
def test_copies_are_not_put_where_a_stranger_can_change_them(
    server: BlobServer, process: Callable[[], Sources], tmp_path: Path, mode: int
) -> None:
    found = process()
    table = f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path}/cache rw - nfs4 server:/export rw\n"
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    want = listed(server, FILES)
    copies = LocalCopies(found.listed, str(tmp_path / "shared"), 10**9, lambda path: mount_of(path, table), in_shared_folder=True)
    assert not copies.fetch(want, Progress("m"), threading.Event()).localized
    assert list((tmp_path / "shared").iterdir()) == []
    (tmp_path / "shared").chmod(0o700)
    assert copies.fetch(want, Progress("m"), threading.Event()).localized
