"""The entry point for models: `acquire` returns a lease on a loaded object. Each model is fetched and loaded once,
however many runs wait.

With several devices, `seat` chooses the one for a run.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_worker import events
from gen_worker.authoring.signature import FunctionSpec, Injection
from gen_worker.content.cas import Cas
from gen_worker.content.listing import Listing
from gen_worker.content.measured import Measurements
from gen_worker.content.progress import Listener
from gen_worker.contract.progress import ModelProgress
from gen_worker.errors import ResourceError, WorkerError
from gen_worker.events import CacheState, ModelStep, RunEvent
from gen_worker.log import Log
from gen_worker.project.injectable import own_loaders
from gen_worker.refs import ModelSpec, canonical_ref
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.ahead import Ahead
from gen_worker.residency.devices import DeviceSet
from gen_worker.residency.forms import FormId, model_of
from gen_worker.residency.loaders.base import Loader, LoadRequest
from gen_worker.residency.loaders.diffusers import DiffusersLoader
from gen_worker.residency.loaders.lora import LoraLoader
from gen_worker.residency.loaders.onnx import OnnxLoader
from gen_worker.residency.loaders.own import OwnLoader
from gen_worker.residency.loaders.path import PathLoader
from gen_worker.residency.loaders.plain import PlainLoader
from gen_worker.residency.loaders.sentence import SentenceLoader
from gen_worker.residency.loaders.task_pipelines import TaskPipelineLoader
from gen_worker.residency.loaders.transformers import TransformersLoader
from gen_worker.residency.place import Lease, Place, form_name
from gen_worker.residency.placement import choose_place
from gen_worker.residency.seat import Seat
from gen_worker.residency.takers import takers_of
from gen_worker.sources.arrivals import Arrivals
from gen_worker.sources.hub import local_model
from gen_worker.sources.keyspace import Keyspace
from gen_worker.sources.source import LocalModel, ModelSource, ModelWant

GUESSED_RUN_S = 1.0  # seconds assumed for a function that has not run yet
Emit = Callable[[RunEvent], None]
DEFAULT_LOADERS: tuple[Loader, ...] = (
    OwnLoader(),
    PathLoader(),
    LoraLoader(),
    DiffusersLoader(),
    SentenceLoader(),
    TaskPipelineLoader(),
    TransformersLoader(),
    OnnxLoader(),
    PlainLoader(),
)


class ModelUse(msgspec.Struct, frozen=True):
    """How a run got one of its models. Seconds are this run's own waiting. Bytes count only if this run's fetch or load moved them."""

    model_id: str
    cache_state: CacheState
    load_s: float
    fetch_s: float = 0.0
    version: str = ""
    fetched_bytes: int = 0
    path: Path | None = None  # where its files are; never sent off this machine
    localized: bool = False
    loaded_bytes: int = 0


class LoadedModels:
    """Keeps loaded models within the limits of each device. Lives on one event loop; downloads and loads have their own
    threads.

    `on_change` is called on the loop when the models on a device have changed. `on_arrival` is called for each model
    whose files are on disk, with the classes that load it (`takers_of`) and a function that builds ahead what its first
    loads need (it blocks, runs in any thread, and returns the number of parts built).
    """

    def __init__(
        self,
        keyspace: Keyspace,
        source: ModelSource,
        cache: ModelCache,
        devices: DeviceSet,
        log: Log,
        loaders: Sequence[Loader] = DEFAULT_LOADERS,
        *,
        downloads: int = 2,
        measured: Path | None = None,
        margin_bytes: int = 0,
        looks_ahead: bool = False,
        on_change: Callable[[], None] = lambda: None,
        on_close: Callable[[], None] = lambda: None,
        on_arrival: Callable[[LocalModel, Sequence[str], Callable[[], int]], None] = lambda local, takers, build: None,
        is_right: Callable[[LocalModel], bool] = lambda local: True,
    ) -> None:
        self._keyspace = keyspace
        self.cache = cache
        measurements = self.measurements = Measurements(measured)
        self.arrivals = Arrivals(source, downloads, measurements, is_right)
        self.places = [
            Place(number, cache, ledger, devices, measurements, log, margin_bytes, on_change) for number, ledger in enumerate(cache.ledgers)
        ]
        self._devices = devices
        self._on_close = on_close
        self._on_arrival = on_arrival
        self._loaders = loaders
        self._log = log
        self.ahead = Ahead(self.places, loaders, log) if looks_ahead else None
        self._run_s: dict[str, float] = {}  # seconds by function; recent runs weigh most
        self._states: dict[str, str] = {}  # the version and precision that a plain cache id stands for

    @property
    def keyspace(self) -> Keyspace:
        """The models that functions may select now."""
        return self._keyspace

    def select_by(self, keyspace: Keyspace) -> None:
        """From now on, functions select from this keyspace. Loaded models and runs in progress stay."""
        self._keyspace = keyspace

    def seat(self, spec: FunctionSpec, payload: msgspec.Struct) -> Seat:
        """Choose one device for all models of a run; give it back with `release`. An invalid selection is reported by `acquire`."""
        chosen = []
        for injection in spec.injections:
            with contextlib.suppress(WorkerError):
                chosen.append(form_name(canonical_ref(self.keyspace.select(spec, injection, payload)[1].ref), injection.type))
        return self.seat_for(spec.name, chosen)

    def seat_for(self, function: str, forms: Sequence[str]) -> Seat:
        """Choose a device for models named by their forms, `ref#Type` (see `form_name`)."""
        places = self.places[: self._devices.count]
        if len(places) == 1:
            return Seat(places[0], function, None, self._left)
        number = choose_place([place.offer(forms) for place in places], self._run_s.get(function, GUESSED_RUN_S))
        return Seat(places[number], function, self._devices.name(number), self._left)

    def note_run(self, function: str, seconds: float) -> None:
        """Record how long a run of a function took, without waiting for its models."""
        self._run_s[function] = self._run_s.get(function, seconds) * 0.7 + seconds * 0.3

    async def relieve(self, seat: Seat, model_ids: Collection[str]) -> None:
        """A run has run out of its device's memory; see `Residency.relieve`."""
        await seat.place.residency.relieve(model_ids)

    async def acquire(
        self,
        spec: FunctionSpec,
        injection: Injection,
        payload: msgspec.Struct,
        emit: Emit,
        listings: Mapping[str, Listing] = {},
        seat: Seat | None = None,
    ) -> tuple[Lease, ModelUse]:
        """The model for one parameter of a run, loaded and pinned. Emits an event for each step. `listings`: files by
        canonical ref, as a scheduler sent them. Without a seat, the first device is used.
        """
        return await self._acquire(spec, injection, lambda: self.keyspace.select(spec, injection, payload), emit, listings, seat)

    async def acquire_ref(
        self, spec: FunctionSpec, injection: Injection, ref: str, emit: Emit, listings: Mapping[str, Listing] = {}, seat: Seat | None = None
    ) -> tuple[Lease, ModelUse]:
        """Like `acquire`, for a model named by the scheduler. It must be one that the function may use."""
        return await self._acquire(spec, injection, lambda: self.keyspace.find_ref(spec, ref), emit, listings, seat)

    async def _acquire(
        self,
        spec: FunctionSpec,
        injection: Injection,
        select: Callable[[], tuple[str, ModelSpec]],
        emit: Emit,
        listings: Mapping[str, Listing],
        seat: Seat | None,
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
            want = self._want(key, model_spec, (spec,), listings)
            local = await self.arrivals.locate(want, hear)
        except WorkerError as exc:
            emit(RunEvent(events.RESOLVE_FAILED, _ended(step, began_s, error_type=type(exc).__name__)))
            raise
        fetch_s = time.monotonic() - began_s if fetched else 0.0
        emit(RunEvent(events.RESOLVE_COMPLETED, _ended(step, began_s, model_id=local.model_id, model_key=key)))
        step = msgspec.structs.replace(step, model_id=local.model_id)
        request = self._request(injection.type, model_spec, local, spec)
        lease, state, load_s = await self._load(seat, request, local, step, emit)
        fetched_bytes = local.fetched_bytes if fetched else 0
        state = "cold_remote" if fetched else state
        use = ModelUse(
            local.model_id, state, load_s, fetch_s, local.version, fetched_bytes, local.path, local.localized, lease.loaded_bytes
        )
        return lease, use

    async def load(self, key: str, spec: ModelSpec, function: FunctionSpec, injection: Injection) -> None:
        """Load a model before its first run, the way this function uses it."""
        local = await self.arrivals.locate(self._want(key, spec, (function,)))
        request = self._request(injection.type, spec, local, function)
        seat = self.seat_for(function.name, [form_name(local.model_id, injection.type)])
        try:
            (await seat.place.lease(self._name(local, request), request, self._loaders, None)).release()
        finally:
            seat.release()

    async def prefetch(
        self,
        key: str,
        spec: ModelSpec,
        listings: Mapping[str, Listing] = {},
        listener: Listener | None = None,
        functions: Iterable[FunctionSpec] = (),
    ) -> tuple[LocalModel, bool]:
        """Download a model's files without loading them; True if they were already here. `functions`: those that may
        use it. The classes that they load it as decide which files are needed.
        """
        want = self._want(key, spec, functions, listings)
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
        self._arrived(local, want, spec, functions)
        return local, not fetched

    async def inventory(self, cas: Cas, functions: Iterable[FunctionSpec] = ()) -> list[str]:
        """Look through the store and for every declared model, as these functions use it. The refs on this disk, sorted."""
        functions = tuple(functions)
        for ref, snapshot in await self.arrivals.look(lambda: list(cas.inventory())):
            self.note_on_disk(local_model(ref, snapshot))
        await self.find_declared(functions)
        return sorted(self.cache.get_disk_models())

    async def find_declared(self, functions: Iterable[FunctionSpec]) -> None:
        """Look for every declared model, as these functions use it. Models found on disk are recorded and prepared for
        their first load.
        """
        functions = tuple(functions)
        for ref, (key, spec) in self.keyspace.refs().items():
            try:
                want = self._want(key, spec, functions)
                local = await self.arrivals.present(want)
            except Exception as exc:  # noqa: BLE001 - a ref or a folder that cannot be used must not hide the other models
                self._log.warning("model.not_looked_up", model=ref[:200], error=f"{type(exc).__name__}: {exc}")
                continue
            if local is None:
                continue
            self._arrived(local, want, spec, functions)
            if not self.cache.has_model(canonical_ref(ref)):
                self.note_on_disk(local)

    def note_on_disk(self, local: LocalModel) -> None:
        """Record a model whose files are on disk. Its loaded forms have entries of their own."""
        self.cache.mark_cached_to_disk(local.model_id, local.path)

    def on_their_way(self) -> list[ModelProgress]:
        """Models that are being fetched or loaded, with their progress."""
        loading = [progress for place in self.places for progress in place.on_their_way()]
        return [progress.now() for progress in (*self.arrivals.arriving().values(), *loading)]

    def in_host_memory(self) -> dict[str, int]:
        """Bytes of each model held by the host tier, by model id."""
        found: dict[str, int] = {}
        for place in self.places:  # all devices share the tier
            for model_id, size_bytes in place.residency.in_host_memory().items():
                found[model_id] = max(size_bytes, found.get(model_id, 0))
        return found

    def unload(self, model_id: str) -> bool:
        """Drop a loaded model. `ResourceError` while a run uses it; False when it is not loaded."""
        found = [name for name in self.cache.get_vram_models() if model_of(name) == model_id]
        if any(self.cache.is_pinned(name) for name in found):
            raise ResourceError("model_in_use")
        if self.ahead is not None:
            self.ahead.forget(model_id)
        dropped = [name for name in found if self.cache.unload_model(name)]
        for place in self.places:
            place.residency.forget_dropped()
        return bool(dropped)

    def close(self) -> None:
        if self.ahead is not None:
            self.ahead.stop()
        self.arrivals.close()
        for place in self.places:
            place.close()
        self._on_close()

    def _want(self, key: str, spec: ModelSpec, functions: Iterable[FunctionSpec], listings: Mapping[str, Listing] = {}) -> ModelWant:
        return ModelWant(key, spec, listings.get(canonical_ref(spec.ref)), takers_of(self.keyspace, functions, key))

    def _arrived(self, local: LocalModel, want: ModelWant, spec: ModelSpec, functions: Iterable[FunctionSpec]) -> None:
        takers = self.keyspace.takers(functions, want.key)
        requests = [self._request(injection.type, spec, local, function) for function, injection in takers]
        named = [(self._name(local, request), request) for request in requests]

        def build() -> int:  # only for the first device: while all are empty, the first loads go there
            return sum(self.places[0].build_ahead(name, request, self._loaders) for name, request in named)

        self._on_arrival(local, want.takers, build)

    def _left(self, seat: Seat) -> None:
        """A run has left its device: time to load ahead, starting from the largest of its models."""
        if self.ahead is not None and seat.names:
            self.ahead.run_ended(seat.place, max(seat.names, key=seat.place.size_bytes))

    def _request(self, annotation: Any, spec: ModelSpec, local: LocalModel, function: FunctionSpec) -> LoadRequest:
        if not self.cache.has_model(local.model_id):
            self.note_on_disk(local)
        return LoadRequest(
            annotation, local.path, self.places[0].device, spec.dtypes, local.digests, local.model_id, own_loaders(function.function)
        )

    def _name(self, local: LocalModel, request: LoadRequest) -> str:
        """`ref#Type`, with a third part when another version or precision of the same ref is already there."""
        name = form_name(local.model_id, request.annotation)
        state = f"{local.path}|{local.version}|{','.join(request.dtypes)}"
        if self._states.setdefault(name, state) == state:
            return name
        short = hashlib.sha256(state.encode()).hexdigest()[:8]
        return str(msgspec.structs.replace(FormId.read(name), state=short))

    async def _load(
        self, seat: Seat | None, request: LoadRequest, local: LocalModel, step: ModelStep, emit: Emit
    ) -> tuple[Lease, CacheState, float]:
        name, place = self._name(local, request), seat.place if seat else self.places[0]
        hot = place.hot(name)
        if seat is not None:
            seat.names.append(name)
            if self.ahead is not None:
                self.ahead.run_wants(name, request, is_hot=hot is not None)
        if hot is not None:
            return await place.made_view(name, hot), "hot_vram", 0.0
        began_s = time.monotonic()
        emit(RunEvent(events.LOAD_STARTED, step))

        def hear(now: ModelProgress) -> None:
            if now.phase == "loading" and now.bytes_done:  # loads that end quickly are not worth reporting
                emit(RunEvent(events.MODEL_PROGRESS, now))

        try:
            lease = await place.made_view(name, await place.lease(name, request, self._loaders, hear))
        except WorkerError as exc:
            emit(RunEvent(events.LOAD_FAILED, _ended(step, began_s, error_type=type(exc).__name__)))
            raise
        emit(RunEvent(events.LOAD_COMPLETED, _ended(step, began_s)))
        return lease, "warm_disk", time.monotonic() - began_s


def _ended(step: ModelStep, began_s: float, **facts: Any) -> ModelStep:
    return msgspec.structs.replace(step, duration_ms=round((time.monotonic() - began_s) * 1000), **facts)
