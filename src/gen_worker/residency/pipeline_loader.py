"""Diffusers pipelines for programs without a worker: the same store, sources, ledger and fast loading behind a few coroutines."""

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.authoring.model_interface import ModelDownloader
from gen_worker.content.measured import Measurements
from gen_worker.content.progress import Progress
from gen_worker.contract.progress import ModelProgress
from gen_worker.errors import FatalError, ResourceError, RetryableError, WorkerError
from gen_worker.log import Log
from gen_worker.refs import DEFAULT_DTYPES, ModelSpec
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.custom import downloader_source
from gen_worker.residency.device import TorchDevice
from gen_worker.residency.devices import pick_devices
from gen_worker.residency.forms import FormId
from gen_worker.residency.loaders.base import Loaded, LoadRequest
from gen_worker.residency.loaders.diffusers import DiffusersLoader
from gen_worker.residency.loads import Residency
from gen_worker.settings import DeviceSettings, ModelSettings
from gen_worker.sources.arrivals import Arrivals
from gen_worker.sources.build import build_sources
from gen_worker.sources.source import LocalModel, ModelWant

ProgressCallback = Callable[[str, float], None]


class PipelineLoaderError(Exception):
    """A pipeline could not be loaded."""


class ModelNotFoundError(PipelineLoaderError):
    """No model was found under this name or path."""

    def __init__(self, model_id: str, path: str | None = None) -> None:
        super().__init__(f"model {model_id!r} not found" + (f" at {path}" if path else ""))
        self.model_id = model_id
        self.path = path


class ModelDownloadError(PipelineLoaderError, RetryableError):
    """The files could not be fetched; `retryable` says whether a later try may succeed."""

    def __init__(self, model_id: str, reason: str, retryable: bool = True) -> None:
        super().__init__(f"model {model_id!r} could not be downloaded: {reason}")
        self.model_id = model_id
        if not retryable:
            vars(self).update(retryable=False, error_type="fatal", code="fatal")


class IncompatibleFormatError(PipelineLoaderError):
    """The files exist in a form that cannot be loaded."""

    def __init__(self, model_id: str, expected_format: str, actual_format: str) -> None:
        super().__init__(f"model {model_id!r}: expected {expected_format}, found {actual_format}")
        self.model_id = model_id


class CudaOutOfMemoryError(PipelineLoaderError, ResourceError):
    """The model does not fit on the device."""

    def __init__(self, model_id: str, required_gb: float, available_gb: float) -> None:
        super().__init__(f"model {model_id!r} needs {required_gb:.2f} GB, {available_gb:.2f} GB can be had")
        self.model_id = model_id
        self.required_gb = required_gb
        self.available_gb = available_gb


class ComponentMissingError(PipelineLoaderError):
    """The pipeline lacks a component that it needs."""

    def __init__(self, model_id: str, component: str) -> None:
        super().__init__(f"model {model_id!r} lacks its {component!r}")
        self.component = component


class PipelineConfig(msgspec.Struct, frozen=True):
    """How to load. `dtype` is one of fp16, bf16, fp32; `device` None chooses the best available."""

    model_path: str = ""
    pipeline_class: str | None = None
    custom_pipeline: str | None = None
    dtype: str | None = None
    device: str | None = None
    enable_vae_tiling: bool = True
    enable_vae_slicing: bool = True
    enable_model_cpu_offload: bool = False
    enable_sequential_cpu_offload: bool = False
    scheduler_class: str | None = None
    warmup_steps: int = 0
    variant: str | None = None


class LoadedPipeline(msgspec.Struct, frozen=True):
    """A pipeline on the device. `size_gb` in GB of 10^9 bytes."""

    pipeline: Any
    model_id: str
    pipeline_class: str
    dtype: str
    size_gb: float
    load_format: str
    components: tuple[str, ...] = ()


class PipelineLoader:
    """For use on one event loop. Pipelines stay loaded until their room is needed; pipelines with equal components share them."""

    def __init__(
        self,
        settings: ModelSettings,
        devices: DeviceSettings,
        max_vram_gb: float | None = None,
        vram_safety_margin_gb: float = 3.5,
        downloader: ModelDownloader | None = None,
    ) -> None:
        self._cache = ModelCache(max_vram_gb, vram_safety_margin_gb)
        measurements = Measurements(settings.cas_root.parent / "measured.json")
        sources = build_sources(settings, {}, downloader_source(downloader, settings))
        self._arrivals = Arrivals(sources.source, settings.worker_max_concurrent_downloads, measurements, sources.checked.is_right)
        self._device = TorchDevice(pick_devices(devices)[0])
        self._residency = Residency(self._cache, lambda: self._device, measurements, Log())
        self._loaded: dict[str, tuple[LoadedPipeline, Loaded]] = {}

    async def ensure_model_available(self, model_id: str, progress_callback: ProgressCallback | None = None) -> Path:
        """The folder with a model's files, fetched if they are missing; `ModelDownloadError`."""
        return (await self._locate(model_id, DEFAULT_DTYPES, progress_callback)).path

    async def download_models(
        self, model_ids: Sequence[str], progress_callback: ProgressCallback | None = None, randomize_order: bool = True
    ) -> dict[str, bool]:
        """Fetch several models; says for each whether it is here now. The order is random, so that many machines do not
        all start with the same model.
        """
        order = random.sample(model_ids, len(model_ids)) if randomize_order else list(model_ids)
        found = {}
        for model_id in order:
            try:
                await self.ensure_model_available(model_id, progress_callback)
                found[model_id] = True
            except PipelineLoaderError:
                found[model_id] = False
        return found

    async def initialize_startup_models(
        self, model_ids: Sequence[str], preload_first: str | None = None, progress_callback: ProgressCallback | None = None
    ) -> dict[str, bool]:
        """Fetch several models, then load one of them."""
        found = await self.download_models(model_ids, progress_callback)
        if preload_first is not None and found.get(preload_first):
            await self.load(preload_first)
        return found

    async def load(self, model_id: str, model_path: str | None = None, config: PipelineConfig | None = None) -> LoadedPipeline:
        """The pipeline, loaded from `model_path` or its ref. Raises this module's errors."""
        known = self._loaded.get(model_id)
        if known is not None and self._cache.is_in_vram(model_id):
            self._cache.get_pipeline(model_id)
            return known[0]
        config = config or PipelineConfig()
        dtypes = (config.dtype,) if config.dtype else DEFAULT_DTYPES
        path = model_path or config.model_path
        if path and not Path(path).exists():  # noqa: ASYNC240 - one look
            raise ModelNotFoundError(model_id, path)
        local = LocalModel(model_id, Path(path)) if path else await self._locate(model_id, dtypes, None)
        return await self._load(model_id, local, config, dtypes)

    def get(self, model_id: str) -> Any | None:
        """The pipeline if it is loaded, else None."""
        known = self._loaded.get(model_id)
        return known[0].pipeline if known is not None and self._cache.get_pipeline(model_id) is not None else None

    def get_for_inference(self, model_id: str) -> Any | None:
        """A light copy for one run: its own scheduler over the shared weights."""
        return self._loaded[model_id][1].view() if self.get(model_id) is not None else None

    def unload(self, model_id: str) -> bool:
        """Take a pipeline off the device; False when it was not loaded."""
        self._loaded.pop(model_id, None)
        gone = self._cache.unload_model(model_id)
        self._residency.forget_dropped()
        return gone

    def get_loaded_models(self) -> list[str]:
        return self._cache.get_vram_models()

    def get_stats(self) -> dict[str, Any]:
        stats = self._cache.get_stats()
        return {
            "loaded_models": stats.vram_models,
            "total_size_gb": round(stats.vram_used_gb, 2),
            "max_vram_gb": round(stats.vram_total_gb, 2),
            "available_vram_gb": round(stats.vram_available_gb, 2),
            "flashpack_available": False,
        }

    def close(self) -> None:
        """End its threads. Pipelines that callers still hold stay usable."""
        self._arrivals.close()
        self._residency.close()

    async def _locate(self, model_id: str, dtypes: tuple[str, ...], callback: ProgressCallback | None) -> LocalModel:
        def hear(now: ModelProgress) -> None:
            if callback is not None:
                callback(model_id, now.fraction)

        try:
            return await self._arrivals.locate(ModelWant(model_id, ModelSpec.checked(model_id, dtypes)), hear)
        except ValueError as exc:
            raise ModelNotFoundError(model_id) from exc
        except WorkerError as exc:
            raise ModelDownloadError(model_id, str(exc), isinstance(exc, RetryableError)) from exc

    async def _load(self, model_id: str, local: LocalModel, config: PipelineConfig, dtypes: tuple[str, ...]) -> LoadedPipeline:
        import diffusers

        kind = getattr(diffusers, config.pipeline_class or "DiffusionPipeline", None)
        if kind is None:
            raise IncompatibleFormatError(model_id, "a pipeline class of diffusers", str(config.pipeline_class))
        device = TorchDevice(config.device) if config.device else self._device
        request = LoadRequest(kind, local.path, lambda: device, dtypes, local.digests, model_id)
        progress = Progress(model_id)
        try:
            plan = await self._residency.plan(str(FormId(model_id, "pipeline")), lambda: DiffusersLoader().plan(request))
            loaded = await self._residency.load(model_id, plan, progress, _never())
        except ResourceError as exc:
            stats = self._cache.get_stats()
            need_gb = local_gb(local.path)
            raise CudaOutOfMemoryError(model_id, need_gb, stats.vram_available_gb) from exc
        except FatalError as exc:
            raise PipelineLoaderError(str(exc)) from exc
        self._residency.release_load(plan)
        pipe = loaded.model
        for enabled, name in ((config.enable_vae_tiling, "enable_tiling"), (config.enable_vae_slicing, "enable_slicing")):
            switch = getattr(getattr(pipe, "vae", None), name, None)
            if enabled and callable(switch):
                switch()
        if config.scheduler_class:
            pipe.scheduler = getattr(diffusers, config.scheduler_class).from_config(pipe.scheduler.config)
        result = LoadedPipeline(
            pipe, model_id, type(pipe).__name__, str(pipe.dtype), self._cache.size_gb(model_id), "safetensors", tuple(pipe.components)
        )
        self._loaded[model_id] = (result, loaded)
        return result


def local_gb(path: Path) -> float:
    """Size of the weights in a folder, in GB."""
    return sum(file.stat().st_size for file in path.rglob("*.safetensors")) / 1e9


def _never() -> threading.Event:
    return threading.Event()
