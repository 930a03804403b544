"""The values that a worker is built from: read from the environment once, checked, and never changed afterwards."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.execution.build import ExecutionSettings, Extras
from gen_worker.refs import ModelSpec
from gen_worker.runtime.connection_parts import Dialer
from gen_worker.settings import LOCAL_CACHE_DIR, SettingError, WorkerSettings, split_list


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's configuration. `dialer` None means gRPC, according to the settings."""

    settings: WorkerSettings
    execution: ExecutionSettings
    functions: tuple[FunctionSpec, ...]
    models_by_function: Mapping[str, Mapping[str, ModelSpec]]
    worker_id: str = ""
    endpoint_name: str = ""
    dialer: Dialer | None = None

    @property
    def seeds(self) -> list[str]:
        """The scheduler addresses to start with."""
        return [self.settings.scheduler_public_addr, *split_list(self.settings.scheduler_addrs)]

    @property
    def cache_folders(self) -> list[str]:
        """Folders that must be writable: the model store, and those named by the environment."""
        models = self.execution.models
        copies = models.worker_local_model_cache_dir
        named = [str(models.cas_root), copies if copies != LOCAL_CACHE_DIR else "", self.settings.worker_cache_dir]
        return [folder for folder in named if folder]


def worker_config(
    env: Mapping[str, str],
    settings: WorkerSettings,
    functions: tuple[FunctionSpec, ...],
    models_by_function: Mapping[str, Mapping[str, ModelSpec]],
    worker_id: str = "",
    extras: Extras = Extras(),  # noqa: B008 - frozen
    endpoint_name: str = "",
) -> WorkerConfig:
    """The configuration for these functions; `ValueError` names what is missing or wrong."""
    if not settings.scheduler_public_addr.strip():
        raise SettingError("SCHEDULER_PUBLIC_ADDR is not set; expected the scheduler's host:port")
    if not settings.worker_jwt.strip():
        raise SettingError("WORKER_JWT is not set; expected the token that the scheduler gave this worker")
    return WorkerConfig(
        settings=settings,
        execution=ExecutionSettings.from_env(env, Path.cwd(), extras=extras),
        functions=functions,
        models_by_function=models_by_function,
        worker_id=worker_id,
        endpoint_name=endpoint_name,
    )
