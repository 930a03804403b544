"""Builds what every program needs to call functions (executor, models and files) from its settings.

    environment -> ExecutionSettings   values only; a bad variable stops the start here, before anything is open
    ExecutionSettings -> Execution     the objects, on the event loop that uses them

The dev runner, `cozyctl run` and the worker differ in what they pass besides the settings: where saved files are found,
who is told that models have changed, who renews presigned URLs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from gen_worker.authoring.model_interface import ModelDownloader
from gen_worker.execution.executor import Executor
from gen_worker.execution.stuck import StuckAfter
from gen_worker.files.input_cache import InputCache
from gen_worker.files.inputs import InputFiles
from gen_worker.log import Log
from gen_worker.refs import ModelSpec
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.custom import ManagedLoader, downloader_source, manager_of
from gen_worker.residency.devices import DeviceSet, check_devices, find_devices, has_nvidia, model_cache, named_device
from gen_worker.residency.forms import model_of
from gen_worker.residency.hardware import GpuWatch
from gen_worker.residency.imports_ahead import ImportsAhead
from gen_worker.residency.manager import DEFAULT_LOADERS, LoadedModels
from gen_worker.residency.tee import Tee
from gen_worker.scratch import sweep
from gen_worker.settings import DeviceSettings, ModelSettings, RunLimits, is_true
from gen_worker.sources.build import Sources, build_sources
from gen_worker.sources.hub import Renewals
from gen_worker.sources.keyspace import Keyspace
from gen_worker.sources.source import read_overrides


class Extras(msgspec.Struct, frozen=True):
    """Parts that a program supplies: a model manager in place of our loaders, a downloader in place of our sources."""

    manager: Any = None
    downloader: ModelDownloader | None = None


class ExecutionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What functions are called with. `overrides`: local folders by model key."""

    models: ModelSettings
    devices: DeviceSettings
    limits: RunLimits
    overrides: Mapping[str, Path] = {}
    extras: Extras = Extras()

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str],
        root: Path,
        options: Sequence[str] = (),
        keys: Collection[str] | None = None,
        extras: Extras = Extras(),  # noqa: B008 - frozen
    ) -> Self:
        """Read the variables; overrides as in `read_overrides`. `ValueError` names what is wrong, including a device
        that does not exist.
        """
        models, devices = ModelSettings.from_env(env), DeviceSettings.from_env(env)
        check_devices(devices, GpuWatch(devices).read().count)
        return cls(
            models=models,
            devices=devices,
            limits=RunLimits.from_env(env),
            overrides=read_overrides(models.cozy_model_overrides, root, options, keys),
            extras=extras,
        )


class Execution(msgspec.Struct, frozen=True):
    """The objects that call functions in this process. `close` ends what they started. `imports` does nothing until its `begin`."""

    executor: Executor
    models: LoadedModels
    cache: ModelCache
    sources: Sources
    gpus: GpuWatch
    imports: ImportsAhead

    def close(self) -> None:
        self.imports.close()
        self.executor.close()
        self.models.close()


def build_execution(
    settings: ExecutionSettings,
    run_dir: Path,
    log: Log,
    *,
    models_by_function: Mapping[str, Mapping[str, ModelSpec]] = {},
    saved_file: Callable[[str], Path | None] | None = None,
    input_cache: InputCache | None = None,
    stuck_after: StuckAfter | None = None,
    on_models_changed: Callable[[], None] = lambda: None,
    renew: Renewals | None = None,
) -> Execution:
    """Build it on the event loop that uses it. `ValueError` names an unusable setting.

    `saved_file` finds a file saved here by an earlier run, by its ref. `on_models_changed` is called on the loop when
    the models on a device have changed. `renew` asks a scheduler for fresh presigned URLs; it is called in download
    threads. Removes what killed programs left in `run_dir`.
    """
    limits, gpus = settings.limits, GpuWatch(settings.devices)
    cache = model_cache(settings.devices, gpus.read().memory_bytes)
    devices = DeviceSet(lambda: find_devices(settings.devices))
    imports = ImportsAhead(devices, log, lambda: executor.calling)
    tee = Tee(lambda: devices.get().host if devices.used(0) or has_nvidia() else None)  # otherwise torch would be imported for nothing
    sources = build_sources(
        settings.models,
        settings.overrides,
        downloader_source(settings.extras.downloader, settings.models),
        log=log,
        on_blob=tee.arrived,
        in_use=lambda: {model_of(name) for name in cache.get_vram_models()},
        renew=renew,
    )
    models = LoadedModels(
        Keyspace(models_by_function),
        sources.source,
        cache,
        devices,
        log,
        _loaders(settings),
        downloads=settings.models.worker_max_concurrent_downloads,
        measured=settings.models.cas_root.parent / "measured.json",
        margin_bytes=settings.devices.margin_bytes,
        looks_ahead=is_true(settings.models.worker_load_ahead),
        on_change=on_models_changed,
        on_arrival=imports.arrived,
        on_close=tee.close,
        is_right=sources.checked.is_right,
    )
    sweep(run_dir)
    inputs = InputFiles(
        run_dir, saved_file, max_bytes=limits.worker_max_input_file_bytes, retries=limits.worker_download_retries, cache=input_cache
    )
    executor = Executor(models, inputs, limits, log, device=named_device(settings.devices), stuck_after=stuck_after)
    return Execution(executor, models, cache, sources, gpus, imports)


def _loaders(settings: ExecutionSettings) -> tuple[Any, ...]:
    manager = settings.extras.manager
    if manager is None and settings.models.model_manager_class:
        manager = manager_of(settings.models.model_manager_class)
    return DEFAULT_LOADERS if manager is None else (ManagedLoader(manager, DEFAULT_LOADERS), *DEFAULT_LOADERS)
