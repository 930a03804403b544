"""The GPUs of this machine, as values for CUDA_VISIBLE_DEVICES, found without importing torch."""

from collections.abc import Iterable
from pathlib import Path


def find_gpus(visible: str | None) -> tuple[str, ...]:
    """One name for each GPU: those listed in `visible` (our own CUDA_VISIBLE_DEVICES), otherwise all that the driver
    knows; none without a driver.
    """
    if visible is not None:
        names = [part.strip() for part in visible.split(",")]
        if "-1" in names:
            names = names[: names.index("-1")]  # CUDA ignores the entries after an invalid one
        return tuple(filter(None, names))
    return tuple(str(index) for index in range(_count()))


def least_used(gpus: Iterable[str], taken: Iterable[str]) -> str:
    """The GPU with the fewest workers, the first among equals; empty when there is none."""
    counts = dict.fromkeys(gpus, 0)
    for name in taken:
        if name in counts:
            counts[name] += 1
    return min(counts, key=lambda name: counts[name]) if counts else ""


def _count() -> int:
    if not Path("/dev/nvidiactl").exists():
        return 0
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # noqa: BLE001 - a broken driver must not keep the platform from serving what needs no GPU
        return 0
