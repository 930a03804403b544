"""Which devices this process keeps models on, and how much may be on each. Asked late: finding out may import torch."""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from gen_worker.residency.accounting import DEFAULT_SAFETY_MARGIN_GB, ModelCache
from gen_worker.residency.device import Device, PinnedBuffer, TorchDevice
from gen_worker.residency.eviction import EvictionPolicy, LeastLoss, LeastRecentlyUsed
from gen_worker.residency.host_tier import HostTier, host_capacity_bytes
from gen_worker.settings import SettingError, split_list

CONTEXT_BYTES = 500_000_000  # what CUDA itself takes in each process; the margin covers it


class DeviceSet:
    """The devices of a process, found when one is first needed; until then only the first is spoken of."""

    def __init__(self, find: Callable[[], Sequence[Device]]) -> None:
        self._find = find
        self._found: Sequence[Device] = ()
        self._used: set[int] = set()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many are known, at least 1. Asks nobody."""
        return max(1, len(self._found))

    def get(self, index: int = 0) -> Device:
        """A device; the first call may take seconds."""
        with self._lock:
            self._found = self._found or self._find()
            self._used.add(index)
            return self._found[index]

    def name(self, index: int) -> str:
        """The name of a device that is known."""
        return self._found[index].name

    def used(self, index: int) -> Device | None:
        """A device if somebody has got it already: asking another one for anything could take a while."""
        return self._found[index] if index in self._used else None


def find_devices(env: Mapping[str, str]) -> list[Device]:
    """The devices for models. GPUs of one process share the pinned host memory."""
    names = pick_devices(env)
    host_bytes = host_capacity_bytes(env) if any(name.startswith("cuda") for name in names) else 0
    host = HostTier(host_bytes, PinnedBuffer) if host_bytes else None
    return [TorchDevice(name, host) for name in names]


def named_devices(env: Mapping[str, str]) -> tuple[str, ...]:
    """The devices that the environment asks for (WORKER_TORCH_DEVICE, WORKER_DEVICE), separated by commas."""
    return tuple(split_list(env.get("WORKER_TORCH_DEVICE") or env.get("WORKER_DEVICE") or ""))


def named_device(env: Mapping[str, str]) -> str | None:
    """The first of those, for functions without models."""
    return next(iter(named_devices(env)), None)


def pick_devices(env: Mapping[str, str]) -> tuple[str, ...]:
    """Those named, else every GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses), else Apple's GPU, else the CPU."""
    named = named_devices(env)
    if named:
        return named
    try:
        import torch
    except ImportError:
        return ("cpu",)
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return tuple(f"cuda:{number}" for number in range(count)) if count > 1 else ("cuda",)
    return ("mps",) if torch.backends.mps.is_available() else ("cpu",)


def model_cache(env: Mapping[str, str], gpu_bytes: Sequence[int] = ()) -> ModelCache:
    """A cache with the books of each device: a GPU's memory where there is one, else this machine's, minus the safety margin.

    `gpu_bytes` is the memory of each GPU where the caller knows it; otherwise torch is asked, which takes seconds to import.
    WORKER_MAX_VRAM_GB is the limit of each device.
    """
    policy = eviction_policy(env)
    sizes = _chosen(named_devices(env), gpu_bytes)
    if env.get("WORKER_MAX_VRAM_GB"):
        limits = [float(env["WORKER_MAX_VRAM_GB"])] * max(1, len(sizes))
    elif sizes:
        limits = [max(0.0, size / 1e9 - margin_gb(env)) for size in sizes]
    elif has_nvidia():
        return ModelCache(policy=policy)
    else:
        total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        limits = [max(total_gb / 2, total_gb - margin_gb(env))]
    cache = ModelCache(limits[0], policy=policy)
    for limit in limits[1:]:
        cache.add_ledger(limit)
    return cache


def has_nvidia() -> bool:
    """Whether there is a GPU of NVIDIA's, without asking its libraries."""
    return Path("/dev/nvidiactl").exists()


def bound_of(device: Device | None, margin_bytes: int) -> int | None:
    """What may be on a device now: what other processes hold is not ours. None where the device does not say."""
    memory = device.memory() if device is not None else None
    if memory is None or memory.own_bytes is None:
        return None
    return memory.free_bytes + memory.own_bytes + CONTEXT_BYTES - margin_bytes


def current_gpu(name: str | None) -> AbstractContextManager[Any]:
    """While it lasts, "cuda" means this GPU in this thread; nothing for other devices, and for None."""
    torch = sys.modules.get("torch")
    if name is None or torch is None or not name.startswith("cuda:"):
        return nullcontext()
    scope: AbstractContextManager[Any] = torch.cuda.device(name)
    return scope


def eviction_policy(env: Mapping[str, str]) -> EvictionPolicy:
    """WORKER_EVICTION: `score` (request rate x reload seconds / bytes) or `lru`."""
    match env.get("WORKER_EVICTION") or "score":
        case "score":
            return LeastLoss()
        case "lru":
            return LeastRecentlyUsed()
        case other:
            raise SettingError(f"environment variable WORKER_EVICTION={other!r}: expected score or lru")


def margin_gb(env: Mapping[str, str]) -> float:
    """WORKER_VRAM_SAFETY_MARGIN_GB: kept free on each device for the functions' own work."""
    return float(env.get("WORKER_VRAM_SAFETY_MARGIN_GB") or DEFAULT_SAFETY_MARGIN_GB)


def _chosen(names: Sequence[str], gpu_bytes: Sequence[int]) -> list[int]:
    """The memory of the GPUs that are used, in order."""
    if not names:
        return list(gpu_bytes)
    numbers = [int(name.partition(":")[2] or 0) for name in names if name.startswith("cuda")]
    return [gpu_bytes[number] for number in numbers if number < len(gpu_bytes)]
