"""Which devices this process keeps models on, and how much each may hold. Devices are looked up late, because that may import torch."""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.device import Device, PinnedBuffer, TorchDevice
from gen_worker.residency.eviction import EvictionPolicy, LeastLoss, LeastRecentlyUsed
from gen_worker.residency.host_tier import HostTier, host_capacity_bytes
from gen_worker.settings import DeviceSettings
from gen_worker.settings.reading import wrong

CONTEXT_BYTES = 500_000_000  # what CUDA itself takes in each process; the safety margin covers it


class DeviceSet:
    """The devices of a process, found when one is first needed. Until then only the first one is assumed."""

    def __init__(self, find: Callable[[], Sequence[Device]]) -> None:
        self._find = find
        self._found: Sequence[Device] = ()
        self._used: set[int] = set()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many devices are known so far, at least 1. Never looks for devices."""
        return max(1, len(self._found))

    def get(self, index: int = 0) -> Device:
        """A device. The first call looks for the devices and may take seconds."""
        with self._lock:
            self._found = self._found or self._find()
            self._used.add(index)
            return self._found[index]

    def name(self, index: int) -> str:
        """The name of a device that was already found."""
        return self._found[index].name

    def used(self, index: int) -> Device | None:
        """The device if it was already looked up, else None: a first look may take seconds."""
        return self._found[index] if index in self._used else None


def find_devices(settings: DeviceSettings) -> list[Device]:
    """The devices for models. The GPUs of one process share its pinned host memory."""
    names = pick_devices(settings)
    host_bytes = host_capacity_bytes(settings.worker_host_cache_gb) if any(name.startswith("cuda") for name in names) else 0
    host = HostTier(host_bytes, PinnedBuffer) if host_bytes else None
    return [TorchDevice(name, host) for name in names]


def check_devices(settings: DeviceSettings, gpu_count: int) -> None:
    """`SettingError` when a named device does not exist. `gpu_count` is what NVIDIA's driver shows.

    When the driver shows too few, torch is asked, which takes seconds. That happens only before an error, and with GPUs
    of another maker.
    """
    names = settings.device_names
    numbers = [int(name.partition(":")[2] or 0) for name in names if name.startswith("cuda")]
    why = ""
    if numbers and max(numbers) >= gpu_count:
        why = _missing_cuda(max(numbers))
    elif "mps" in names and sys.platform != "darwin":
        why = "this is not a Mac"
    if why:
        raise wrong(settings.device_variable, ",".join(names), f"an available device: {why}; remove the setting to use what is available")


def _missing_cuda(highest: int) -> str:
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA"
    count = torch.cuda.device_count()
    return f"PyTorch finds {count} of CUDA, cuda:0 to cuda:{count - 1}" if highest >= count else ""


def named_device(settings: DeviceSettings) -> str | None:
    """The first of the named devices, for functions without models; None when the settings name none."""
    return next(iter(settings.device_names), None)


def pick_devices(settings: DeviceSettings) -> tuple[str, ...]:
    """The named devices. Otherwise every GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses), else Apple's GPU, else the CPU."""
    if settings.device_names:
        return settings.device_names
    try:
        import torch
    except ImportError:
        return ("cpu",)
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return tuple(f"cuda:{number}" for number in range(count)) if count > 1 else ("cuda",)
    return ("mps",) if torch.backends.mps.is_available() else ("cpu",)


def model_cache(settings: DeviceSettings, gpu_bytes: Sequence[int] = ()) -> ModelCache:
    """A cache with one ledger a device. Its limit is the GPU's memory, or this machine's memory without a GPU, minus
    the safety margin.

    `gpu_bytes` is the memory of each GPU if the caller knows it. Otherwise torch is asked, and importing it takes
    seconds. WORKER_MAX_VRAM_GB sets the limit of each device.
    """
    policy = eviction_policy(settings)
    sizes = _chosen(settings.device_names, gpu_bytes)
    margin_gb = settings.worker_vram_safety_margin_gb
    if settings.worker_max_vram_gb is not None:
        limits = [settings.worker_max_vram_gb] * max(1, len(sizes))
    elif sizes:
        limits = [max(0.0, size / 1e9 - margin_gb) for size in sizes]
    elif has_nvidia():
        return ModelCache(None, margin_gb, policy=policy)
    else:
        total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        limits = [max(total_gb / 2, total_gb - margin_gb)]
    cache = ModelCache(limits[0], policy=policy)
    for limit in limits[1:]:
        cache.add_ledger(limit)
    return cache


def has_nvidia() -> bool:
    """Whether this machine has an NVIDIA GPU, found without loading NVIDIA's libraries."""
    return Path("/dev/nvidiactl").exists()


def bound_of(device: Device | None, margin_bytes: int) -> int | None:
    """How many bytes of the device this process may use now: memory held by other processes does not count. None when
    the device does not say.
    """
    memory = device.memory() if device is not None else None
    if memory is None or memory.own_bytes is None:
        return None
    return memory.free_bytes + memory.own_bytes + CONTEXT_BYTES - margin_bytes


_NO_GPU: AbstractContextManager[Any] = nullcontext()


def current_gpu(name: str | None) -> AbstractContextManager[Any]:
    """While the block lasts, "cuda" means this GPU in this thread. Does nothing for other devices and for None."""
    torch = sys.modules.get("torch")
    if name is None or torch is None or not name.startswith("cuda:"):
        return _NO_GPU
    scope: AbstractContextManager[Any] = torch.cuda.device(name)
    return scope


def eviction_policy(settings: DeviceSettings) -> EvictionPolicy:
    """WORKER_EVICTION: `score` (request rate x reload seconds / bytes) or `lru`."""
    return LeastRecentlyUsed() if settings.worker_eviction == "lru" else LeastLoss()


def _chosen(names: Sequence[str], gpu_bytes: Sequence[int]) -> list[int]:
    """The memory of the GPUs that are used, in bytes, in their order."""
    if not names:
        return list(gpu_bytes)
    numbers = [int(name.partition(":")[2] or 0) for name in names if name.startswith("cuda")]
    return [gpu_bytes[number] for number in numbers if number < len(gpu_bytes)]
