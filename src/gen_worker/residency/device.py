"""What a device for models must be able to do, and the device that torch computes on: its memory and the copies to it."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import msgspec

from gen_worker.residency.cuda_copies import Event, Events, copies_to
from gen_worker.residency.cut import Cut
from gen_worker.residency.host_tier import HostBuffer, HostTier
from gen_worker.residency.layout import ALIGN
from gen_worker.residency.readers import Readers
from gen_worker.residency.staging import BUFFER_BYTES, StagingRing

UNDER_WAY = 8  # large copies in flight before the sender waits for the oldest


class DeviceMemory(msgspec.Struct, frozen=True):
    """Memory of a device in bytes, as its driver reports it for all processes. `own_bytes` is this process's share; None when unknown."""

    total_bytes: int
    free_bytes: int
    own_bytes: int | None = None


class DeviceFullError(Exception):
    """An allocation on the device failed."""

    def __init__(self, need_bytes: int) -> None:
        super().__init__(f"the device has no {need_bytes} contiguous bytes left")
        self.need_bytes = need_bytes


class Slab(Protocol):
    """One allocation that holds the weights of a component; the component's tensors are views of it."""

    size_bytes: int

    def host_view(self) -> memoryview | None:
        """The slab's bytes if the host can write them directly, else None."""
        ...

    def link(self) -> "Link":
        """A link that copies the bytes of one load into this slab."""
        ...

    def tensors(self, cut: Cut) -> list[Any]:
        """Torch tensors that view its bytes, one for each piece of the cut."""
        ...


class Link(Protocol):
    """Copies of one load, queued one after the other. Safe from any thread. Buffers must not change until `finish` returns."""

    def staged(self, size: int) -> AbstractContextManager["Staged"]:
        """Host memory of at most `size` bytes: as much as is free now. Fill it inside the `with` block; it is sent when
        the block ends.
        """
        ...

    def send_from(self, source: HostBuffer, start: int, at: int, size: int) -> None:
        """Copy `size` bytes of a host buffer, from byte `start`, to byte `at` of the slab."""
        ...

    def finish(self) -> None:
        """Return when everything has arrived."""
        ...


class Staged:
    """Host memory to fill, `view`. Call `to` to say which part of it is sent, and where."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.at = 0
        self.size = 0

    def to(self, at: int, size: int) -> memoryview:
        """Send the first `size` bytes to byte `at` of the slab."""
        self.at, self.size = at, size
        return self.view[:size]


class Device(Protocol):
    """A place to load models to. `host` is the memory tier below it; None when it has none."""

    name: str
    host: HostTier | None
    readers: Readers

    def memory(self) -> DeviceMemory: ...

    def new_slab(self, size_bytes: int) -> Slab:
        """Allocate memory; `DeviceFullError` when the device refuses."""
        ...

    def collect(self) -> None:
        """Return memory that is allocated but unused to the device."""
        ...

    def take_peak(self) -> int | None:
        """The most bytes this process had in use at once since the last call; None when unknown."""
        ...

    def prepare(self) -> bool:
        """Do once what the first load would otherwise wait for; takes about a second. False when there was nothing to do."""
        ...


class TorchDevice:
    """A device that torch computes on: `cpu`, `cuda`, `cuda:1`, `mps`."""

    def __init__(self, name: str, host: HostTier | None = None) -> None:
        self.name = name
        self.host = host if name.startswith("cuda") else None
        self.readers = Readers()
        self._events = Events()
        self._ring = StagingRing(self._staging_buffer, on_arrival=self._events.give_back)

    def memory(self) -> DeviceMemory:
        import torch

        if self.name.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(self.name)
            return DeviceMemory(total, free, torch.cuda.memory_reserved(self.name))
        page = os.sysconf("SC_PAGE_SIZE")
        return DeviceMemory(page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES"))

    def new_slab(self, size_bytes: int) -> Slab:
        import torch

        try:
            if self.name != "cpu":
                return _TorchSlab(torch.empty(size_bytes, dtype=torch.uint8, device=self.name), self._ring, self._events)
            data = torch.empty(size_bytes + ALIGN, dtype=torch.uint8)  # torch's own CPU allocations begin at multiples of 64
            begin = -data.data_ptr() % ALIGN
            return _TorchSlab(data[begin : begin + size_bytes], self._ring, self._events)
        except (torch.OutOfMemoryError, MemoryError) as exc:
            raise DeviceFullError(size_bytes) from exc
        except RuntimeError as exc:
            if "alloc" in str(exc).lower():  # the CPU allocator raises a plain RuntimeError, known only by its text
                raise DeviceFullError(size_bytes) from exc
            raise

    def collect(self) -> None:
        import gc

        gc.collect()
        if self.name == "cpu":
            return  # freed memory is returned without our help
        import torch

        if self.name.startswith("cuda"):
            torch.cuda.empty_cache()
        elif self.name == "mps":
            torch.mps.empty_cache()

    def take_peak(self) -> int | None:
        if not self.name.startswith("cuda"):
            return None
        import torch

        if not torch.cuda.is_initialized():
            return None  # computes with something other than torch
        peak = int(torch.cuda.max_memory_allocated(self.name))
        torch.cuda.reset_peak_memory_stats(self.name)
        return peak

    def prepare(self) -> bool:
        """Create CUDA's context, and the page-locked memory that the first load copies through."""
        if not self.name.startswith("cuda"):
            return False
        import torch

        torch.empty(1, dtype=torch.uint8, device=self.name)
        self._ring.prepare()
        return True

    def _staging_buffer(self) -> "PinnedBuffer":
        return PinnedBuffer(BUFFER_BYTES, pinned=self.name.startswith("cuda"))


class PinnedBuffer:
    """Page-locked host memory. Every GPU of this process copies from it at full speed."""

    def __init__(self, size_bytes: int, *, pinned: bool = True) -> None:
        import torch

        self.tensor = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=pinned)
        self.view = memoryview(self.tensor.numpy())
        self.address: int = self.tensor.data_ptr()


class _TorchSlab:
    def __init__(self, data: Any, ring: StagingRing, events: Events) -> None:
        self.data = data
        self.size_bytes = int(data.numel())
        self._ring = ring
        self._events = events

    def host_view(self) -> memoryview | None:
        return memoryview(self.data.numpy()) if self.data.device.type == "cpu" else None

    def link(self) -> Link:
        return _CudaLink(self.data, self._ring, self._events) if self.data.device.type == "cuda" else _PlainLink(self.data, self._ring)

    def tensors(self, cut: Cut) -> list[Any]:
        return cut.views(self.data)


class _CudaLink:
    """Copies on a CUDA stream of their own, so they run back to back beside whatever the device computes."""

    def __init__(self, target: Any, ring: StagingRing, events: Events) -> None:
        import torch

        self._ring = ring
        self._events = events
        self._target = target  # kept alive: the copies write to its memory
        self._stream = torch.cuda.Stream(target.device)
        # The slab's memory may have belonged to another tensor, and kernels that use that tensor may still be queued on
        # the default stream.
        self._stream.wait_stream(torch.cuda.default_stream(target.device))
        self._copies = copies_to(target, self._stream)
        self._sent: deque[Event] = deque()

    @contextmanager
    def staged(self, size: int) -> Iterator[Staged]:
        room = self._ring.take(size)
        try:
            staged = Staged(room.view)
            yield staged
            if not staged.size:
                self._ring.give_back(room)
                return
            event = self._copies.copy(room.buffer, room.begin, staged.at, staged.size, self._events.take())
        except BaseException:
            self._ring.give_back(room)
            raise
        self._ring.sent(room, event)

    def send_from(self, source: Any, start: int, at: int, size: int) -> None:
        self._sent.append(self._copies.copy(source, start, at, size, self._events.take()))
        if len(self._sent) > UNDER_WAY:  # a cancelled load then waits for a few copies, not for the whole model
            event = self._sent.popleft()
            event.synchronize()
            self._events.give_back(event)

    def finish(self) -> None:
        self._stream.synchronize()
        while self._sent:
            self._events.give_back(self._sent.popleft())


class _PlainLink:
    """Copies that are complete when the call returns."""

    def __init__(self, target: Any, ring: StagingRing) -> None:
        self._target = target
        self._ring = ring

    @contextmanager
    def staged(self, size: int) -> Iterator[Staged]:
        room = self._ring.take(size)
        try:
            staged = Staged(room.view)
            yield staged
            self._target[staged.at : staged.at + staged.size].copy_(room.buffer.tensor[room.begin : room.begin + staged.size])
        finally:
            self._ring.give_back(room)

    def send_from(self, source: Any, start: int, at: int, size: int) -> None:
        self._target[at : at + size].copy_(source.tensor[start : start + size])

    def finish(self) -> None:
        return
