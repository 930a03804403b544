"""The model store: a scheduler's file lists, hostile lists, several processes, verifying and collecting."""

import io
import json
import os
import random
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from tests.blob_server import BlobServer
from tests.fake_hub import FakeCozyHub, read_tree

from gen_worker.content.cas import tree_digest
from gen_worker.content.disk import free_bytes, mount_of
from gen_worker.content.housekeeping import StoreLimits, collect, make_room, repair, verify
from gen_worker.content.lease_file import LeaseFile
from gen_worker.content.listing import Listing, RemoteFile
from gen_worker.content.progress import Progress
from gen_worker.errors import FatalError, ResourceError, RetryableError
from gen_worker.log import Log
from gen_worker.net.part_file import part_path
from gen_worker.refs import ModelSpec
from gen_worker.settings import ModelSettings
from gen_worker.sources.build import Sources, build_sources
from gen_worker.sources.localize import LocalCopies
from gen_worker.sources.source import LocalModel, ModelWant, OverrideSource


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


@pytest.fixture
def env(server: BlobServer, tmp_path: Path) -> dict[str, str]:
    return {
        "TENSORHUB_CACHE_DIR": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": server.url,
        "WORKER_MIN_FREE_DISK_GB": "0.01",
        "HF_TOKEN": "",
    }


def sources(env: dict[str, str], **more: str) -> Sources:
    return build_sources(ModelSettings.from_env({**env, **more}), {})


def get(found: Sources, want: ModelWant) -> LocalModel:
    return found.source.present(want) or found.source.fetch(want, Progress(want.model_id), threading.Event())


LISTED = "cozy:demo/listed:latest"


def listed(server: BlobServer, files: dict[str, bytes], change: Callable[[list[RemoteFile]], None] = lambda files: None) -> ModelWant:
    hub = FakeCozyHub(server)
    hub.add(LISTED, files)
    entries = [RemoteFile(str(f["path"]), int(str(f["size_bytes"])), str(f["blake3"]), str(f["url"])) for f in hub.files_of(LISTED)]
    change(entries)
    digest = tree_digest(Listing("", tuple(entries))) if not entries or entries[0].size_bytes >= 0 else "ab" * 32
    return ModelWant("listed", ModelSpec("demo/listed"), Listing(digest, tuple(entries)))


class TestListed:
    """Files that a scheduler has listed: also where the list is hostile."""

    def test_layout(self, server: BlobServer, env: dict[str, str], tmp_path: Path) -> None:
        files = {"a/w": b"1" * 5000, "b": b"", "c": b"1" * 5000}
        local = get(sources(env), listed(server, files))
        assert read_tree(local.path) == files
        assert local.path.parent == tmp_path / "cache/cas/snapshots"
        blobs = [path for path in (tmp_path / "cache/cas/blobs").rglob("*") if path.is_file()]
        assert len(blobs) == 2
        assert (local.path / "a/w").stat().st_ino == (local.path / "c").stat().st_ino

    @pytest.mark.parametrize("far", [False, True], ids=["one disk", "another file system"])
    def test_files_of_a_hub_on_this_machine_are_linked_or_copied(
        self, server: BlobServer, env: dict[str, str], tmp_path: Path, far: bool
    ) -> None:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if far else tmp_path) as place:
            if far and Path(place).stat().st_dev == tmp_path.stat().st_dev:
                pytest.skip("one file system here")
            files = {"w": b"1" * 5_000_000, "empty": b"", "damaged": b"2" * 5000, "absent": b"3" * 5000}
            near = Path(place) / "near"
            for name in ("w", "empty", "damaged"):
                digest = blake3(files[name]).hexdigest()
                blob = near / digest[:2] / digest[2:4] / digest
                blob.parent.mkdir(parents=True)
                blob.write_bytes(files[name] if name != "damaged" else b"x" * 5000)
            said = io.StringIO()
            want, progress = listed(server, files), Progress("m")
            found = build_sources(ModelSettings.from_env({**env, "COZY_NEAR_BLOBS": str(near)}), {}, log=Log(said))
            local = found.source.fetch(want, progress, threading.Event())
            assert read_tree(local.path) == files
            assert local.fetched_bytes == 10_000, "what was damaged or absent there was fetched, the rest was not"
            assert ((local.path / "w").stat().st_dev == near.stat().st_dev) is not far
            assert progress.now().bytes_done == 5_010_000
            assert ("models.copied" in said.getvalue()) is far
            assert not far or "another file system" in said.getvalue()
            assert not list((tmp_path / "cache").rglob(".copy-*"))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("../../escape", "without '..'"),
            ("a/../../escape", "without '..'"),
            ("a//b", "expected a relative path"),
            ("a/./b", "expected a relative path"),
            ("bad\x00name", "expected a relative path"),
            ("x" * 300, "too long"),
            ("B", "differ only by case"),
            ("b/c", "is a file, and a folder in"),
        ],
    )
    def test_paths_that_lead_elsewhere_or_clash(
        self, server: BlobServer, env: dict[str, str], tmp_path: Path, name: str, message: str
    ) -> None:
        def change(files: list[RemoteFile]) -> None:
            files.append(RemoteFile(name, 1, "ab" * 32, server.url))

        with pytest.raises(FatalError, match=message):
            get(sources(env), listed(server, {"b": b"1"}, change))
        assert not (tmp_path / "escape").exists()
        assert server.requests == []

    def test_windows_paths_become_ours(self, server: BlobServer, env: dict[str, str]) -> None:
        assert set(read_tree(get(sources(env), listed(server, {"/a\\b": b"1"})).path)) == {"a/b"}

    def test_too_many_files(self, server: BlobServer, env: dict[str, str]) -> None:
        def change(files: list[RemoteFile]) -> None:
            files.extend(RemoteFile(f"f{n}", 0, "ab" * 32, server.url) for n in range(30_000))

        with pytest.raises(FatalError, match="at most 20000"):
            get(sources(env), listed(server, {"b": b"1"}, change))

    def test_wrong_digests_and_sizes(self, server: BlobServer, env: dict[str, str]) -> None:
        def other_digest(files: list[RemoteFile]) -> None:
            files[0] = RemoteFile("b", 3, "ab" * 32, files[0].url)

        def other_size(files: list[RemoteFile]) -> None:
            files[0] = RemoteFile("b", 4, files[0].digest, files[0].url)

        def no_digest(files: list[RemoteFile]) -> None:
            files[0] = RemoteFile("b", 3, "", files[0].url)

        def odd_digest(files: list[RemoteFile]) -> None:
            files[0] = RemoteFile("b", 3, "../../../x", files[0].url)

        cases = [
            (other_digest, "does not match its digest"),
            (other_size, "3 bytes at its source"),
            (no_digest, "no blake3"),
            (odd_digest, "digest"),
        ]
        for change, message in cases:
            with pytest.raises(FatalError, match=message):
                get(sources(env), listed(server, {"b": b"123"}, change))

    def test_a_snapshot_digest_that_is_no_digest(self, server: BlobServer, env: dict[str, str]) -> None:
        want = listed(server, {"b": b"1"})
        assert want.listing is not None
        broken = ModelWant(want.key, want.spec, Listing("../../x", want.listing.files))
        with pytest.raises(FatalError, match="digest"):
            get(sources(env), broken)

    def test_a_disk_that_is_too_small_refuses_before_the_first_byte(self, server: BlobServer, env: dict[str, str]) -> None:
        with pytest.raises(ResourceError, match=r"disk_full: .* needs 0\.00 GB more"):
            get(sources(env, WORKER_MIN_FREE_DISK_GB="1000000"), listed(server, {"b": b"1"}))
        assert server.requests == []

    def test_expired_without_a_scheduler_to_ask(self, server: BlobServer, env: dict[str, str]) -> None:
        want = listed(server, {"b": b"1"})
        server.token = "2"
        with pytest.raises(RetryableError, match="have expired"):
            get(sources(env), want)


PROCESS = """
    import json, os, sys, threading
    from gen_worker.content.listing import Listing, RemoteFile
    from gen_worker.content.progress import Progress
    from gen_worker.sources.build import build_sources
    from gen_worker.sources.source import ModelWant
    from gen_worker.refs import ModelSpec
    from gen_worker.settings import ModelSettings
    digest, files = json.loads(sys.stdin.read())
    source = build_sources(ModelSettings.from_env(os.environ), {}).source
    want = ModelWant("k", ModelSpec("demo/listed"), Listing(digest, tuple(RemoteFile(*f) for f in files)))
    print(source.fetch(want, Progress("m"), threading.Event()).path)
"""


def start(env: dict[str, str], want: ModelWant) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(PROCESS)]
    process = subprocess.Popen(command, env={**env, "PATH": ""}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stdin is not None
    assert want.listing is not None
    files = [[f.path, f.size_bytes, f.digest, f.url] for f in want.listing.files]
    process.stdin.write(json.dumps([want.listing.digest, files]))
    process.stdin.close()
    return process


def test_four_processes_and_many_threads_fetch_once(server: BlobServer, env: dict[str, str]) -> None:
    files = {f"f{n}": random.Random(n).randbytes(3 << 20) for n in range(4)}
    want = listed(server, files)
    processes = [start(env, want) for _ in range(4)]
    results: list[LocalModel] = []
    threads = [threading.Thread(target=lambda: results.append(get(sources(env), want))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(process.wait() == 0 for process in processes)
    assert len(results) == 8
    assert server.sent_bytes == 12 << 20
    assert read_tree(results[0].path) == files


def test_a_process_that_dies_is_taken_over_from(server: BlobServer, env: dict[str, str], tmp_path: Path) -> None:
    data = random.Random(5).randbytes(24 << 20)
    want = listed(server, {"f": data})
    for blob in server.blobs.values():
        blob.chunk_pause_s = 0.01
    first = start(env, want)
    while server.sent_bytes < 8 << 20:
        assert first.poll() is None
    second = start(env, want)
    first.kill()
    first.wait()
    for blob in server.blobs.values():
        blob.chunk_pause_s = 0.0
    assert second.wait() == 0
    assert server.sent_bytes < len(data) * 1.5
    assert not list((tmp_path / "cache/cas").rglob("*.part*"))
    assert not list((tmp_path / "cache/cas/locks").glob("*.lock"))


def test_models_on_a_network_disk_are_copied_once(tmp_path: Path) -> None:
    remote = tmp_path / "nfs/with space/model"
    (remote / "vae").mkdir(parents=True)
    (remote / "vae/w.safetensors").write_bytes(b"1" * 100)
    (remote / "config.json").write_bytes(b"{}")
    table = f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path}/nfs/with\\040space rw - nfs4 server:/export rw\n"
    want = ModelWant("m", ModelSpec("demo/m"))
    source = OverrideSource({"m": remote})
    copies = LocalCopies(source, str(tmp_path / "local"), 250, lambda path: mount_of(path, table))
    assert copies.present(want) is None
    copy = copies.fetch(want, Progress("m"), threading.Event())
    assert copy.localized
    assert copy.path.parent == tmp_path / "local"
    assert read_tree(copy.path) == read_tree(remote)
    found = copies.present(want)
    assert found is not None
    assert found.path == copy.path
    # Another one: the first has to go.
    other = LocalCopies(OverrideSource({"m": remote / "vae"}), str(tmp_path / "local"), 150, lambda path: mount_of(path, table))
    other.fetch(want, Progress("m"), threading.Event())
    assert len(list((tmp_path / "local").iterdir())) == 1
    with pytest.raises(ResourceError, match="WORKER_LOCAL_CACHE_GB"):
        LocalCopies(source, str(tmp_path / "l2"), 50, lambda path: mount_of(path, table)).fetch(want, Progress("m"), threading.Event())
    mount = mount_of(remote, table)
    assert mount is not None
    assert (mount.fstype, mount.backend, mount.source) == ("nfs4", "nfs", "server:/export")
    assert "server" not in mount.volume_key
    assert LocalCopies(source, "", 50, lambda path: mount_of(path, table)).present(want) is not None


def test_housekeeping(server: BlobServer, env: dict[str, str], tmp_path: Path) -> None:
    found = sources(env)
    want = listed(server, {"a": b"1" * 4000, "b": b"2" * 4000})
    local = get(found, want)
    cas = found.cas
    ((ref, snapshot),) = cas.inventory()
    assert ref == LISTED
    assert list(verify(ref, snapshot.path, snapshot.listing.files)) == []
    (local.path / "a").chmod(0o644)
    (local.path / "a").write_bytes(b"3" * 4000)
    (damage,) = verify(ref, snapshot.path, snapshot.listing.files)
    assert (damage.path, damage.found != damage.expected) == ("a", True)
    repair(cas, snapshot, [damage])
    before = server.sent_bytes
    assert (get(found, want).path / "a").read_bytes() == b"1" * 4000
    assert server.sent_bytes == before + 4000
    # What dead downloads left goes after a day; a live one's stays.
    lost, live = cas.blob_path("cd" * 32), cas.blob_path("ef" * 32)
    for path in (lost, live):
        path.parent.mkdir(parents=True)
        path.with_name(path.name + ".part").write_bytes(b"half")
    lease = LeaseFile(cas.locks / f"{live.name}.lock")
    assert lease.try_acquire()
    assert collect(cas).files == 0
    assert collect(cas, now_s=time.time() + 2 * 86400).files == 1
    assert live.with_name(live.name + ".part").exists()
    lease.release()
    full = StoreLimits(max_bytes=8000, recent_s=0)
    assert make_room(cas, 0, full, keep=()) == []
    assert make_room(cas, 100, full, keep=(LISTED,)) == []
    assert make_room(cas, 100, StoreLimits(max_bytes=8000), keep=()) == [], "it was used just now"
    assert make_room(cas, 100, StoreLimits(max_bytes=9000, recent_s=0), keep=()) == [], "it fits"
    assert make_room(cas, 100, full, keep=()) == [LISTED]
    assert list(cas.inventory()) == []
    assert not [path for path in cas.blobs.rglob("*") if path.is_file() and not path.name.endswith(".part")]


def test_room_that_an_interrupted_download_holds_is_not_asked_for_again(server: BlobServer, env: dict[str, str]) -> None:
    want = listed(server, {"a": b"1" * (8 << 20)})
    floor_gb = free_bytes(Path.home()) / 1e9 + 100  # nothing at all may be added
    tight = sources(env, WORKER_MIN_FREE_DISK_GB=str(floor_gb))
    with pytest.raises(ResourceError, match="disk_full"):
        get(tight, want)
    assert want.listing is not None
    part = part_path(tight.cas.blob_path(want.listing.files[0].digest))
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        file.write(b"1" * (8 << 20))
        file.flush()
        os.fsync(file.fileno())  # until then a file system may not have given it its blocks
    assert tight.cas.missing_bytes(want.listing) == (8 << 20, 0)
    assert (get(tight, want).path / "a").stat().st_size == 8 << 20
    assert not part.exists()


def test_a_lock_that_always_succeeds_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.lockf", lambda *arguments: None)  # as on some network file systems
    first, second = LeaseFile(tmp_path / "x.lock"), LeaseFile(tmp_path / "x.lock")
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    dead = msgspec.json.decode((tmp_path / "x.lock").read_bytes())
    dead["pid"] = 2**22 + 1
    (tmp_path / "x.lock").write_bytes(msgspec.json.encode(dead))
    winners: list[LeaseFile] = []
    leases = [LeaseFile(tmp_path / "x.lock") for _ in range(8)]
    threads = [threading.Thread(target=lambda lease=lease: winners.append(lease) if lease.try_acquire() else None) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
