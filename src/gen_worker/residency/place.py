"""One device with the models on it. Each model is loaded once, however many runs wait, and pinned while a run uses it.
Lives on one event loop.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from gen_worker.content.measured import Measurements
from gen_worker.content.progress import Listener, Progress
from gen_worker.log import Log
from gen_worker.residency.accounting import GB, ModelCache
from gen_worker.residency.device import Device
from gen_worker.residency.devices import DeviceSet
from gen_worker.residency.forms import FormId, model_of
from gen_worker.residency.headroom import Headroom
from gen_worker.residency.ledger import Ledger
from gen_worker.residency.loaders.base import Loaded, Loader, LoadPlan, LoadRequest, choose_loader
from gen_worker.residency.loaders.skeletons import Skeletons
from gen_worker.residency.loads import Residency
from gen_worker.residency.placement import Offer
from gen_worker.sources.arrivals import heard_on_the_loop


class Lease:
    """A loaded model, pinned until `release`."""

    def __init__(self, loaded: Loaded, release: Callable[[], None]) -> None:
        self.loaded_bytes = 0  # bytes moved to the device for this lease
        self.view = loaded.view
        self.view_blocks = loaded.view_blocks
        self.release = release


class _Loading:
    """A model being loaded, and the number of runs that wait for it."""

    def __init__(self, model_id: str) -> None:
        self.progress = Progress(model_id)
        self.cancel = threading.Event()
        self.waiters = 0
        self.task: asyncio.Task[Loaded] | None = None
        self.release: Callable[[], None] = lambda: None  # gives back the pins held by the load itself

    def leave(self) -> None:
        """A waiter has left. The last one also gives back the load's own pin, or cancels the load."""
        self.waiters -= 1
        if not self.waiters:
            self.cancel.set()
            release, self.release = self.release, lambda: None
            release()


class Place:
    """`runs` counts the runs that were sent here and have not ended. `on_change` is called when the loaded models have changed."""

    def __init__(
        self,
        number: int,
        cache: ModelCache,
        ledger: Ledger,
        devices: DeviceSet,
        measurements: Measurements,
        log: Log,
        margin_bytes: int,
        on_change: Callable[[], None],
    ) -> None:
        self.number = number
        self.device: Callable[[], Device] = partial(devices.get, number)
        self.runs = 0
        self.headroom = Headroom(partial(devices.used, number), ledger, measurements, margin_bytes)
        self.residency = Residency(cache, self.device, measurements, log, ledger, Skeletons(), lambda: self.headroom.working)
        self._on_change = on_change
        self._cache = cache
        self._ledger = ledger
        self._measurements = measurements
        self._log = log
        self._loading: dict[str, _Loading] = {}

    def cache_id(self, name: str) -> str:
        """The model's name in the cache when it is loaded on this device."""
        return str(msgspec.structs.replace(FormId.read(name), place=self.number))

    def hot(self, name: str) -> Lease | None:
        """A lease on a model that is already loaded, else None."""
        cache_id = self.cache_id(name)
        loaded = self._cache.get_pipeline(cache_id)
        return self._lease(cache_id, loaded) if loaded is not None else None

    async def lease(self, name: str, request: LoadRequest, loaders: Sequence[Loader], listener: Listener | None) -> Lease:
        """A lease on the model. The first caller loads it, the others wait for that load. Raises what `Residency.load` raises."""
        cache_id = self.cache_id(name)
        loading, is_first = self._loading.get(cache_id), False
        if loading is None or loading.cancel.is_set():
            hot = self.hot(name)
            if hot is not None:
                return hot
            loading, is_first = _Loading(model_of(cache_id)), True
            self._loading[cache_id] = loading
            loading.task = asyncio.ensure_future(self._load(cache_id, request, loaders, loading))
            loading.task.add_done_callback(_seen)
        assert loading.task is not None
        stop_listening = heard_on_the_loop(loading.progress, listener)
        loading.waiters += 1
        try:
            # Shielded: a waiter that gives up must not end the load for the others.
            lease = self._lease(cache_id, await asyncio.shield(loading.task))
            lease.loaded_bytes = loading.progress.loaded_bytes if is_first else 0  # counted once, however many runs wait for the load
            return lease
        finally:
            stop_listening()
            loading.leave()

    async def made_view(self, name: str, lease: Lease) -> Lease:
        """The lease, with its view already made if making it could block. An error gives the lease back."""
        if lease.view_blocks:
            try:
                made = await self.residency.view(self.cache_id(name), lease.view)
            except BaseException:
                lease.release()
                raise
            lease.view = lambda: made
        return lease

    def begin_work(self, function: str) -> Callable[[], None]:
        """A function begins with its models loaded. Call the returned function when it has ended."""
        end = self.headroom.begin(function)
        if self.headroom.spare_bytes:
            self.residency.make_room_for_work()
        return end

    def is_here(self, name: str) -> bool:
        """Whether a model is on the device."""
        return self._cache.is_in_vram(self.cache_id(name))

    def size_bytes(self, name: str) -> int:
        """The bytes that a model takes on the device; 0 when it is not loaded."""
        return round(self._cache.size_gb(self.cache_id(name)) * GB)

    def offer(self, forms: Sequence[str]) -> Offer:
        """What a run with these models would find on this device. Models are named `ref#Type` (see `form_name`)."""
        here = {form_of(cache_id) for cache_id in (*self._cache.models_on(self._ledger), *self._loading)}
        known = [self._measurements.of(measured_name(form)) for form in forms if form not in here]
        need = sum(measured.size_bytes for measured in known if measured is not None)
        missing_s = sum(measured.load_s for measured in known if measured is not None)
        free_bytes = max(0, self._ledger.capacity_bytes - self._ledger.used_bytes)
        return Offer(self.number, missing_s, self.runs, self._ledger.harm_s(need), free_bytes)

    def on_their_way(self) -> list[Progress]:
        return [loading.progress for loading in self._loading.values()]

    def close(self) -> None:
        for loading in self._loading.values():
            loading.cancel.set()
        self.residency.close()

    def _lease(self, cache_id: str, loaded: Loaded) -> Lease:
        return Lease(loaded, self._cache.pin(cache_id).release)

    def build_ahead(self, name: str, request: LoadRequest, loaders: Sequence[Loader]) -> int:
        """Build what a model's first load would build, without weights; the number of parts built.

        Blocks; callable from any thread. Raises its loader's errors.
        """
        cache_id = self.cache_id(name)
        return self.residency.build_ahead(self.residency.plan_now(cache_id, *self._planned(cache_id, request, loaders)))

    def _planned(self, cache_id: str, request: LoadRequest, loaders: Sequence[Loader]) -> tuple[Callable[[], LoadPlan], Any]:
        """A function that makes the plan of a load, and the value that the plan depends on."""
        request = msgspec.structs.replace(
            request, device=self.device, saving_level=self.residency.saving_level_of(cache_id), skeletons=self.residency.skeletons
        )
        loader = choose_loader(loaders, request)
        made_for = (request.annotation, request.path, tuple(request.dtypes), dict(request.digests), request.saving_level)
        return lambda: loader.plan(request), made_for

    async def _load(self, cache_id: str, request: LoadRequest, loaders: Sequence[Loader], loading: _Loading) -> Loaded:
        began_s = time.monotonic()
        try:
            plan = await self.residency.plan(cache_id, *self._planned(cache_id, request, loaders))
            loaded = await self.residency.load(cache_id, plan, loading.progress, loading.cancel)
        finally:
            if self._loading.get(cache_id) is loading:
                del self._loading[cache_id]
        loading.release = lambda: self.residency.release_load(plan)
        if not loading.waiters:
            loading.release()
        self._on_change()
        model_id, size_bytes, seconds = loading.progress.model_id, round(self._cache.size_gb(cache_id) * GB), time.monotonic() - began_s
        self._measurements.note(measured_name(form_of(cache_id)), size_bytes, seconds)
        self._log.info("model.loaded", model=model_id, size_bytes=size_bytes, parts=len(plan.parts), seconds=round(seconds, 3))
        return loaded


def form_name(model_id: str, annotation: Any) -> str:
    """`ref#Type`: a model as one type, such as its pipeline, or its tokenizer."""
    return str(FormId.of(model_id, annotation))


def form_of(cache_id: str) -> str:
    """The form in a cache name, without its version, precision and device."""
    return str(FormId.read(cache_id).form)


def measured_name(form: str) -> str:
    """The name under which a form's size and load time are kept."""
    return f"model: {form}"


def _seen(task: "asyncio.Task[Loaded]") -> None:
    """Mark the failure as seen: its waiters were told. When all waiters have left, nobody needs to know."""
    if not task.cancelled():
        task.exception()
