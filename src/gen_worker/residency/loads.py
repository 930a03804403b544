"""Moves parts of models onto the device as the ledger decides. A part is reserved before its first byte moves, loaded
once however many runs wait for it, and dropped when the ledger evicts it.

Lives on one event loop; bytes move in its threads. When an allocation fails although the ledger says that the part
fits, `_load_part` evicts more and tries again.
"""

import asyncio
import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gen_worker.content.measured import LOAD, Measurements
from gen_worker.content.progress import Progress
from gen_worker.errors import FatalError, ResourceError, RetryableError, WorkerError
from gen_worker.foreign import contained
from gen_worker.interpreter import TURNS
from gen_worker.log import Log
from gen_worker.outcome import ToldError
from gen_worker.residency.accounting import GB, ModelCache
from gen_worker.residency.device import Device, DeviceFullError, DeviceMemory
from gen_worker.residency.forms import FormId, model_of
from gen_worker.residency.host_tier import file_key
from gen_worker.residency.ledger import DoesNotFitError, Ledger, Part
from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, PartPlan
from gen_worker.residency.loaders.skeletons import Skeletons
from gen_worker.residency.reader import ReadCanceledError
from gen_worker.texts import class_name, text_of

LOAD_THREADS = 2
FEW_TENSORS = 8
GUESSED_BYTES_S = 1e9  # bytes/s assumed for a part that was never loaded here
EVICT_FACTOR = 1.25
TELLING_BYTES = 16 << 20  # for smaller parts the load time says little about the rate
HELD_RETRY_S = 0.05
HELD_TIMEOUT_S = 60.0


class Residency:
    """Parts on one device. `ledger` accounts for it (by default the cache's first one).

    With `skeletons`, the modules of evicted parts are kept without their weights; code that still holds such a module
    finds it empty. `working` returns how many functions run at the moment.
    """

    def __init__(
        self,
        cache: ModelCache,
        device: Callable[[], Device],
        measurements: Measurements,
        log: Log,
        ledger: Ledger | None = None,
        skeletons: Skeletons | None = None,
        working: Callable[[], int] = lambda: 0,
    ) -> None:
        self.skeletons = skeletons
        self._working = working
        self._cache = cache
        self._ledger = ledger or cache.ledger
        self._device = device
        self._measurements = measurements
        self._log = log
        self._objects: dict[str, Any] = {}  # loaded objects by part id
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(LOAD_THREADS, thread_name_prefix="model-load")
        self.ooms = 0
        self._plans: dict[str, LoadPlan] = {}  # the latest load plan by cache id
        self._stamps: dict[str, tuple[Any, Any]] = {}  # by cache id: what its plan was made for, and the state of its files at that time
        self._saving_levels: dict[str, int] = {}  # by cache id: how many of its plan's memory savings are in use

    async def load(self, cache_id: str, plan: LoadPlan, progress: Progress, cancel: threading.Event) -> Loaded:
        """Load the model: all its parts on the device, pinned once for the caller. The errors are fit to be a run's
        outcome.

        `ResourceError` when there is no room even with everything evictable gone; `FatalError` when it cannot be
        loaded.
        """
        while True:
            try:
                return await self._load(cache_id, plan, progress, cancel)
            except ReadCanceledError:
                # Another load began this part and all its waiters have left. Ours still needs it.
                if cancel.is_set():
                    raise RetryableError(f"the load of {cache_id.partition('#')[0]} was stopped") from None

    async def _load(self, cache_id: str, plan: LoadPlan, progress: Progress, cancel: threading.Event) -> Loaded:
        parts = [self._as_booked(part) for part in plan.parts]
        new = await self._reserve(cache_id, parts, cancel)
        progress.begin("loading", sum(part.size_bytes for part in plan.parts if part.part_id in new))
        model = model_of(cache_id)
        control = LoadControl(
            progress.add, cancel, lambda reason: self._log.info("model.loaded_by_library", model=model, reason=reason), self._working
        )
        by_id = {part.part_id: part for part in plan.parts}
        try:
            for part_id in new:
                task = asyncio.ensure_future(self._load_part(by_id[part_id], control))
                self._loading[part_id] = task
                task.add_done_callback(self._forgetter(part_id))
            tasks = [self._loading[part_id] for part_id in by_id if part_id in self._loading]
            if tasks:
                await asyncio.wait(tasks)
            failures = [failure for task in tasks if (failure := task.exception()) is not None]
            if failures:
                raise failures[0]
            loaded: Loaded = await self._in_thread(lambda: plan.assemble({name: self._objects[name] for name in by_id}))
        except (Exception, asyncio.CancelledError) as exc:
            self._ledger.unpin(by_id)
            if isinstance(exc, (WorkerError, ReadCanceledError, asyncio.CancelledError)):
                raise
            raise self._translated(exc, cache_id) from exc
        self._cache.hold_parts(self._ledger, cache_id, loaded, tuple(by_id), sum(map(self._ledger.size_of, by_id)) / GB)
        progress.loaded_bytes = sum(map(self._ledger.size_of, new))
        progress.begin("ready")
        return loaded

    async def plan(self, cache_id: str, make: Callable[[], LoadPlan], made_for: Any = None) -> LoadPlan:
        """Ask a loader what it would load. The answer is kept while `made_for` and the files are unchanged. Raises what `load` raises."""
        try:
            plan: LoadPlan = await self._in_thread(lambda: self.plan_now(cache_id, make, made_for))
        except WorkerError:
            raise
        except Exception as exc:
            raise self._translated(exc, cache_id) from exc
        return plan

    def plan_now(self, cache_id: str, make: Callable[[], LoadPlan], made_for: Any) -> LoadPlan:
        """Like `plan`, in the calling thread. Raises the loader's own errors."""
        known = self._plans.get(cache_id)
        if known is not None and known.stamp is not None and made_for is not None:
            stamp = known.stamp()
            if self._stamps.get(cache_id) == (made_for, stamp):
                return known
        plan = make()
        self._stamps[cache_id] = (made_for, plan.stamp() if plan.stamp is not None else None)
        self._plans[cache_id] = plan
        return plan

    def build_ahead(self, plan: LoadPlan) -> int:
        """Build what a plan's parts need besides their weights; the number of parts built. Blocks; callable from any thread."""
        with TURNS.long():
            return sum(part.build_ahead(self._working) for part in plan.parts if part.build_ahead is not None)

    async def view(self, cache_id: str, make: Callable[[], Any]) -> Any:
        """Call `make` in a loading thread: the object that a run is given. The errors are fit to be a run's outcome."""
        try:
            return await self._in_thread(make)
        except WorkerError:
            raise
        except Exception as exc:
            raise self._translated(exc, cache_id) from exc

    def saving_level_of(self, cache_id: str) -> int:
        """How many memory savings the model is to be loaded with."""
        return self._saving_levels.get(cache_id, 0)

    async def relieve(self, model_ids: Collection[str]) -> None:
        """A run with these models has run out of device memory. Evicts unused parts worth a quarter of the device, so
        that the next run fits. When only parts of these very models could be evicted, they are reloaded with one more
        memory saving.
        """
        used = [name for name in self._cache.models_on(self._ledger) if model_of(name) in model_ids]
        own = {part.part_id for name in used if name in self._plans for part in self._plans[name].parts}
        gone = self._ledger.evict(self._ledger.capacity_bytes // 4)
        self._drop(gone, "out_of_memory_in_a_run")
        await self._in_thread(lambda: self._device().collect())
        if own.issuperset(gone):
            for cache_id in used:
                self._economize(cache_id)

    def make_room_for_work(self) -> None:
        """Evict unused parts until the functions' own work has the memory it is known to need."""
        self._drop(self._ledger.trim(), "room_for_work")

    def _economize(self, cache_id: str) -> None:
        plan, level = self._plans.get(cache_id), self.saving_level_of(cache_id)
        if plan is None or self._cache.is_pinned(cache_id):
            return  # other runs hold it; once they are gone there may be enough
        model = model_of(cache_id)
        if level == len(plan.savings):
            self._log.warning("model.does_not_fit", model=model, savings=list(plan.savings))
            return
        self._saving_levels[cache_id] = level + 1
        self._cache.unload_model(cache_id)
        self.forget_dropped()
        self._log.warning("model.economized", model=model, step=plan.savings[level])

    def in_host_memory(self) -> dict[str, int]:
        """Bytes of each model held by the host tier, by model id."""
        found: dict[str, int] = {}
        for cache_id, plan in self._plans.items():
            size_bytes = sum(part.size_bytes for part in plan.parts if self._is_in_host(part))
            if size_bytes:
                model_id = model_of(cache_id)
                found[model_id] = max(size_bytes, found.get(model_id, 0))
        return found

    def _is_in_host(self, part: PartPlan) -> bool:
        # a part with files was planned for a device, so the device is known here
        if not part.files or (host := self._device().host) is None:
            return False
        try:
            return all(host.holds(file_key(path)) for path in part.files)
        except OSError:
            return False

    def release_load(self, plan: LoadPlan) -> None:
        """Give back the pins that `load` took."""
        self._ledger.unpin([part.part_id for part in plan.parts])

    def forget_dropped(self) -> None:
        """Release the objects whose parts the ledger no longer has."""
        self._let_go([name for name in self._objects if not self._ledger.are_resident((name,))])

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forgetter(self, part_id: str) -> Callable[["asyncio.Task[None]"], None]:
        def forget(task: "asyncio.Task[None]") -> None:
            if self._loading.get(part_id) is task:  # otherwise the part is already being loaded again
                del self._loading[part_id]

        return forget

    async def _reserve(self, cache_id: str, parts: list[Part], cancel: threading.Event) -> list[str]:
        """Reserve the missing parts. When others hold the room for the moment, wait a while for it."""
        deadline_s = time.monotonic() + HELD_TIMEOUT_S
        while True:
            try:
                new, gone = self._ledger.reserve(parts)
                break
            except DoesNotFitError as exc:
                hopeless = exc.need_bytes > self._ledger.limit_bytes
                text = f"model {cache_id.partition('#')[0]!r} does not fit: {exc}"
                if hopeless:
                    raise ResourceError(f"{text}; raise WORKER_MAX_VRAM_GB or use a smaller model") from None
                if time.monotonic() > deadline_s:
                    raise RetryableError(f"{text}; other runs have used it for {HELD_TIMEOUT_S:.0f} s") from None
            await asyncio.sleep(HELD_RETRY_S)
            if cancel.is_set():
                raise ReadCanceledError
        if gone:
            self._drop(gone, "room")
        return new

    def _drop(self, part_ids: list[str], reason: str) -> None:
        if not part_ids:
            return
        self._cache.parts_gone(self._ledger, part_ids)
        self._let_go(part_ids)
        self._log.info("model.evicted", parts=len(part_ids), reason=reason)

    def _let_go(self, part_ids: list[str]) -> None:
        for part_id in part_ids:
            dropped = self._objects.pop(part_id, None)
            held = self.skeletons.strip(part_id) if self.skeletons is not None else []
            on_drop = dropped.on_drop if isinstance(dropped, Loaded) else None
            held.append(dropped)
            del dropped  # from here on, only the list holds a reference
            # A device's memory is freed here, at once, because the next run or load needs it. Host memory is freed in a
            # thread: returning the weights of an SDXL to the system blocked the loop for up to 26 ms, and an author's
            # object may run code when it is destroyed.
            with contextlib.suppress(RuntimeError):  # the pool is closed: free it here
                if self._device().name == "cpu":
                    self._threads.submit(_let_go_of, held)
                if on_drop is not None:
                    self._threads.submit(self._drop_it, on_drop)
            del held

    def _drop_it(self, on_drop: Callable[[], None]) -> None:
        try:
            contained(on_drop)
        except Exception as exc:  # noqa: BLE001 - a manager's own; the ledger has forgotten the model whatever it says
            self._log.error("model.drop_failed", error=text_of(exc))

    async def _load_part(self, part: PartPlan, control: LoadControl) -> None:
        """Load one part. When memory runs out: evict what is missing, return unused memory to the device, and try
        again; then evict more, as long as anything can be evicted.
        """
        ledger, began_s, from_disk = self._ledger, time.monotonic(), not self._is_in_host(part)
        try:
            with TURNS.long():
                loaded, size_bytes = await self._load_or_make_room(part, control)
            if size_bytes != ledger.size_of(part.part_id):
                self._drop(ledger.resize(part.part_id, size_bytes), "larger_than_thought")
        except BaseException:
            ledger.abort(part.part_id)
            raise
        load_s = time.monotonic() - began_s
        self._measurements.note(part.part_id, size_bytes, load_s)
        if from_disk and size_bytes >= TELLING_BYTES:
            self._measurements.note_rate(LOAD, round(size_bytes / load_s))
        self._objects[part.part_id] = loaded
        ledger.commit(part.part_id, size_bytes)

    async def _load_or_make_room(self, part: PartPlan, control: LoadControl) -> tuple[Any, int]:
        need_bytes, gone, tries = part.size_bytes, ["at first"], 0
        while True:
            try:
                loaded: tuple[Any, int] = await self._in_thread(lambda: part.load(control))
                return loaded
            except Exception as exc:
                if not is_out_of_memory(exc) or not gone:
                    raise
                traceback.clear_frames(exc.__traceback__)  # the frames hold what the failed attempt had allocated
                need_bytes = max(need_bytes, exc.need_bytes if isinstance(exc, DeviceFullError) else 0)
            self.ooms += 1
            tries += 1
            gone = self._ledger.evict(await self._missing_bytes(need_bytes, tries))
            self._drop(gone, "out_of_memory")
            self._log.warning("model.out_of_memory", size_bytes=part.size_bytes, evicted=len(gone))
            await self._in_thread(lambda: self._device().collect())

    async def _missing_bytes(self, need_bytes: int, tries: int) -> int:
        """How many bytes to evict before the load is tried again.

        The first time, what the device itself reports as missing. If that was not enough, its memory is fragmented, and
        each further try evicts more.
        """
        if tries > 1:
            return round(need_bytes * EVICT_FACTOR) << (tries - 2)
        memory: DeviceMemory = await self._in_thread(lambda: self._device().memory())
        return max(1, need_bytes - memory.free_bytes)

    def _as_booked(self, part: PartPlan) -> Part:
        """What to reserve: the size it had when it was last here, if that was more than its files say."""
        known = self._measurements.of(part.part_id)
        if known is None:
            return Part(part.part_id, part.size_bytes, part.size_bytes / GUESSED_BYTES_S)
        size_bytes = max(part.size_bytes, known.size_bytes)
        return Part(part.part_id, size_bytes, known.load_s or size_bytes / GUESSED_BYTES_S)

    def _translated(self, exc: Exception, cache_id: str) -> WorkerError:
        model = model_of(cache_id)
        if is_out_of_memory(exc) or isinstance(exc, DoesNotFitError):
            return ResourceError(f"insufficient_vram: not enough memory to load {model}: {exc}")
        error = f"{exc.raised if isinstance(exc, ToldError) else class_name(exc)}: {text_of(exc)}"
        self._log.error("model.load_failed", model=model, error=error)
        return FatalError(f"model {model} could not be loaded as {FormId.read(cache_id).type_name}: {error}")

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        # In a list, because a pool thread keeps a reference to its last argument until its next job, and with it device memory.
        box: list[Any] = []
        await asyncio.get_running_loop().run_in_executor(self._threads, contained, lambda: box.append(work()))
        return box.pop()


def _let_go_of(held: list[Any]) -> None:
    """In a thread: free tensors and objects, and yield the interpreter's lock after every few of them."""
    while held:
        del held[-FEW_TENSORS:]
        time.sleep(0)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether an exception says that memory ran out: ours, torch's (by name, for any version), Python's."""
    if isinstance(exc, ToldError):
        return exc.failure.out_of_memory
    return isinstance(exc, (DeviceFullError, MemoryError)) or type(exc).__name__ in ("OutOfMemoryError", "CUDAOutOfMemoryError")
