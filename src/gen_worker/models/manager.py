"""The door to models: `acquire` gives a lease on a loaded object; each model is fetched and loaded once, however many wait."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_worker import events
from gen_worker.authoring.signature import FunctionSpec, Injection
from gen_worker.errors import ResourceError, WorkerError
from gen_worker.events import ModelStep, RunEvent
from gen_worker.log import Log
from gen_worker.model_cache import GB, ModelCache
from gen_worker.models.arrivals import Arrivals, heard_on_the_loop
from gen_worker.models.cas import Cas
from gen_worker.models.device import Device
from gen_worker.models.hub import local_model
from gen_worker.models.keyspace import Keyspace
from gen_worker.models.listing import Listing
from gen_worker.models.loaders.base import Loaded, Loader, LoadRequest, choose_loader
from gen_worker.models.loaders.diffusers import DiffusersLoader
from gen_worker.models.loaders.lora import LoraLoader
from gen_worker.models.loaders.onnx import OnnxLoader
from gen_worker.models.loaders.own import OwnLoader, own_loaders
from gen_worker.models.loaders.path import PathLoader
from gen_worker.models.loaders.plain import PlainLoader
from gen_worker.models.loaders.transformers import TransformersLoader
from gen_worker.models.measured import Measurements
from gen_worker.models.progress import Listener, ModelProgress, Progress
from gen_worker.models.residency import Residency
from gen_worker.models.source import LocalModel, ModelSource, ModelWant
from gen_worker.refs import ModelSpec, canonical_ref

Emit = Callable[[RunEvent], None]
DEFAULT_LOADERS: tuple[Loader, ...] = (
    OwnLoader(),
    PathLoader(),
    LoraLoader(),
    DiffusersLoader(),
    TransformersLoader(),
    OnnxLoader(),
    PlainLoader(),
)


class ModelUse(msgspec.Struct, frozen=True):
    """How a run came by one of its models. Seconds of this run's own waiting; bytes only if this run's fetch brought them."""

    model_id: str
    cache_state: str
    load_s: float
    fetch_s: float = 0.0
    version: str = ""
    fetched_bytes: int = 0
    path: Path | None = None  # where its files are; never leaves this machine
    localized: bool = False


class Lease:
    """A loaded model, pinned until `release`."""

    def __init__(self, loaded: Loaded, release: Callable[[], None]) -> None:
        self.view = loaded.view
        self.release = release


class _Loading:
    """A model on its way to the device, and how many wait for it."""

    def __init__(self, model_id: str) -> None:
        self.progress = Progress(model_id)
        self.cancel = threading.Event()
        self.waiters = 0
        self.task: asyncio.Task[Loaded] | None = None
        self.release: Callable[[], None] = lambda: None  # of the pins that the load itself holds

    def leave(self) -> None:
        """A waiter has gone. With the last one goes the load's own pin, or the load."""
        self.waiters -= 1
        if not self.waiters:
            self.cancel.set()
            release, self.release = self.release, lambda: None
            release()


class ModelManager:
    """Keeps loaded models within the cache's limit. Lives on one event loop; downloads and loads have their own threads."""

    def __init__(
        self,
        keyspace: Keyspace,
        source: ModelSource,
        cache: ModelCache,
        device: Callable[[], Device],
        log: Log,
        loaders: Sequence[Loader] = DEFAULT_LOADERS,
        *,
        downloads: int = 2,
        measured: Path | None = None,
    ) -> None:
        self.keyspace = keyspace
        self.cache = cache
        measurements = self.measurements = Measurements(measured)
        self.arrivals = Arrivals(source, downloads, measurements)
        self.residency = Residency(cache, device, measurements, log)
        self._device = device
        self._log = log
        self._loaders = loaders
        self._loading: dict[str, _Loading] = {}
        self.on_change: Callable[[], None] = lambda: None  # what is on the device has changed
        self._states: dict[str, str] = {}  # version and precision that a plain cache id stands for

    async def acquire(
        self,
        spec: FunctionSpec,
        injection: Injection,
        payload: msgspec.Struct,
        emit: Emit,
        listings: Mapping[str, Listing] = {},
    ) -> tuple[Lease, ModelUse]:
        """The model for one parameter of a run, loaded and pinned. Emits the steps that it takes. `listings`: files by canonical ref, as
        a scheduler gave them."""
        return await self._acquire(spec, injection, lambda: self.keyspace.select(spec, injection, payload), emit, listings)

    async def acquire_ref(
        self, spec: FunctionSpec, injection: Injection, ref: str, emit: Emit, listings: Mapping[str, Listing] = {}
    ) -> tuple[Lease, ModelUse]:
        """The same for a model that the scheduler names; it must be one that the function may use."""
        return await self._acquire(spec, injection, lambda: self.keyspace.find_ref(spec, ref), emit, listings)

    async def _acquire(
        self,
        spec: FunctionSpec,
        injection: Injection,
        select: Callable[[], tuple[str, ModelSpec]],
        emit: Emit,
        listings: Mapping[str, Listing],
    ) -> tuple[Lease, ModelUse]:
        began_s = time.monotonic()
        step = ModelStep(spec.name, injection.param)
        emit(RunEvent(events.RESOLVE_STARTED, step))
        fetched = False

        def hear(now: ModelProgress) -> None:
            nonlocal fetched
            fetched = fetched or now.phase == "downloading"
            if now.phase != "waiting":
                emit(RunEvent(events.MODEL_PROGRESS, now))

        try:
            key, model_spec = select()
            want = _want(key, model_spec, listings)
            local = await self.arrivals.locate(want, hear)
        except WorkerError as exc:
            emit(RunEvent(events.RESOLVE_FAILED, _ended(step, began_s, error_type=type(exc).__name__)))
            raise
        fetch_s = time.monotonic() - began_s if fetched else 0.0
        emit(RunEvent(events.RESOLVE_COMPLETED, _ended(step, began_s, model_id=local.model_id, model_key=key)))
        step = msgspec.structs.replace(step, model_id=local.model_id)
        request = self._request(injection.type, model_spec, local, spec)
        lease, state, load_s = await self._load(request, local, step, emit)
        fetched_bytes = local.fetched_bytes if fetched else 0
        state = "cold_remote" if fetched else state
        use = ModelUse(local.model_id, state, load_s, fetch_s, local.version, fetched_bytes, local.path, local.localized)
        return lease, use

    async def load(self, key: str, spec: ModelSpec, function: FunctionSpec, injection: Injection) -> None:
        """Load a model ahead of its first run, as this function takes it."""
        local = await self.arrivals.locate(_want(key, spec, {}))
        request = self._request(injection.type, spec, local, function)
        (await self._loaded(self._cache_id(local, request), request, None)).release()

    async def prefetch(
        self, key: str, spec: ModelSpec, listings: Mapping[str, Listing] = {}, listener: Listener | None = None
    ) -> tuple[LocalModel, bool]:
        """Bring a model's files to this disk without loading them; True if they were here already."""
        want = _want(key, spec, listings)
        fetched = False

        def hear(now: ModelProgress) -> None:
            nonlocal fetched
            fetched = fetched or now.phase == "downloading"
            if now.phase == "downloading" and not self.cache.has_model(want.model_id):
                self.cache.mark_downloading(want.model_id)
            self.cache.update_download_progress(want.model_id, now.fraction)
            if listener is not None:
                listener(now)

        try:
            local = await self.arrivals.locate(want, hear)
        except BaseException:
            if self.cache.get_download_progress(want.model_id) is not None:
                self.cache.unload_model(want.model_id)
            raise
        self.note_on_disk(local)
        return local, not fetched

    async def inventory(self, cas: Cas) -> list[str]:
        """Look through the store and for every declared model; the refs that are here, sorted."""
        for ref, snapshot in await self.arrivals.look(lambda: list(cas.inventory())):
            self.note_on_disk(local_model(ref, snapshot))
        for ref, (key, spec) in self.keyspace.refs().items():
            local = await self.arrivals.present(_want(key, spec, {}))
            if local is not None and not self.cache.has_model(canonical_ref(ref)):
                self.note_on_disk(local)
        return sorted(self.cache.get_disk_models())

    def note_on_disk(self, local: LocalModel) -> None:
        """A model whose files are here; its loaded forms stand beside it."""
        self.cache.mark_cached_to_disk(local.model_id, local.path)

    def on_their_way(self) -> list[ModelProgress]:
        """Models that are being fetched or loaded, and how far they are."""
        ways = (*self.arrivals.arriving().values(), *(loading.progress for loading in self._loading.values()))
        return [progress.now() for progress in ways]

    def unload(self, model_id: str) -> bool:
        """Drop a loaded model; `ResourceError` while a run uses it, False when it is not loaded."""
        found = [name for name in self.cache.get_vram_models() if name == model_id or name.startswith(model_id + "#")]
        if any(self.cache.is_pinned(name) for name in found):
            raise ResourceError("model_in_use")
        dropped = [name for name in found if self.cache.unload_model(name)]
        self.residency.forget_dropped()
        return bool(dropped)

    def close(self) -> None:
        for loading in self._loading.values():
            loading.cancel.set()
        self.arrivals.close()
        self.residency.close()

    def _request(self, annotation: Any, spec: ModelSpec, local: LocalModel, function: FunctionSpec) -> LoadRequest:
        if not self.cache.has_model(local.model_id):
            self.note_on_disk(local)
        return LoadRequest(annotation, local.path, self._device, spec.dtypes, local.digests, local.model_id, own_loaders(function.function))

    def _cache_id(self, local: LocalModel, request: LoadRequest) -> str:
        """`ref#Type`; with a third part where the same ref is there in another version or precision already."""
        name = f"{local.model_id}#{getattr(request.annotation, '__name__', request.annotation)}"
        state = f"{local.path}|{local.version}|{','.join(request.dtypes)}"
        if self._states.setdefault(name, state) == state:
            return name
        return f"{name}#{hashlib.sha256(state.encode()).hexdigest()[:8]}"

    async def _load(self, request: LoadRequest, local: LocalModel, step: ModelStep, emit: Emit) -> tuple[Lease, str, float]:
        cache_id = self._cache_id(local, request)
        hot = self.cache.get_pipeline(cache_id)
        if hot is not None:
            return self._lease(cache_id, hot), "hot_vram", 0.0
        began_s = time.monotonic()
        emit(RunEvent(events.LOAD_STARTED, step))

        def hear(now: ModelProgress) -> None:
            if now.phase == "loading" and now.bytes_done:  # of quick loads there is nothing to tell
                emit(RunEvent(events.MODEL_PROGRESS, now))

        try:
            lease = await self._loaded(cache_id, request, hear)
        except WorkerError as exc:
            emit(RunEvent(events.LOAD_FAILED, _ended(step, began_s, error_type=type(exc).__name__)))
            raise
        emit(RunEvent(events.LOAD_COMPLETED, _ended(step, began_s)))
        return lease, "warm_disk", time.monotonic() - began_s

    def _lease(self, cache_id: str, loaded: Loaded) -> Lease:
        self.cache.pin(cache_id)
        return Lease(loaded, lambda: self.cache.unpin(cache_id))

    async def _loaded(self, cache_id: str, request: LoadRequest, listener: Listener | None) -> Lease:
        """A lease on the model, loaded by whoever came first."""
        loading = self._loading.get(cache_id)
        if loading is None or loading.cancel.is_set():
            hot = self.cache.get_pipeline(cache_id)
            if hot is not None:
                return self._lease(cache_id, hot)
            loading = self._loading[cache_id] = _Loading(cache_id.partition("#")[0])
            loading.task = asyncio.ensure_future(self._load_now(cache_id, request, loading))
            loading.task.add_done_callback(_seen)
        assert loading.task is not None
        stop_listening = heard_on_the_loop(loading.progress, listener)
        loading.waiters += 1
        try:
            # Shielded: one waiter that gives up must not end the load for the others.
            return self._lease(cache_id, await asyncio.shield(loading.task))
        finally:
            stop_listening()
            loading.leave()

    async def _load_now(self, cache_id: str, request: LoadRequest, loading: _Loading) -> Loaded:
        began_s = time.monotonic()
        try:
            request = msgspec.structs.replace(request, economy=self.residency.economy_of(cache_id))
            loader = choose_loader(self._loaders, request)
            plan = await self.residency.plan(cache_id, lambda: loader.plan(request))
            loaded = await self.residency.load(cache_id, plan, loading.progress, loading.cancel)
        finally:
            if self._loading.get(cache_id) is loading:
                del self._loading[cache_id]
        loading.release = lambda: self.residency.release_load(plan)
        if not loading.waiters:
            loading.release()
        self.on_change()
        self._log.info(
            "model.loaded",
            model=loading.progress.model_id,
            size_bytes=round(self.cache.size_gb(cache_id) * GB),
            parts=len(plan.parts),
            seconds=round(time.monotonic() - began_s, 3),
        )
        return loaded


def _want(key: str, spec: ModelSpec, listings: Mapping[str, Listing]) -> ModelWant:
    return ModelWant(key, spec, listings.get(canonical_ref(spec.ref)))


def _seen(task: asyncio.Task[Loaded]) -> None:
    """Its waiters heard of a failure; where all had gone, nobody needs to."""
    if not task.cancelled():
        task.exception()


def _ended(step: ModelStep, began_s: float, **facts: Any) -> ModelStep:
    return msgspec.structs.replace(step, duration_ms=round((time.monotonic() - began_s) * 1000), **facts)
