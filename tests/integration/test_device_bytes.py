"""Moving bytes to a device: the right ones, from files and from host memory, into memory that may be fragmented."""

import json
import os
import random
import struct
import threading
from pathlib import Path

import pytest

from gen_worker.net.digests import digest_file
from gen_worker.residency.device import DeviceFullError
from gen_worker.residency.loaders.base import LoadControl
from gen_worker.residency.loaders.weights import find_weights, load_tensors
from gen_worker.residency.reader import read_into, whole_file
from gen_worker.testing.fakes import FakeDevice


@pytest.mark.parametrize("staged", [True, False])
def test_the_bytes_on_the_device_are_the_bytes_of_the_files(tmp_path: Path, staged: bool) -> None:
    data = random.Random(1).randbytes((37 << 20) + 11)
    (tmp_path / "all").write_bytes(data)
    (tmp_path / "a").write_bytes(b"head" + data[: 20 << 20])
    (tmp_path / "b").write_bytes(data[20 << 20 :])
    device = FakeDevice(64 << 20, staged=staged)
    slab = device.new_slab(len(data))
    sources = [whole_file(tmp_path / "a", 4, 4 + (20 << 20)), whole_file(tmp_path / "b", 0, len(data) - (20 << 20), 20 << 20)]
    seen: list[int] = []
    read_into(slab, sources, device.readers, seen.append, threading.Event())
    assert slab.digest() == digest_file(tmp_path / "all", "blake3:")
    assert sum(seen) == len(data)
    if staged:
        assert device.clock.now_s() == pytest.approx(len(data) / 25e9)
        device.broken_after_bytes = 0
        with pytest.raises(RuntimeError, match="copy"):
            read_into(slab, sources, device.readers, seen.append, threading.Event())


def safetensors(path: Path, size: int, seed: int) -> bytes:
    """A file of one tensor; its bytes."""
    data = random.Random(seed).randbytes(size)
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return data


def test_what_was_evicted_comes_back_from_host_memory(tmp_path: Path) -> None:
    """The second load reads no file; the third file displaces one only when it is asked for again."""
    pytest.importorskip("torch")
    size = 3 << 20
    device = FakeDevice(64 << 20, host_bytes=2 * size)
    host = device.host
    assert host is not None
    control = LoadControl(lambda size_bytes: None, threading.Event())
    content, files = {}, {}
    for number, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        content[name] = safetensors(tmp_path / name / "model.safetensors", size, number)
        files[name] = find_weights(tmp_path / name, ())

    def load(name: str) -> bytes:
        return bytes(load_tensors(files[name], device, control)["w"])

    for name in "ab":
        assert load(name) == content[name]
    assert host.ledger.used_bytes == 2 * size
    for name in "ab":  # other bytes, same size and time: only who reads the file would see them
        path = tmp_path / name / "model.safetensors"
        stat = path.stat()
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert load(name) == content[name]
    assert load("c") == content["c"]
    assert host.ledger.used_bytes == 2 * size, "asked for once: not worth a place"
    assert load("c") == content["c"]
    held = [name for name in "abc" if any(host.holds(key) for key in _keys(tmp_path / name))]
    assert len(held) == 2
    assert "c" in held
    # A load that breaks leaves nothing half full.
    (tmp_path / "d").mkdir()
    safetensors(tmp_path / "d" / "model.safetensors", size, 9)
    broken = find_weights(tmp_path / "d", ())
    device.broken_after_bytes = device.copied_bytes + 1000
    for _ in range(2):
        with pytest.raises(RuntimeError):
            load_tensors(broken, device, control)
    assert not any(host.holds(key) for key in _keys(tmp_path / "d"))
    assert host.ledger.used_bytes <= 2 * size


def _keys(folder: Path) -> list[str]:
    stat = (folder / "model.safetensors").stat()
    return [f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"]


def test_fragmentation_is_felt() -> None:
    device = FakeDevice(100)
    slabs = [device.new_slab(20) for _ in range(5)]
    del slabs[1], slabs[2]
    device.collect()
    assert device.memory().free_bytes == 40
    assert device.largest_free_bytes == 20
    with pytest.raises(DeviceFullError):
        device.new_slab(30)
    device.taken_bytes = 20
    assert device.memory().free_bytes == 20
