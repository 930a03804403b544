"""Public module: `ModelCache`, which tracks which models are where."""

import os
from pathlib import Path

from gen_worker.residency import accounting
from gen_worker.residency.accounting import ModelCacheStats, ModelLocation
from gen_worker.residency.eviction import EvictionPolicy
from gen_worker.settings import DeviceSettings, ModelSettings

__all__ = ["ModelCache", "ModelCacheStats", "ModelLocation"]


class ModelCache(accounting.ModelCache):
    """The accounting of a program that manages its own models. The program is the root, so this class reads the
    environment.

    `max_vram_gb`: argument, else WORKER_MAX_VRAM_GB, else what torch detects minus the safety margin (argument, else
    WORKER_VRAM_SAFETY_MARGIN_GB, else 3.5). `SettingError` (a `ValueError`) for an invalid variable.
    """

    def __init__(
        self,
        max_vram_gb: float | None = None,
        vram_safety_margin_gb: float | None = None,
        model_cache_dir: str | Path | None = None,
        *,
        policy: EvictionPolicy | None = None,
    ) -> None:
        devices = DeviceSettings.from_env(os.environ)
        super().__init__(
            devices.worker_max_vram_gb if max_vram_gb is None else max_vram_gb,
            devices.worker_vram_safety_margin_gb if vram_safety_margin_gb is None else vram_safety_margin_gb,
            model_cache_dir,
            policy=policy,
            downloads=ModelSettings.from_env(os.environ).worker_max_concurrent_downloads,
        )
