"""What a release means for models: adopts its configuration, fetches the models it requires, renews presigned URLs,
reports the disk's inventory.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import msgspec

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.content.cas import Cas
from gen_worker.content.disk import mount_of
from gen_worker.content.listing import Listing
from gen_worker.contract.progress import ModelProgress
from gen_worker.errors import RetryableError, WorkerError
from gen_worker.log import Log
from gen_worker.outcome import outcome_of
from gen_worker.refs import ModelSpec, canonical_ref, parse_model_ref
from gen_worker.residency.manager import LoadedModels
from gen_worker.runtime.duties import Duties
from gen_worker.runtime.voice import Voice
from gen_worker.sources.listings import listing_of
from gen_worker.sources.source import LocalModel
from gen_worker.wire.messages import (
    Event,
    ReleaseConfig,
    ResolvedModel,
    UrlRefreshRequest,
    UrlRefreshResponse,
)

RENEW_TIMEOUT_S = 60.0


class Releases:
    """Adopts configurations; whatever waits is a task of the worker. `busy` counts downloads for a release."""

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        models: LoadedModels,
        voice: Voice,
        duties: Duties,
        refresh: Callable[[], None],
        log: Log,
    ) -> None:
        self.resolved: dict[str, ResolvedModel] = {}  # by canonical ref: the defaults of every run
        self.listings: dict[str, Listing] = {}  # the same in the downloaders' format
        self.busy = 0
        self._baked = models.keyspace
        self._functions = functions
        self._models = models
        self._voice = voice
        self._duties = duties
        self._refresh = refresh
        self._log = log
        self._wanted: set[str] = set()
        self._store = Path()
        self._said: tuple[str, ...] = ()
        self._waiting: dict[str, list[Future[Listing]]] = {}  # waiting for fresh URLs, by model id
        self._loop = asyncio.get_running_loop()

    def adopt(self, config: ReleaseConfig) -> None:
        """Use this configuration from now on, and fetch what it requires."""
        tables = {
            function: {key: _spec(model.ref, model.dtypes) for key, model in table.models.items()}
            for function, table in config.models_by_function.items()
        }
        self._models.select_by(self._baked.adopted(tables, config.supported_refs, config.ref_by_key, self._functions))
        for function, models in tables.items():
            for key, spec in models.items():
                self._say_if_unreadable(function, key, spec.ref)
        for ref, resolved in config.resolved_models.items():
            self._resolve(ref, resolved)
        self._log.info("release.adopted", functions=len(tables), required=list(config.required_refs))
        for ref in config.required_refs:
            model_id = canonical_ref(ref)
            if model_id not in self._wanted:
                self._wanted.add(model_id)
                self._duties.start(self._prefetch(model_id), f"prefetch {model_id}", partial(self._refuse_prefetch, model_id))

    def take_urls(self, response: UrlRefreshResponse) -> None:
        """Use fresh URLs of a model's files."""
        self._resolve(response.model_id, response.resolved)

    def renew(self, model_id: str, old: Listing) -> Listing:
        """Fresh URLs for a model's files, from the scheduler. For download threads: blocks until they come, or raises
        `RetryableError`.
        """
        asked: Future[Listing] = Future()
        self._loop.call_soon_threadsafe(self._ask, model_id, asked)
        try:
            return asked.result(RENEW_TIMEOUT_S)
        except TimeoutError:
            raise RetryableError(f"the URLs of {model_id} have expired, and the scheduler sent no fresh ones") from None

    def take_inventory(self, cas: Cas) -> None:
        """Find out which models the disk holds, and report them."""
        self._duties.start(self._inventory(cas), "inventory", lambda error: None)  # the error is logged; missing models are fetched again

    def _resolve(self, ref: str, resolved: ResolvedModel) -> None:
        model_id = canonical_ref(ref)
        self.resolved[model_id] = resolved
        listing = self.listings[model_id] = listing_of(resolved)
        for waiter in self._waiting.pop(model_id, ()):
            if not waiter.done():
                waiter.set_result(listing)

    def _ask(self, model_id: str, asked: "Future[Listing]") -> None:
        self._waiting.setdefault(model_id, []).append(asked)
        self._say("model.url_refresh", model_id=model_id)
        self._voice.say(UrlRefreshRequest(model_id))

    async def _inventory(self, cas: Cas) -> None:
        self._store = cas.root
        await self._models.inventory(cas, self._functions.values())
        self._say_inventory()
        self._refresh()

    def _say_inventory(self) -> None:
        """Report the models on disk if they have changed since the last report."""
        found = tuple(sorted(self._models.cache.get_disk_models()))
        if found == self._said:
            return
        self._said = found
        mount = mount_of(self._store)
        self._say(
            "models.disk_inventory",
            disk_backend=mount.backend if mount else "local",
            disk_fstype=mount.fstype if mount else "",
            disk_volume_key=mount.volume_key if mount else "",
            disk_models=found,
        )

    async def _prefetch(self, model_id: str) -> None:
        """Fetch one model. Peers read the events in this order: `started`, `ready`, `cached`, `completed`, then a
        registration that lists the model. A model that is already here was not started: `completed` with `cached`,
        `ready`, `cached`.
        """
        began_s = time.monotonic()
        started = False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                self._say("model.download.started", model_id=model_id)

        def hear(now: ModelProgress) -> None:
            start()
            self._hear(now)

        self.busy += 1
        try:
            # A scheduler may require a model without a key: a ref that a coming run is pinned to.
            key, spec = self._models.keyspace.find(model_id) or ("", ModelSpec.checked(model_id))
            local, cached = await self._models.prefetch(key, spec, self.listings, hear, self._functions.values())
        except (WorkerError, ValueError) as exc:
            start()
            self._refuse_prefetch(model_id, exc, _ms(began_s))
        else:
            if cached:
                self._say_completed(model_id, cached=True, duration_ms=0)
            else:
                start()
            self._say_cached(model_id, local)
            if not cached:
                self._say_completed(model_id, cached=False, duration_ms=_ms(began_s))
            self._say_inventory()
        finally:
            self.busy -= 1
            self._wanted.discard(model_id)
        self._refresh()

    def _say_completed(self, model_id: str, *, cached: bool, duration_ms: int) -> None:
        self._say("model.download.completed", model_id=model_id, cached=cached, duration_ms=duration_ms)

    def _say_cached(self, model_id: str, local: LocalModel) -> None:
        mount = mount_of(local.path)
        self._say("model.ready", model_id=model_id)
        self._say(
            "model.cached",
            model_variant_id=model_id,
            disk_backend=mount.backend if mount else "local",
            disk_fstype=mount.fstype if mount else "",
            disk_volume_key=mount.volume_key if mount else "",
        )

    def _refuse_prefetch(self, model_id: str, error: Exception, duration_ms: int = 0) -> None:
        self._log.warning("model.download.failed", model=model_id[:200], error=outcome_of(error).error_message)
        self._say("model.download.failed", model_id=model_id, duration_ms=duration_ms, error_type=type(error).__name__)

    def _say_if_unreadable(self, function: str, key: str, ref: str) -> None:
        """Report a key whose ref cannot be parsed: its runs will fail, and the scheduler should know why before they do."""
        try:
            parse_model_ref(ref)
        except ValueError as exc:
            self._log.warning("release.bad_ref", function=function, key=key, error=str(exc))
            self._say("release.bad_ref", function_name=function, model_key=key, message=str(exc))

    def _hear(self, now: ModelProgress) -> None:
        self._voice.say_event(Event("", "model.progress", msgspec.json.encode(now)))

    def _say(self, event_type: str, **payload: object) -> None:
        self._voice.say_event(Event("", event_type, msgspec.json.encode(payload)))


def _spec(ref: str, dtypes: tuple[str, ...]) -> ModelSpec:
    return ModelSpec(ref, dtypes) if dtypes else ModelSpec(ref)


def _ms(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)
