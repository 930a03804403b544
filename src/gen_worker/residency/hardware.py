"""What this machine is: CPU, memory, GPUs and libraries, found without importing torch."""

import importlib.util
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.names import whole_number
from gen_worker.settings import DeviceSettings

REPORTED_LIBRARIES = ("bitsandbytes", "flashpack", "torchao", "transformer_engine")


class Gpu(msgspec.Struct, frozen=True):
    """The first visible GPU, the number of GPUs, and the memory of each."""

    count: int = 0
    name: str = ""
    driver: str = ""
    compute_capability: str = ""
    total_bytes: int = 0
    used_bytes: int = 0
    memory_bytes: tuple[int, ...] = ()

    @property
    def free_bytes(self) -> int:
        return max(0, self.total_bytes - self.used_bytes)


class Hardware(msgspec.Struct, frozen=True):
    """Facts that do not change while the process runs."""

    cpu_cores: int
    memory_bytes: int
    torch_version: str
    cuda_version: str
    onnxruntime_version: str
    installed_libs: tuple[str, ...]


def read_hardware(settings: DeviceSettings) -> Hardware:
    """Look at the machine once."""
    torch_version = settings.worker_torch_version or _version("torch")
    return Hardware(
        cpu_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        torch_version=torch_version,
        cuda_version=settings.worker_cuda_version or settings.cuda_version or settings.nvidia_cuda_version or _cuda_of(torch_version),
        onnxruntime_version=_version("onnxruntime"),
        installed_libs=tuple(name for name in REPORTED_LIBRARIES if _importable(name)),
    )


class GpuWatch:
    """Reads GPU figures through NVIDIA's management library. Without the library or without a GPU it reports none.
    Honours CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, settings: DeviceSettings) -> None:
        self._fake_count = settings.worker_fake_gpu_count
        self._without = _made_up(settings)
        self._visible = settings.cuda_visible_devices
        self._nvml: Any = None
        if not Path("/dev/nvidiactl").exists():
            return
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # noqa: BLE001 - a broken driver must not keep the worker from serving; it then reports no GPU
            return
        self._nvml = pynvml

    def read(self) -> Gpu:
        """The current figures."""
        nvml = self._nvml
        if nvml is None:
            return self._without
        try:
            handles = self._handles(nvml)
            if not handles:
                return self._without
            memory = nvml.nvmlDeviceGetMemoryInfo(handles[0])
            major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handles[0])
            return Gpu(
                count=len(handles) if self._fake_count is None else self._fake_count,
                name=_text(nvml.nvmlDeviceGetName(handles[0])),
                driver=_text(nvml.nvmlSystemGetDriverVersion()),
                compute_capability=str(major * 10 + minor),
                total_bytes=int(memory.total),
                used_bytes=int(memory.used),
                memory_bytes=tuple(int(nvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles),
            )
        except nvml.NVMLError:
            return self._without

    def _handles(self, nvml: Any) -> list[Any]:
        if self._visible is None:
            return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        handles = []
        for name in filter(None, (part.strip() for part in self._visible.split(","))):
            if name == "-1":
                break  # CUDA ignores the entries after an invalid one
            number = whole_number(name)
            handles.append(nvml.nvmlDeviceGetHandleByUUID(name.encode()) if number is None else nvml.nvmlDeviceGetHandleByIndex(number))
        return handles


def _made_up(settings: DeviceSettings) -> Gpu:
    """GPUs reported by a machine without one: none, or those that a scheduler's test asks for in its settings. They get
    no entry in `memory_bytes`, so nothing is placed by their size.
    """
    count = settings.worker_fake_gpu_count or 0
    if not count:
        return Gpu()
    size_bytes = settings.worker_fake_gpu_memory_bytes
    return Gpu(count=count, name=settings.worker_fake_gpu_name, driver=settings.worker_fake_gpu_driver, total_bytes=size_bytes)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _cuda_of(torch_version: str) -> str:
    """`12.6` of `2.10.0+cu126`."""
    local = torch_version.partition("+")[2]
    digits = local.removeprefix("cu")
    return f"{digits[:-1]}.{digits[-1]}" if local.startswith("cu") and digits.isdigit() and len(digits) > 1 else ""


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
