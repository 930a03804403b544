"""The door to models: `acquire` gives a lease on a loaded object; each model is loaded once, however many wait."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from gen_worker import events
from gen_worker.authoring.signature import FunctionSpec, Injection
from gen_worker.errors import FatalError, ResourceError, WorkerError
from gen_worker.events import ModelStep, RunEvent
from gen_worker.log import Log
from gen_worker.model_cache import ModelCache
from gen_worker.models.keyspace import Keyspace
from gen_worker.models.loaders.base import Loaded, Loader, LoadRequest, choose_loader
from gen_worker.models.loaders.diffusers import DiffusersLoader
from gen_worker.models.loaders.path import PathLoader
from gen_worker.models.loaders.plain import PlainLoader
from gen_worker.models.loaders.transformers import TransformersLoader
from gen_worker.models.source import LocalModel, ModelSource
from gen_worker.refs import ModelSpec

Emit = Callable[[RunEvent], None]
LOAD_THREADS = 2
DEFAULT_LOADERS: tuple[Loader, ...] = (PathLoader(), DiffusersLoader(), TransformersLoader(), PlainLoader())


class ModelUse(msgspec.Struct, frozen=True):
    """How a run came by one of its models."""

    model_id: str
    cache_state: str
    load_s: float
    fetch_s: float = 0.0


class Lease:
    """A loaded model, pinned until `release`."""

    def __init__(self, loaded: Loaded, release: Callable[[], None]) -> None:
        self.view = loaded.view
        self.release = release


class ModelManager:
    """Keeps loaded models within the cache's limit. Lives on one event loop; loading happens in its own threads."""

    def __init__(
        self,
        keyspace: Keyspace,
        source: ModelSource,
        cache: ModelCache,
        device: Callable[[], str],
        log: Log,
        loaders: Sequence[Loader] = DEFAULT_LOADERS,
    ) -> None:
        self.keyspace = keyspace
        self.cache = cache
        self._source = source
        self._device = device
        self._log = log
        self._loaders = loaders
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._threads = ThreadPoolExecutor(LOAD_THREADS, thread_name_prefix="model-load")

    async def acquire(self, spec: FunctionSpec, injection: Injection, payload: msgspec.Struct, emit: Emit) -> tuple[Lease, ModelUse]:
        """The model for one parameter of a run, loaded and pinned. Emits the steps that it takes."""
        return await self._acquire(spec, injection, lambda: self.keyspace.select(spec, injection, payload), emit)

    async def acquire_ref(self, spec: FunctionSpec, injection: Injection, ref: str, emit: Emit) -> tuple[Lease, ModelUse]:
        """The same for a model that the scheduler names; it must be one that the function may use."""
        return await self._acquire(spec, injection, lambda: self.keyspace.find_ref(spec, ref), emit)

    async def _acquire(
        self, spec: FunctionSpec, injection: Injection, select: Callable[[], tuple[str, ModelSpec]], emit: Emit
    ) -> tuple[Lease, ModelUse]:
        began_s = time.monotonic()
        step = ModelStep(spec.name, injection.param)
        emit(RunEvent(events.RESOLVE_STARTED, step))
        try:
            key, model_spec = select()
            local = await self._source.locate(key, model_spec)
        except WorkerError as exc:
            emit(RunEvent(events.RESOLVE_FAILED, _ended(step, began_s, error_type=type(exc).__name__)))
            raise
        emit(RunEvent(events.RESOLVE_COMPLETED, _ended(step, began_s, model_id=local.model_id, model_key=key)))
        return await self._load(injection.type, model_spec, local, msgspec.structs.replace(step, model_id=local.model_id), emit)

    async def load(self, key: str, spec: ModelSpec, annotation: Any) -> None:
        """Load a model ahead of its first run."""
        local = await self._source.locate(key, spec)
        await self._single_flight(_cache_id(local, annotation), annotation, spec, local)

    async def prefetch(self, key: str, spec: ModelSpec) -> LocalModel:
        """Bring a model's files to this disk without loading them."""
        local = await self._source.locate(key, spec)
        if not self.cache.has_model(local.model_id):
            self.cache.mark_cached_to_disk(local.model_id, local.path)
        return local

    def unload(self, model_id: str) -> bool:
        """Drop a loaded model; `ResourceError` while a run uses it, False when it is not loaded."""
        found = [name for name in self.cache.get_all_models() if name == model_id or name.startswith(model_id + "#")]
        if any(self.cache.is_pinned(name) for name in found):
            raise ResourceError("model_in_use")
        dropped = [name for name in found if self.cache.unload_model(name)]
        return bool(dropped)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _load(self, annotation: Any, spec: ModelSpec, local: LocalModel, step: ModelStep, emit: Emit) -> tuple[Lease, ModelUse]:
        cache_id = _cache_id(local, annotation)
        hot = self.cache.get_pipeline(cache_id)
        if hot is not None:
            return self._lease(cache_id, hot), ModelUse(local.model_id, "hot_vram", 0.0)
        began_s = time.monotonic()
        emit(RunEvent(events.LOAD_STARTED, step))
        try:
            loaded = await self._single_flight(cache_id, annotation, spec, local)
        except WorkerError as exc:
            emit(RunEvent(events.LOAD_FAILED, _ended(step, began_s, error_type=type(exc).__name__)))
            raise
        emit(RunEvent(events.LOAD_COMPLETED, _ended(step, began_s)))
        return self._lease(cache_id, loaded), ModelUse(local.model_id, "warm_disk", time.monotonic() - began_s)

    def _lease(self, cache_id: str, loaded: Loaded) -> Lease:
        self.cache.pin(cache_id)
        return Lease(loaded, lambda: self.cache.unpin(cache_id))

    async def _single_flight(self, cache_id: str, annotation: Any, spec: ModelSpec, local: LocalModel) -> Loaded:
        task = self._loading.get(cache_id)
        if task is None:
            task = asyncio.ensure_future(self._load_now(cache_id, annotation, spec, local))
            self._loading[cache_id] = task
            task.add_done_callback(lambda _: self._loading.pop(cache_id, None))
        # Shielded: one waiter that gives up must not end the load for the others.
        return await asyncio.shield(task)

    async def _load_now(self, cache_id: str, annotation: Any, spec: ModelSpec, local: LocalModel) -> Loaded:
        hot: Loaded | None = self.cache.get_pipeline(cache_id)
        if hot is not None:
            return hot
        began_s = time.monotonic()
        loader = choose_loader(self._loaders, annotation)

        def load() -> Loaded:
            return loader.load(LoadRequest(annotation, local.path, self._device(), spec.dtypes))

        try:
            loaded = await asyncio.get_running_loop().run_in_executor(self._threads, load)
        except WorkerError:
            raise
        except Exception as exc:
            if type(exc).__name__ in ("OutOfMemoryError", "MemoryError"):
                raise ResourceError(f"not enough memory to load {local.model_id}") from exc
            self._log.error("model.load_failed", model=local.model_id, path=str(local.path), error=repr(exc))
            name = getattr(annotation, "__name__", str(annotation))
            raise FatalError(f"model {local.model_id} could not be loaded as {name}: {type(exc).__name__}: {exc}") from exc
        try:
            self.cache.mark_loaded_to_vram(cache_id, loaded, loaded.size_bytes / 1e9)
        except ValueError as exc:
            raise ResourceError(f"{exc}; raise WORKER_MAX_VRAM_GB or use a smaller model") from exc
        self._log.info("model.loaded", model=local.model_id, size_bytes=loaded.size_bytes, seconds=round(time.monotonic() - began_s, 3))
        return loaded


def _cache_id(local: LocalModel, annotation: Any) -> str:
    return f"{local.model_id}#{getattr(annotation, '__name__', annotation)}"


def _ended(step: ModelStep, began_s: float, **facts: Any) -> ModelStep:
    return msgspec.structs.replace(step, duration_ms=round((time.monotonic() - began_s) * 1000), **facts)
