"""Writing weights to the disk and to host memory at once."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from tests.blob_server import BlobServer
from tests.fake_hub import FakeCozyHub
from tests.integration.test_device_bytes import safetensors
from tests.waiting import until

from gen_worker.content.progress import Progress
from gen_worker.errors import FatalError
from gen_worker.refs import ModelSpec
from gen_worker.residency.host_tier import HostTier, file_key
from gen_worker.residency.loaders.base import LoadControl
from gen_worker.residency.loaders.weights import find_weights, load_tensors
from gen_worker.residency.tee import Tee
from gen_worker.settings import ModelSettings
from gen_worker.sources.build import Sources, build_sources
from gen_worker.sources.source import ModelWant
from gen_worker.testing.fakes import FakeDevice

SIZE = 5 << 20
WANT = ModelWant("m", ModelSpec("demo/m"))


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


def build(server: BlobServer, tmp_path: Path, tee: Tee) -> Sources:
    env = {"TENSORHUB_CACHE_DIR": str(tmp_path / "cache"), "COZY_HUB_URL": server.url, "WORKER_MIN_FREE_DISK_GB": "0.01"}
    return build_sources(ModelSettings.from_env(env), {}, on_blob=tee.arrived)


def files(tmp_path: Path, names: str) -> dict[str, bytes]:
    found = {}
    for number, name in enumerate(names):
        safetensors(tmp_path / "made", SIZE, number)
        found[f"{name}/model.safetensors"] = (tmp_path / "made").read_bytes()
    return found | {"notes.txt": random.Random(9).randbytes(SIZE), "config.json": b"{}"}


def wait_for(tee: Tee) -> None:
    """Until it has taken what it was given."""
    tee._thread.submit(lambda: None).result()


def test_what_has_come_is_in_host_memory_before_the_rest_is_here(server: BlobServer, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    device = FakeDevice(64 << 20, host_bytes=3 * SIZE)
    host = device.host
    assert host is not None
    tee = Tee(lambda: host)
    sources = build(server, tmp_path, tee)
    content = files(tmp_path, "ab")
    FakeCozyHub(server).add("cozy:demo/m:latest", content)
    server.blobs[f"/blob/{blake3(content['b/model.safetensors']).hexdigest()}"].chunk_pause_s = 0.02
    done: list[Path] = []
    thread = threading.Thread(target=lambda: done.append(sources.source.fetch(WANT, Progress("m"), threading.Event()).path))
    thread.start()
    until(lambda: host.ledger.used_bytes or not thread.is_alive())
    assert not done  # the first is there while the second is still coming
    thread.join()
    wait_for(tee)
    for number, name in enumerate("ab"):
        found = find_weights(done[0] / name, ())
        assert host.holds(file_key(found[0].path))
        tensors = load_tensors(found, device, LoadControl(lambda size_bytes: None, threading.Event()))
        assert bytes(tensors["w"]) == safetensors(tmp_path / "again", SIZE, number)
    assert host.ledger.used_bytes == 2 * SIZE
    tee.close()


def test_what_is_wrong_goes_nowhere_and_nothing_is_displaced(server: BlobServer, tmp_path: Path) -> None:
    host = FakeDevice(1, host_bytes=SIZE + 1000).host
    assert host is not None
    tee = Tee(lambda: host)
    sources = build(server, tmp_path, tee)
    hub = FakeCozyHub(server)
    hub.add("cozy:demo/m:latest", files(tmp_path, "abc"))
    sources.source.fetch(WANT, Progress("m"), threading.Event())
    wait_for(tee)
    assert 0 < host.ledger.used_bytes <= SIZE + 1000  # one of three: the others found no room
    held = host.ledger.used_bytes
    hub.add("cozy:demo/lie:latest", {"w.safetensors": files(tmp_path, "d")["d/model.safetensors"] + b"x"})
    for blob in server.blobs.values():
        blob.data = blob.data[::-1]
    with pytest.raises(FatalError):
        sources.source.fetch(ModelWant("l", ModelSpec("demo/lie")), Progress("l"), threading.Event())
    wait_for(tee)
    assert host.ledger.used_bytes == held
    tee.close()
    tee.arrived(tmp_path / "made")  # too late: nothing happens


def test_files_that_vanish_or_are_no_weights_are_left_alone(tmp_path: Path) -> None:
    host: HostTier | None = FakeDevice(1, host_bytes=10 * SIZE).host
    tee = Tee(lambda: host)
    (tmp_path / "text").write_bytes(bytes(SIZE))
    tee.arrived(tmp_path / "text")
    tee.arrived(tmp_path / "missing")
    wait_for(tee)
    assert host is not None
    assert host.ledger.used_bytes == 0
    host = None
    safetensors(tmp_path / "made", SIZE, 1)
    tee.arrived(tmp_path / "made")
    wait_for(tee)
    tee.close()
