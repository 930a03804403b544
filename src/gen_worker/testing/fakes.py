"""A device without a GPU: real bytes, a real allocator that can fragment, links timed by their own clock, faults on demand."""

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gen_worker.net.digests import new_hash
from gen_worker.residency.cut import Cut
from gen_worker.residency.device import DeviceFullError, DeviceMemory, Link, Staged
from gen_worker.residency.host_tier import HostBuffer, HostTier
from gen_worker.residency.readers import Readers


class VirtualClock:
    """Time that only passes when told to. Seconds, from 0."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._lock = threading.Lock()

    def now_s(self) -> float:
        return self._now_s

    def unix_s(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now_s += seconds


class FakeDevice:
    """First-fit memory in one address space. `staged` devices are filled through copies, like a GPU; others directly by
    the host.

    `fail_allocations` are numbers of allocations (from 1) that fail. `taken_bytes` is the memory held by another
    process. `link_bytes_s` is the copy rate in bytes/s on `clock`. `broken_after_bytes`: copies beyond this many bytes
    fail. Without `fragments` free memory is always in one piece, as with CUDA's expandable segments.
    """

    def __init__(
        self,
        capacity_bytes: int,
        *,
        staged: bool = True,
        link_bytes_s: float = 25e9,
        clock: VirtualClock | None = None,
        fail_allocations: Iterable[int] = (),
        name: str = "fake",
        host_bytes: int = 0,
        fragments: bool = True,
    ) -> None:
        self.name = name
        self.host = HostTier(host_bytes, FakeHostBuffer) if host_bytes else None
        self.capacity_bytes = capacity_bytes
        self.taken_bytes = 0
        self.clock = clock or VirtualClock()
        self.link_bytes_s = link_bytes_s
        self.broken_after_bytes: int | None = None
        self.copied_bytes = 0
        self.allocations = 0
        self.collections = 0
        self.preparations = 0
        self.readers = Readers()
        self._staged = staged
        self._fragments = fragments
        self._fail = set(fail_allocations)
        self._lock = threading.RLock()
        self._blocks: dict[int, int] = {}  # address to size
        self._peak_bytes = 0

    def memory(self) -> DeviceMemory:
        own = self.allocated_bytes
        return DeviceMemory(self.capacity_bytes, self.capacity_bytes - self.taken_bytes - own, own)

    @property
    def allocated_bytes(self) -> int:
        with self._lock:
            return sum(self._blocks.values())

    @property
    def largest_free_bytes(self) -> int:
        """The largest allocation that would succeed."""
        with self._lock:
            return max((size for _, size in self._holes()), default=0)

    def fail_next(self, count: int = 1) -> None:
        """The next allocations fail."""
        with self._lock:
            self._fail.update(range(self.allocations + 1, self.allocations + 1 + count))

    def new_slab(self, size_bytes: int) -> "FakeSlab":
        with self._lock:
            self.allocations += 1
            if self.allocations in self._fail:
                raise DeviceFullError(size_bytes)
            address = next((start for start, size in self._holes() if size >= size_bytes), None)
            if address is None:
                raise DeviceFullError(size_bytes)
            self._blocks[address] = size_bytes
            self._peak_bytes = max(self._peak_bytes, self.allocated_bytes)
        slab = FakeSlab(self, size_bytes)
        weakref.finalize(slab, self._free, address)
        return slab

    def collect(self) -> None:
        import gc

        self.collections += 1
        gc.collect()

    def take_peak(self) -> int | None:
        with self._lock:
            peak, self._peak_bytes = self._peak_bytes, self.allocated_bytes
        return peak

    def prepare(self) -> bool:
        self.preparations += 1
        return True

    def carry(self, size_bytes: int) -> None:
        """Account for a copy over the link."""
        with self._lock:
            self.copied_bytes += size_bytes
            if self.broken_after_bytes is not None and self.copied_bytes > self.broken_after_bytes:
                raise RuntimeError("the copy to the device failed")
        self.clock.advance(size_bytes / self.link_bytes_s)

    @property
    def is_staged(self) -> bool:
        return self._staged

    def _free(self, address: int) -> None:
        with self._lock:
            del self._blocks[address]

    def _holes(self) -> list[tuple[int, int]]:
        """Free memory: address and size of each piece."""
        if not self._fragments:
            return [(-self.allocations, self.memory().free_bytes)]
        holes, at = [], 0
        for start, size in sorted(self._blocks.items()):
            if start > at:
                holes.append((at, start - at))
            at = start + size
        end = self.capacity_bytes - self.taken_bytes
        if end > at:
            holes.append((at, end - at))
        return holes


class FakeSlab:
    """An allocation; its tensors are plain views of its bytes."""

    def __init__(self, device: FakeDevice, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.data = bytearray(size_bytes)
        self._device = device

    def host_view(self) -> memoryview | None:
        return None if self._device.is_staged else memoryview(self.data)

    def link(self) -> Link:
        return _FakeLink(self._device, self.data)

    def tensors(self, cut: Cut) -> list[Any]:
        return [memoryview(self.data)[piece.at : piece.at + piece.size_bytes] for piece in cut.pieces]

    def digest(self) -> str:
        """BLAKE3 of its bytes, for comparison with a file's."""
        hasher = new_hash("blake3:", self.size_bytes)
        hasher.update(self.data)
        return f"blake3:{hasher.hexdigest()}"


class FakeHostBuffer:
    """Host memory of a fake device."""

    def __init__(self, size_bytes: int) -> None:
        self.view = memoryview(bytearray(size_bytes))


class _FakeLink:
    """Copies arrive at once; their duration passes on the device's clock."""

    def __init__(self, device: FakeDevice, target: bytearray) -> None:
        self._device = device
        self._target = memoryview(target)

    @contextmanager
    def staged(self, size: int) -> Iterator[Staged]:
        staged = Staged(memoryview(bytearray(size)))
        yield staged
        if staged.size:
            self._device.carry(staged.size)
            self._target[staged.at : staged.at + staged.size] = staged.view[: staged.size]

    def send_from(self, source: HostBuffer, start: int, at: int, size: int) -> None:
        self._device.carry(size)
        self._target[at : at + size] = source.view[start : start + size]

    def finish(self) -> None:
        return
