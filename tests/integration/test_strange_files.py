"""Foreign files in the store, beside downloads and among saved files."""

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from tests.blob_server import BlobServer
from tests.fake_hub import FakeCozyHub, read_tree

from gen_worker.content.cas import Cas, tree_digest
from gen_worker.content.housekeeping import StoreLimits, collect, make_room
from gen_worker.content.lease_file import LeaseFile
from gen_worker.content.listing import Listing, RemoteFile
from gen_worker.content.measured import Measured, Measurements
from gen_worker.content.progress import Progress
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.net.download import fetch
from gen_worker.net.range_client import Link, RangeClient
from gen_worker.net.wanted import Wanted
from gen_worker.refs import ModelSpec
from gen_worker.settings import ModelSettings
from gen_worker.sources.build import Sources, build_sources
from gen_worker.sources.source import LocalModel, ModelWant

REF = "cozy:demo/listed:latest"
JUNK = [
    b"",
    b"{",
    b"[]",
    b'{"ref":1}',
    b'{"ref":"\xff","digest":"x"}',
    b"[" * 100_000,
    b"\0" * 100,
    b'{"ref":"cozy:demo/listed:latest","digest":"junk"}',
    b'{"ref":"cozy:demo/listed:latest","digest":"../../../etc"}',
    b'{"ref":"cozy:demo/listed:latest","digest":"' + b"a" * 5000 + b'"}',
    b'{"digest":"blake3:'
    + b"ab" * 32
    + b'","files":[{"path":"../../../etc/passwd","size_bytes":5,"digest":"blake3:'
    + b"cd" * 32
    + b'"}]}',
    b'{"digest":"x","files":[{"path":"a","size_bytes":-5,"digest":"sha256:' + b"cd" * 32 + b'"}]}',
]


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


@pytest.fixture
def found(server: BlobServer, tmp_path: Path) -> Sources:
    env = {"TENSORHUB_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf"), "WORKER_MIN_FREE_DISK_GB": "0.01"}
    return build_sources(ModelSettings.from_env(env), {})


def listed(server: BlobServer, files: dict[str, bytes]) -> ModelWant:
    hub = FakeCozyHub(server)
    hub.add(REF, files)
    entries = [RemoteFile(str(f["path"]), int(str(f["size_bytes"])), str(f["blake3"]), str(f["url"])) for f in hub.files_of(REF)]
    return ModelWant("listed", ModelSpec("demo/listed"), Listing(tree_digest(Listing("", tuple(entries))), tuple(entries)))


def get(found: Sources, want: ModelWant) -> LocalModel:
    return found.source.present(want) or found.source.fetch(want, Progress(want.model_id), threading.Event())


def plant(path: Path, kind: str, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "symbolic":
            path.symlink_to(target)
        case "hard":
            os.link(target, path)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)


def spoil(cas: Cas) -> None:
    """Something strange in every place of a store."""
    for folder in (cas.refs, cas.manifests, cas.locks, cas.snapshots, cas.blobs / "ab/cd"):
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(JUNK):
            (folder / f"junk{number}.json").write_bytes(data)
            (folder / f"{number:064x}.json").write_bytes(data)
        for kind in ("symbolic", "pipe", "folder", "loop"):
            plant(folder / f"{kind}.json", kind, Path("/nowhere"))
            plant(folder / f"{kind}.lock", kind, Path("/nowhere"))
        (folder / "root.json").symlink_to("/")


def test_strange_files_in_the_store_cost_only_themselves(server: BlobServer, found: Sources, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"a/w": b"1" * 5000, "b": b"2"}
    want = listed(server, files)
    cas = found.cas
    spoil(cas)
    local = get(found, want)
    assert read_tree(local.path) == files
    for _ in range(3):
        assert [ref for ref, _ in cas.inventory()] == [REF]
        assert found.source.present(want) is not None
        assert cas.find_ref(REF) is not None
    named = [line for line in capsys.readouterr().err.splitlines() if "store.file_skipped" in line]
    assert len(named) == len(set(named)), "each is named once"
    assert any("junk7.json" in line for line in named)
    # Everything that looks through the store goes on, removes what it should, and follows no link.
    collect(cas, now_s=time.time() + 2 * 86400, grace_s=0)
    make_room(cas, 1 << 50, StoreLimits(recent_s=0), keep=(REF,))
    assert read_tree(get(found, want).path) == files
    cas.forget(REF)
    assert list(cas.inventory()) == []
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize("where", ["refs", "manifests"])
@pytest.mark.parametrize("junk", JUNK)
def test_a_spoiled_record_of_a_model_is_as_good_as_none(server: BlobServer, found: Sources, where: str, junk: bytes) -> None:
    want = listed(server, {"a": b"1" * 100})
    get(found, want)
    (record,) = (found.cas.root / where).glob("*.json")
    record.write_bytes(junk)
    assert list(found.cas.inventory()) == []
    assert found.cas.find_ref(REF) is None
    assert (get(found, want).path / "a").read_bytes() == b"1" * 100


def test_strange_lease_files_end_nothing(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    for kind in ("symbolic", "hard", "pipe", "folder", "loop"):
        path = tmp_path / f"{kind}.lock"
        plant(path, kind, tmp_path / "victim")
        plant(tmp_path / f"{kind}.lock.takeover", kind, tmp_path / "victim")
        lease = LeaseFile(path)
        assert lease.try_acquire() in (True, False)
        lease.touch()
        lease.release()
        assert LeaseFile(path).is_held() in (True, False)
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("data", [*JUNK, b'{"a":{"size_bytes":-1}}', b'{"a":{"load_s":-0.5}}', b'{"a":{"size_bytes":1e400}}'])
def test_measurements_that_cannot_be_used_are_forgotten(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "measured.json").write_bytes(data)
    known = Measurements(tmp_path / "measured.json")
    assert known.of("a") is None
    known.note("a", 5)
    known.note_rate("b", 7)
    again = Measurements(tmp_path / "measured.json")
    assert (again.of("a"), again.rate("b"), again.rate("a")) == (Measured(5), 7, 0)


@pytest.mark.parametrize("suffix", [".part", ".part.json"])
@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe", "loop"])
def test_what_lies_in_the_place_of_a_download_is_not_written_to(server: BlobServer, tmp_path: Path, suffix: str, kind: str) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    data = random.Random(3).randbytes(2 << 20)
    url = server.add("/blob", data)
    target = tmp_path / "store/blob"
    plant(target.with_name(target.name + suffix), kind, tmp_path / "victim")
    wanted = Wanted(target, len(data), f"blake3:{blake3(data).hexdigest()}", lambda expired: Link(url))
    client = RangeClient()

    class Meter:
        def add(self, size_bytes: int) -> None:
            return

    fetch([wanted], client, Meter(), threading.Event())
    client.close()
    assert target.read_bytes() == data
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert (tmp_path / "victim").stat().st_nlink == 1
    assert [path.name for path in target.parent.iterdir()] == ["blob"]


class TestSavedFiles:
    """Only what a save makes is served."""

    @pytest.fixture
    def outputs(self, tmp_path: Path) -> LocalOutputs:
        (tmp_path / "out").mkdir()
        outputs = LocalOutputs(tmp_path / "out")
        outputs.save_bytes("runs/1/x.txt", b"saved", create=True)
        return outputs

    def test_what_was_saved_is_found(self, outputs: LocalOutputs, tmp_path: Path) -> None:
        assert outputs.find("runs/1/x.txt") == tmp_path / "out/runs/1/x.txt"
        assert outputs.find("//runs/./1/x.txt") == tmp_path / "out/runs/1/x.txt"
        for ref in ("", "..", "runs", "runs/1", "runs/2/x.txt", "runs/1/x.txt/y", "../out/runs/1/x.txt", "a\0b", "x" * 5000):
            assert outputs.find(ref) is None

    @pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe", "loop", "folder"])
    @pytest.mark.parametrize("inside", [True, False])
    def test_what_was_planted_is_not(self, outputs: LocalOutputs, tmp_path: Path, kind: str, inside: bool) -> None:
        secret = tmp_path / ("out/runs/secret" if inside else "secret")
        secret.write_text("secret")
        plant(tmp_path / "out/runs/1/planted", kind, secret)
        assert outputs.find("runs/1/planted") is None
        if kind != "folder":
            outputs.save_bytes("runs/1/planted", b"new", create=False)
            assert (tmp_path / "out/runs/1/planted").read_bytes() == b"new"
            assert outputs.find("runs/1/planted") is not None
        assert secret.read_text() == "secret"

    def test_no_folder_on_the_way_is_a_link(self, outputs: LocalOutputs, tmp_path: Path) -> None:
        (tmp_path / "out/away").symlink_to(tmp_path)
        (tmp_path / "out/latest").symlink_to(tmp_path / "out/runs/1")
        for ref in ("away/secret", "latest/x.txt", "latest/new/x.txt"):
            assert outputs.find(ref) is None
            with pytest.raises(ValueError, match="path traversal"):
                outputs.save_bytes(ref, b"x", create=False)
        assert sorted(path.name for path in (tmp_path / "out/runs/1").iterdir()) == ["x.txt"]

    def test_the_folder_itself_may_be_a_link(self, outputs: LocalOutputs, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").symlink_to(tmp_path / "out")
        linked = LocalOutputs(tmp_path / "elsewhere")
        assert linked.find("runs/1/x.txt") is not None
        linked.save_bytes("runs/2/y.txt", b"y", create=True)
        assert outputs.find("runs/2/y.txt") is not None
