"""Which devices models are loaded to, how much of them they may take, and what is reported about the machine."""

import re
from collections.abc import Mapping
from typing import Annotated, Self

import msgspec

from gen_worker.settings.reading import Bytes, Gigabytes, OneOf, Range, read_settings, split_list, wrong

DEFAULT_SAFETY_MARGIN_GB = 3.5
_DEVICE = re.compile(r"cpu|mps|cuda(?::[0-9]{1,3})?")


class DeviceSettings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Sizes in GB of 10^9 bytes. None: detected on the machine."""

    worker_torch_device: str = ""
    worker_device: str = ""
    worker_max_vram_gb: Gigabytes | None = None
    worker_vram_safety_margin_gb: Gigabytes = DEFAULT_SAFETY_MARGIN_GB
    worker_host_cache_gb: Gigabytes | None = None
    worker_eviction: Annotated[str, OneOf(("score", "lru"))] = "score"
    worker_torch_version: str = ""
    worker_cuda_version: str = ""
    cuda_version: str = ""
    nvidia_cuda_version: str = ""
    worker_fake_gpu_count: Annotated[int, Range(0, 1024, "a whole number")] | None = (
        None  # these four describe the GPUs reported by a machine without one
    )
    worker_fake_gpu_memory_bytes: Bytes = 24 << 30
    worker_fake_gpu_name: str = "FakeGPU"
    worker_fake_gpu_driver: str = "fake"
    cuda_visible_devices: str | None = None  # empty means: no GPU

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variables; `SettingError` names the one that is wrong."""
        settings = read_settings(cls, env)
        if "CUDA_VISIBLE_DEVICES" in env:
            settings = msgspec.structs.replace(settings, cuda_visible_devices=env["CUDA_VISIBLE_DEVICES"])
        names = settings.device_names
        numbers = ["cuda:0" if name == "cuda" else name for name in names]
        if not all(_DEVICE.fullmatch(name) for name in names) or len(set(numbers)) < len(numbers):
            raise wrong(settings.device_variable, ",".join(names), "cpu, mps, cuda or cuda:0,cuda:1 and so on, each once")
        return settings

    @property
    def device_names(self) -> tuple[str, ...]:
        """The requested devices (WORKER_TORCH_DEVICE, else WORKER_DEVICE), separated by commas."""
        return split_list(self.worker_torch_device or self.worker_device)

    @property
    def device_variable(self) -> str:
        """The variable that names them."""
        return "WORKER_TORCH_DEVICE" if self.worker_torch_device else "WORKER_DEVICE"

    @property
    def margin_bytes(self) -> int:
        """Bytes kept free on each device for the functions' own work."""
        return round(self.worker_vram_safety_margin_gb * 1e9)
