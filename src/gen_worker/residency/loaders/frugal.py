"""Ways to run a diffusers pipeline in less device memory, applied one after the other as runs need them.

They cost time but not quality, except for what tiles of a large picture may show at their borders.
"""

import copy
import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

from gen_worker.residency.device import Device

VAE_TILING = "vae_tiling"
ENCODERS_OFF = "text_encoders_off"
GROUP_OFFLOAD = "group_offload"


def steps_of(device: Device) -> tuple[str, ...]:
    """The savings that this device supports. Where it shares its memory with the host, moving weights would gain nothing."""
    return (VAE_TILING, ENCODERS_OFF, GROUP_OFFLOAD) if device.name.startswith("cuda") else (VAE_TILING,)


def is_kept_off(component: str, steps: tuple[str, ...]) -> bool:
    """Whether a component's weights wait in host memory until used: all but the VAE, whose methods bypass the hooks."""
    if GROUP_OFFLOAD in steps:
        return not component.startswith("vae")
    return ENCODERS_OFF in steps and component.startswith("text_encoder")


def keep_off(module: Any, device: str) -> None:
    """Keep a module's weights in host memory; each layer moves to the device while it computes.

    One call at a time: the layers of two calls would keep evicting each other's weights.
    """
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(module, onload_device=device, offload_device="cpu", offload_type="leaf_level")
    module.forward = _OneAtATime(module.forward, threading.RLock())


class _OneAtATime:
    """A method that runs in one thread at a time. A copy of its module shares the moving weights, so it also shares the lock."""

    def __init__(self, method: Callable[..., Any], lock: Any) -> None:
        functools.update_wrapper(self, method)
        self._method = method
        self._lock = lock

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self._method(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_OneAtATime":
        return _OneAtATime(copy.deepcopy(self._method, memo), self._lock)


def tile(components: Mapping[str, Any]) -> None:
    """Decode large pictures tile by tile, and batches one picture at a time."""
    for name, module in components.items():
        if name.startswith("vae"):
            for option in ("enable_tiling", "enable_slicing"):
                if hasattr(module, option):
                    getattr(module, option)()


def device_bytes(module: Any, device: str) -> int:
    """Bytes of a module's tensors on the device now."""
    kind = device.partition(":")[0]
    return int(sum(t.nbytes for t in (*module.parameters(), *module.buffers()) if t.device.type == kind))
