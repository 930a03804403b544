"""Where models live: how much fits, and how bytes get there. Asked late: finding out may import torch."""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from gen_worker.eviction import EvictionPolicy, LeastLoss, LeastRecentlyUsed
from gen_worker.model_cache import DEFAULT_SAFETY_MARGIN_GB, ModelCache
from gen_worker.models.host_tier import HostBuffer, HostTier, host_capacity_bytes
from gen_worker.settings import SettingError

STAGING_BYTES = 16 << 20


class DeviceMemory(msgspec.Struct, frozen=True):
    """Bytes of a device as its driver sees them, all processes together."""

    total_bytes: int
    free_bytes: int


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


class TorchDevice:
    """A device that torch computes on: `cpu`, `cuda`, `cuda:1`, `mps`."""

    def __init__(self, name: str, host_bytes: int = 0) -> None:
        self.name = name
        self.host = HostTier(host_bytes, _PinnedBuffer) if host_bytes and name.startswith("cuda") else None

    def memory(self) -> DeviceMemory:
        import torch

        if self.name.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(self.name)
            return DeviceMemory(total, free)
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


class _PinnedBuffer:
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


class LateDevice:
    """The device of this process, found out when it is first needed."""

    def __init__(self, env: Mapping[str, str], make: Callable[[str, int], Device] = TorchDevice) -> None:
        self._env = env
        self._make = make
        self._device: Device | None = None
        self._lock = threading.Lock()

    def get(self) -> Device:
        with self._lock:
            if self._device is None:
                self._device = self._make(pick_device(self._env), host_capacity_bytes(self._env))
            return self._device


def named_device(env: Mapping[str, str]) -> str | None:
    """The device that the environment asks for (WORKER_TORCH_DEVICE, WORKER_DEVICE)."""
    return env.get("WORKER_TORCH_DEVICE") or env.get("WORKER_DEVICE") or None


def pick_device(env: Mapping[str, str]) -> str:
    """The device for models: the one named, else CUDA, else Apple's GPU, else the CPU."""
    named = named_device(env)
    if named:
        return named
    try:
        import torch
    except ImportError:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def model_cache(env: Mapping[str, str], gpu_bytes: int = 0) -> ModelCache:
    """A cache as large as the device: the GPU's memory where there is one, else this machine's, minus the safety margin.

    `gpu_bytes` is the GPU's memory where the caller knows it; otherwise torch is asked, which takes seconds to import.
    """
    policy = eviction_policy(env)
    if gpu_bytes and not env.get("WORKER_MAX_VRAM_GB"):
        return ModelCache(max_vram_gb=max(0.0, gpu_bytes / 1e9 - _margin_gb(env)), policy=policy)
    if env.get("WORKER_MAX_VRAM_GB") or Path("/dev/nvidiactl").exists():
        return ModelCache(policy=policy)
    margin_gb = _margin_gb(env)
    total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return ModelCache(max_vram_gb=max(total_gb / 2, total_gb - margin_gb), policy=policy)


def eviction_policy(env: Mapping[str, str]) -> EvictionPolicy:
    """WORKER_EVICTION: `score` (request rate x reload seconds / bytes) or `lru`."""
    match env.get("WORKER_EVICTION") or "score":
        case "score":
            return LeastLoss()
        case "lru":
            return LeastRecentlyUsed()
        case other:
            raise SettingError(f"environment variable WORKER_EVICTION={other!r}: expected score or lru")


def _margin_gb(env: Mapping[str, str]) -> float:
    return float(env.get("WORKER_VRAM_SAFETY_MARGIN_GB") or DEFAULT_SAFETY_MARGIN_GB)
