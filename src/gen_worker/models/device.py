"""Which device this process computes on, and how much fits there. Asked late: finding out may import torch."""

import os
from collections.abc import Mapping
from pathlib import Path

from gen_worker.model_cache import DEFAULT_SAFETY_MARGIN_GB, ModelCache


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
    if gpu_bytes and not env.get("WORKER_MAX_VRAM_GB"):
        return ModelCache(max_vram_gb=max(0.0, gpu_bytes / 1e9 - _margin_gb(env)))
    if env.get("WORKER_MAX_VRAM_GB") or Path("/dev/nvidiactl").exists():
        return ModelCache()
    margin_gb = _margin_gb(env)
    total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return ModelCache(max_vram_gb=max(total_gb / 2, total_gb - margin_gb))


def _margin_gb(env: Mapping[str, str]) -> float:
    return float(env.get("WORKER_VRAM_SAFETY_MARGIN_GB") or DEFAULT_SAFETY_MARGIN_GB)
