"""Every setting of a process, read once from the environment that a root passes in. Nothing below a root reads the environment."""

from gen_worker.settings.devices import DEFAULT_SAFETY_MARGIN_GB, DeviceSettings
from gen_worker.settings.models import LOCAL_CACHE_DIR, ModelSettings
from gen_worker.settings.reading import SettingError, check_settings, is_true, read_settings, split_list
from gen_worker.settings.worker import RunLimits, WorkerSettings

__all__ = [
    "DEFAULT_SAFETY_MARGIN_GB",
    "LOCAL_CACHE_DIR",
    "DeviceSettings",
    "ModelSettings",
    "RunLimits",
    "SettingError",
    "WorkerSettings",
    "check_settings",
    "is_true",
    "read_settings",
    "split_list",
]
