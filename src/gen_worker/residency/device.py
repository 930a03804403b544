"""What a device for models is, and the one that torch computes on: its memory, and how bytes get there."""

import os
from typing import Any, Protocol

import msgspec

from gen_worker.residency.host_tier import HostBuffer, HostTier

STAGING_BYTES = 16 << 20


class DeviceMemory(msgspec.Struct, frozen=True):
    """Bytes of a device as its driver sees them, all processes together. `own_bytes` are this process's; None where that is not known."""

    total_bytes: int
    free_bytes: int
    own_bytes: int | None = None


class DeviceFullError(Exception):
    """An allocation on the device failed."""

    def __init__(self, need_bytes: int) -> None:
        super().__init__(f"the device has no {need_bytes} bytes left in one piece")
        self.need_bytes = need_bytes


class Slab(Protocol):
    """One allocation that holds the weights of a component; its tensors are views of it."""

    size_bytes: int

    def host_view(self) -> memoryview | None:
        """Its bytes where the host can write them directly, else None."""
        ...

    def copier(self) -> "Copier":
        """What one thread uses to bring bytes in."""
        ...

    def tensor(self, start: int, end: int, dtype: Any, shape: tuple[int, ...]) -> Any:
        """A torch view of bytes `[start, end)`."""
        ...


class Copier(Protocol):
    """Two staging buffers of a thread: fill one while the other is under way."""

    def buffer(self) -> memoryview: ...

    def copy(self, at: int, size: int) -> None:
        """Send the first `size` bytes of the last buffer to byte `at` of the slab."""
        ...

    def copy_from(self, source: HostBuffer, start: int, at: int, size: int) -> None:
        """Send bytes of a host buffer, which must stay as they are until `finish`."""
        ...

    def finish(self) -> None:
        """Return when everything has arrived."""
        ...


class Device(Protocol):
    """A place for models. `host` is the tier below it, where it has one."""

    name: str
    host: HostTier | None

    def memory(self) -> DeviceMemory: ...

    def new_slab(self, size_bytes: int) -> Slab:
        """`DeviceFullError` when it cannot be had."""
        ...

    def collect(self) -> None:
        """Give back what is allocated and not used."""
        ...

    def take_peak(self) -> int | None:
        """The most bytes that this process had in use at once since the last call; None where that is not known."""
        ...


class TorchDevice:
    """A device that torch computes on: `cpu`, `cuda`, `cuda:1`, `mps`."""

    def __init__(self, name: str, host: HostTier | None = None) -> None:
        self.name = name
        self.host = host if name.startswith("cuda") else None

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
            return _TorchSlab(torch.empty(size_bytes, dtype=torch.uint8, device=self.name))
        except (torch.OutOfMemoryError, MemoryError) as exc:
            raise DeviceFullError(size_bytes) from exc
        except RuntimeError as exc:
            if "alloc" in str(exc).lower():  # the CPU allocator's own error class
                raise DeviceFullError(size_bytes) from exc
            raise

    def collect(self) -> None:
        import gc

        gc.collect()
        if self.name == "cpu":
            return  # freed memory goes back by itself
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
            return None  # whatever computes here, it is not torch
        peak = int(torch.cuda.max_memory_allocated(self.name))
        torch.cuda.reset_peak_memory_stats(self.name)
        return peak


class PinnedBuffer:
    """Page-locked memory, which every GPU of this process copies from at full speed."""

    def __init__(self, size_bytes: int) -> None:
        import torch

        self.tensor = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)
        self.view = memoryview(self.tensor.numpy())


class _TorchSlab:
    def __init__(self, data: Any) -> None:
        self.data = data
        self.size_bytes = int(data.numel())

    def host_view(self) -> memoryview | None:
        return memoryview(self.data.numpy()) if self.data.device.type == "cpu" else None

    def copier(self) -> Copier:
        return _TorchCopier(self.data)

    def tensor(self, start: int, end: int, dtype: Any, shape: tuple[int, ...]) -> Any:
        return self.data[start:end].view(dtype).view(shape)


class _TorchCopier:
    """Pinned buffers and a stream of its own on CUDA; plain copies elsewhere."""

    def __init__(self, target: Any) -> None:
        import torch

        self._torch = torch
        self._target = target
        self._cuda = target.device.type == "cuda"
        self._buffers = [torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=self._cuda) for _ in range(2)]
        self._stream = torch.cuda.Stream(target.device) if self._cuda else None
        self._copied: list[Any] = [None, None]
        self._turn = 1

    def buffer(self) -> memoryview:
        self._turn ^= 1
        if self._copied[self._turn] is not None:
            self._copied[self._turn].synchronize()
        return memoryview(self._buffers[self._turn].numpy())

    def copy(self, at: int, size: int) -> None:
        source, target = self._buffers[self._turn][:size], self._target[at : at + size]
        if self._stream is None:
            target.copy_(source)
            return
        with self._torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            event = self._torch.cuda.Event()
            event.record(self._stream)
            self._copied[self._turn] = event

    def copy_from(self, source: Any, start: int, at: int, size: int) -> None:
        piece, target = source.tensor[start : start + size], self._target[at : at + size]
        if self._stream is None:
            target.copy_(piece)
            return
        with self._torch.cuda.stream(self._stream):
            target.copy_(piece, non_blocking=True)

    def finish(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()
