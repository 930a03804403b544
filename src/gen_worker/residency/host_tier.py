"""Weights in pinned host memory, one tier below the device: an evicted model comes back over the PCIe link without
touching the disk.

Weights never change. So they are copied here once, on their way to the device; evicting them from the device only frees
device memory. Every file is kept while there is room. After that, a file is kept when it is asked for a second time
within `WINDOW_S`, and the files whose loss costs least make room for it.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gen_worker.residency.eviction import EvictionPolicy
from gen_worker.residency.ledger import DoesNotFitError, Ledger, Part

WINDOW_S = 30 * 60.0
DISK_BYTES_S = 2e9  # bytes/s of the disk assumed for scores until it is measured
DEFAULT_SHARE = 4  # by default this tier takes one part in four of the memory that this process may use


class HostBuffer(Protocol):
    """Host memory that the device copies from at full speed."""

    view: memoryview


class HostTier:
    """Buffers by key, up to a capacity in bytes. Safe from any thread."""

    def __init__(
        self,
        capacity_bytes: int,
        allocate: Callable[[int], HostBuffer],
        policy: EvictionPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger = Ledger(lambda: capacity_bytes, policy, clock)
        self._allocate = allocate
        self._clock = clock
        self._lock = threading.Lock()
        self._buffers: dict[str, HostBuffer] = {}
        self._asked_s: dict[str, float] = {}

    def find(self, key: str) -> HostBuffer | None:
        """The buffer, pinned until `release`; None when it is not here."""
        with self._lock:
            pin = self.ledger.pin((key,))
            if pin is None:
                return None
            self.ledger.used((key,))
            return self._buffers[key]

    def admit(self, key: str, size_bytes: int, reload_s: float) -> HostBuffer | None:
        """A buffer to fill, pinned. Call `commit` or `abort`, then `release`. None when it is not worth its room or there is no room."""
        with self._lock:
            now_s = self._clock()
            seen_s = self._asked_s.get(key)
            self._asked_s[key] = now_s
            if len(self._asked_s) > 10_000:
                self._asked_s = {name: at for name, at in self._asked_s.items() if now_s - at < WINDOW_S}
            if self.ledger.size_of(key):
                return None  # another thread is filling it right now
            if not self.has_room(size_bytes) and (seen_s is None or now_s - seen_s > WINDOW_S):
                return None
            try:
                _, gone = self.ledger.reserve([Part(key, size_bytes, reload_s)])
            except DoesNotFitError:
                return None
            for name in gone:
                self._buffers.pop(name, None)
            try:
                buffer = self._buffers[key] = self._allocate(size_bytes)
            except (MemoryError, RuntimeError):  # the system refuses to pin more memory: treat this tier as full for now
                self.ledger.abort(key)
                self.ledger.unpin((key,))
                return None
            return buffer

    def has_room(self, size_bytes: int) -> bool:
        """Whether this many bytes fit without evicting anything."""
        return self.ledger.used_bytes + size_bytes <= self.ledger.capacity_bytes

    def commit(self, key: str) -> None:
        """The buffer holds all its bytes."""
        with self._lock:
            self.ledger.commit(key)
            self.ledger.used((key,))

    def abort(self, key: str) -> None:
        """The buffer was not filled; forget it."""
        with self._lock:
            self.ledger.abort(key)
            self._buffers.pop(key, None)

    def release(self, key: str) -> None:
        self.ledger.unpin((key,))

    def holds(self, key: str) -> bool:
        return self.ledger.are_resident((key,))


def file_key(path: Path) -> str:
    """The key of a weight file, made of device, inode, size and time: a new file under the same name gets another key.
    `OSError` when the file is gone.
    """
    stat = path.stat()
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"


def host_capacity_bytes(chosen_gb: float | None) -> int:
    """WORKER_HOST_CACHE_GB in bytes if it is set, else a quarter of the memory that this process may use."""
    return memory_bytes() // DEFAULT_SHARE if chosen_gb is None else round(chosen_gb * 1e9)


def memory_bytes() -> int:
    """This machine's memory in bytes, or the cgroup's limit if that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(total, int(Path(name).read_text()))
        except (OSError, ValueError):  # no such cgroup, or its limit is "max"
            continue
    return total
