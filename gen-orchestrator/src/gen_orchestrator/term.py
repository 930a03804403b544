"""One leadership, from its epoch to its end: everything that may exist only while this node leads.

    begin: writer, dispatcher, gateway (the open runs are read before any worker may register) -> keeper -> routes
    end:   workers drain, or continue for the next leader -> streams end -> writer (writes what waits) -> leadership is given back

Its knowledge of runs is a copy of the store's, and is dropped with the term: the next leader, here or elsewhere, reads
it again.
"""

import asyncio
import random
import secrets
from collections.abc import Callable, Collection

from starlette.types import ASGIApp

from gen_orchestrator import tracing
from gen_orchestrator.api.access import Guard
from gen_orchestrator.api.admin import AdminRoutes
from gen_orchestrator.api.app import Rooms, build_app
from gen_orchestrator.api.builds import BuildRoutes
from gen_orchestrator.api.caller_files import CallerFileRoutes
from gen_orchestrator.api.catalog import PlatformCatalog
from gen_orchestrator.api.children import ChildRoutes
from gen_orchestrator.api.deploys import DeployRoutes
from gen_orchestrator.api.disk import DiskRoutes
from gen_orchestrator.api.exports import ExportRoutes
from gen_orchestrator.api.files import FileRoutes, worker_of
from gen_orchestrator.api.gates import GateRoutes
from gen_orchestrator.api.keys import KeyRoutes
from gen_orchestrator.api.models import ModelRoutes
from gen_orchestrator.api.redeliveries import RedeliveryRoutes
from gen_orchestrator.api.release_removal import RemovalRoutes
from gen_orchestrator.api.releases import ReleaseRoutes
from gen_orchestrator.api.run_list import RunList
from gen_orchestrator.api.run_object import RunObjects, signed_url
from gen_orchestrator.api.runs import RunRoutes
from gen_orchestrator.api.secrets import SecretRoutes
from gen_orchestrator.api.sessions import SessionRoutes
from gen_orchestrator.api.shadows import ShadowRoutes
from gen_orchestrator.api.signing_keys import SigningKeyRoutes
from gen_orchestrator.api.streams import RunStreams
from gen_orchestrator.api.usage import UsageRoutes
from gen_orchestrator.api.withdrawal import WithdrawalRoutes
from gen_orchestrator.api.workers import WorkerRoutes
from gen_orchestrator.auth.folder_keys import folder_key
from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.auth.operator_key import keep_operator_key
from gen_orchestrator.auth.vault import Vault
from gen_orchestrator.auth.worker_tokens import WorkerTokens
from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.fleet.base import Fleet
from gen_orchestrator.fleet.keeper import Keeper
from gen_orchestrator.fleet.readiness import Readiness
from gen_orchestrator.gates.canary import Canaries
from gen_orchestrator.gates.goldens import Goldens
from gen_orchestrator.gates.shadows import Shadows
from gen_orchestrator.hub.blobs import open_blobs
from gen_orchestrator.hub.builders import Builder, ProcessBuilder
from gen_orchestrator.hub.builds import Builds
from gen_orchestrator.hub.disk_report import DataFolder
from gen_orchestrator.hub.files import MODELS_OF, TOKEN_LIFE_S, FileToken, FileTokens, NotLeadingError, RunFiles
from gen_orchestrator.hub.image_builder import ContainerBuilder
from gen_orchestrator.hub.making import Making
from gen_orchestrator.hub.mirror import open_mirror
from gen_orchestrator.hub.model_addresses import AddressesByRelease, ModelAddresses
from gen_orchestrator.hub.models import ModelStore
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.hub.release_config import release_config
from gen_orchestrator.hub.release_disk import ReleaseDisk
from gen_orchestrator.hub.release_secrets import ReleaseSecrets
from gen_orchestrator.hub.removal import Removal
from gen_orchestrator.hub.retention import Retention, upload_limits
from gen_orchestrator.hub.signed_urls import SignedUrls
from gen_orchestrator.hub.uploads import Uploads
from gen_orchestrator.scheduling import leader as leadership
from gen_orchestrator.scheduling.children import ChildRuns
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.gateway import Gateway
from gen_orchestrator.scheduling.metering import Meter
from gen_orchestrator.scheduling.metrics import Metrics
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.pool import Pool
from gen_orchestrator.scheduling.sessions import LEADER_LOST
from gen_orchestrator.scheduling.spending import Spending
from gen_orchestrator.scheduling.takeover import take_up
from gen_orchestrator.scheduling.trace import Trace
from gen_orchestrator.scheduling.waits import Waits
from gen_orchestrator.store.base import EventChunk, Leader, Store, Tag
from gen_orchestrator.store.writer import Writer
from gen_orchestrator.term_settings import TermSettings
from gen_orchestrator.webhooks import Receivers, Webhooks, WebhookSecret
from gen_worker.clock import Clock, SteadyCalendar
from gen_worker.images.engines import find_engine
from gen_worker.log import Log
from gen_worker.wire.messages import ReleaseConfig

TAKEOVER_GRACE_S = 10.0
OPERATOR_KEY = "operator.key"
HUB_TOKEN_LIFE_S = 90 * 24 * 3600
TOKEN_SPARE_S = 15 * 60  # for files that are still being saved, and a worker whose clock is late
FILE_KEY = "file-tokens.key"


class Term:
    """Built on the event loop that serves it. `over` is set with the reason when this node no longer leads."""

    def __init__(
        self,
        settings: TermSettings,
        leader: Leader,
        store: Store,
        registry: Registry,
        fleet: Fleet,
        metrics: Metrics,
        clock: Clock,
        log: Log,
        on_tag_moved: Callable[[], None],
        trace: Trace,
    ) -> None:
        self._settings = settings
        self._leader = leader
        self._store = store
        self._metrics = metrics
        self._trace = tracing.recorder()
        self._log = log
        self._clock = clock
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._not_renewed = ""
        self.registry = registry
        self.pool = Pool()
        self.making = Making()
        self._writer = Writer(store, leader.epoch, lambda: self._depose("a newer epoch writes"))
        calendar = SteadyCalendar(clock)
        tokens = WorkerTokens.from_folder(settings.data)
        secret = folder_key(settings.data / FILE_KEY, lambda: secrets.token_bytes(32))
        file_tokens = self._file_tokens = FileTokens(secret, calendar.unix_s)

        def files_of(run: Run) -> tuple[str, str]:
            life_s = run.timeout_ms // 1000 + TOKEN_SPARE_S if run.timeout_ms else TOKEN_LIFE_S  # a run's time limit begins with its lease
            return settings.http_url, file_tokens.issue(FileToken(run.owner, run.id, run.attempt), life_s)

        starved = asyncio.Event()
        fitness = self.fitness = Fitness(clock.now_s, log, starved)
        self._on_tag_moved = on_tag_moved
        self.dispatcher = Dispatcher(
            self._writer,
            self.pool,
            clock,
            random.Random(secrets.randbits(64)),  # noqa: S311
            log,
            files_of,
            fitness,
            on_over=self._over,
            on_starved=starved.set,
            on_delivery=lambda: self._webhooks.look(),
            trace=trace,
            meter=Meter(clock, settings.prices),
            gone=registry.gone,
            calendar=calendar,
            event_bytes=settings.retention.gen_orchestrator_run_event_bytes,
        )
        urls = SignedUrls(secret, settings.http_url, clock.unix_s)
        objects = RunObjects(signed_url(urls))
        receivers = Receivers(allow_private=settings.allow_private_webhooks)
        self._webhooks = Webhooks(store, self._writer, WebhookSecret.from_folder(settings.data), receivers, objects, clock, calendar, log)
        metrics.follow_webhooks(self._webhooks.outcomes)
        keys = self._access_keys = Keys(store, clock.unix_s)
        vault = Vault(store, Vault.key_of(settings.data), keys, clock.unix_s)
        hidden = self.secrets = ReleaseSecrets(registry, vault)
        models = self._models = ModelStore(settings.data / "models", calendar.earliest_s)
        self._mirror = open_mirror(settings.mirror, models, settings.data / "models" / "incoming", log)
        self.models_of_releases = AddressesByRelease(ModelAddresses(models, urls), self.registry, settings.environment)
        self.gateway = Gateway(
            tokens,
            self.pool,
            self.dispatcher,
            fitness,
            clock,
            log,
            owner_of=self._admits,
            redactor_of=hidden.redactor,
            config_of=self._config_of,
            addresses=self.models_of_releases,
        )
        self.keeper = Keeper(
            fleet,
            self.gateway,
            self.pool,
            self.dispatcher,
            fitness,
            tokens,
            clock,
            log,
            secrets_of=hidden,
            scheduler_addr=",".join(settings.scheduler_addrs),
            drain_s=settings.drain_s,
            gpus=settings.gpus,
            news=starved,
        )
        env = settings.environment
        makers: dict[str, Builder] = {"process": ProcessBuilder(settings.data, env), "container": ContainerBuilder(settings.engine, env)}
        builders = {settings.builder: makers[settings.builder], **makers}
        self._builds = Builds(settings.data / "builds", builders, self.registry, clock.unix_s, log, self._on_tag_moved, self.making)
        disk = ReleaseDisk(settings.data, lambda: find_engine(settings.engine))
        of_release = self.dispatcher.open.of_release
        self._removal = Removal(registry, leader.epoch, disk, self._builds, self.making, self.keeper, of_release, keys.note, log)
        self.disk = DiskRoutes(DataFolder(settings.data, models, self._removal.uses).look, self._removal.use)
        kept = settings.retention
        blobs = open_blobs(kept.gen_orchestrator_blobs, settings.data / "blobs", env)
        files = self._run_files = RunFiles(settings.data / "files", blobs, self._winner, clock.unix_s, self._may_save)
        uploads = Uploads(settings.data / "uploads", blobs, upload_limits(kept), clock.unix_s, calendar.earliest_s)
        waits = Waits(self.pool, clock, lambda release_id: self.keeper.failures.get(release_id, ""))
        spending = self._spending = Spending(keys.budgets_of, store, self.dispatcher, clock)
        streams = RunStreams(store, files, objects)
        runs = RunRoutes(self.registry, self.dispatcher, store, streams, receivers, waits, files, objects, spending)
        self._canaries = Canaries(self.registry, store, keys, fitness.paused, clock, log, self._on_tag_moved)
        admin = AdminRoutes(
            self.registry, self.dispatcher, self.pool, metrics, fitness, self.keeper.failures, self._canaries.dropped, self.disk
        )
        goldens = Goldens(self.registry, self.dispatcher, store, files, fitness.paused, clock.unix_s)
        wake = self.keeper.wake
        self._children = ChildRuns(self.dispatcher, log)
        self._shadows = Shadows(self.registry, self.dispatcher, store, files, keys, fitness.paused, wake, clock.unix_s, log, on_tag_moved)
        prepare = Readiness(self.keeper, self.pool, self.registry, clock).prepare
        releases = ReleaseRoutes(self.registry, keys, goldens, prepare, self._tag_moved, hidden.unset, self.models_of_releases.problems)
        rooms = Rooms(
            runs,
            SessionRoutes(runs, self.dispatcher, keys, settings.hosts, log, idle_s=kept.gen_orchestrator_session_idle_s),
            RunList(store, self.dispatcher.open, objects),
            FileRoutes(files, file_tokens, uploads, kept.gen_orchestrator_run_bytes),
            CallerFileRoutes(uploads, files, urls),
            WorkerRoutes(self.pool, self.keeper, tokens, self._owner_of, self._admits, hidden.redactor, settings.scheduler_addrs[0]),
            admin,
            releases,
            BuildRoutes(self._builds, keys, settings.owner),
            ModelRoutes(models, urls, self._mirror),
            KeyRoutes(keys, settings.owner, spending, self.dispatcher),
            DeployRoutes(self._builds, self.registry, keys, goldens, settings.data / "archives", settings.owner, self._tag_moved),
            ExportRoutes(runs, self.registry, store),
            GateRoutes(goldens, store, keys, runs, releases.release_of),
            SecretRoutes(vault, hidden, self.registry, self.keeper.renew),
            RedeliveryRoutes(runs, self._webhooks.redeliver),
            ShadowRoutes(self._shadows, self.registry, prepare, self._resume, clock.unix_s),
            ChildRoutes(self._children, file_tokens, self.registry, self.dispatcher, runs, streams, self._shadows.unfit.add),
            PlatformCatalog(self.registry, runs),
            UsageRoutes(store, keys, settings.prices.currency if settings.prices is not None else "", clock.unix_s),
            SigningKeyRoutes(tokens, keys),
            RemovalRoutes(self._removal, releases),
            self.disk,
            WithdrawalRoutes(self.registry, self.dispatcher.open, self._shadows, keys, self._withdrawn),
        )
        guard = Guard(keys, is_asking=settings.asks_for_keys)
        self.app: ASGIApp = build_app(rooms, guard, lambda request: worker_of(file_tokens, request), settings.hosts, log)
        retention = Retention(
            settings.retention, store, files, log, clock, uploads.sweep, models.collect, self._removal.prune, self._forget_halves
        )
        self._tasks = [
            asyncio.create_task(leadership.hold(store, leader, clock, self._depose, log, self._in_trouble), name="leader-hold"),
            asyncio.create_task(retention.run(), name="retention"),
        ]

    def _forget_halves(self) -> None:
        self._models.forget_halves()
        self._run_files.forget_halves()

    async def begin(self) -> None:
        """Take up what an earlier leader left; then workers may register. `StoreError` when it cannot be read."""
        for text in self.registry.damaged.values():
            self._log.error("release.damaged", error=text)
        if self._settings.asks_for_keys:
            await asyncio.to_thread(keep_operator_key, self._settings.data / OPERATOR_KEY, self._access_keys, self._log)
        found = await asyncio.to_thread(self._open_runs)
        orphans = take_up(self.dispatcher, self.registry.settings, *found, self._log)
        self.gateway.expect(orphans, 0.0 if self._settings.owns_workers else TAKEOVER_GRACE_S)
        self._children.take_up(self.dispatcher.open.values())
        await self._shadows.clean()
        self.gateway.start()
        self.keeper.start()
        self._webhooks.start()
        await asyncio.gather(self._removal.begin(), asyncio.to_thread(self._models.finish_removals))
        await self._builds.start()

    async def drain(self) -> None:
        """End this node's workers; their current runs may finish, and the results are stored."""
        await self._shadows.stop()
        self.dispatcher.sessions.drain(self.dispatcher.open.values())
        await self.keeper.stop()
        self.dispatcher.let_go()

    def pause(self) -> None:
        """This node no longer leads: its workers continue their runs, and bring the results to the next leader, this node or another."""
        self.dispatcher.sessions.end_all(self.dispatcher.open.values(), LEADER_LOST)
        self.keeper.pause()

    async def end(self, successor: Leader | None) -> None:
        """End all streams, write what waits, give the leadership back. `successor` tells workers the next leader."""
        self.gateway.stop(successor.address if successor is not None else "")
        for task in self._tasks:
            task.cancel()
        await self._shadows.stop()
        await self._webhooks.stop()
        await self._removal.stop()
        await self.disk.stop()
        await self._builds.stop()
        if self._mirror is not None:
            await asyncio.to_thread(self._mirror.stop)
        await self._writer.close()
        if not self.over.done():
            await asyncio.to_thread(self._store.resign, self._leader)

    @property
    def trouble(self) -> str:
        """Why the store accepts nothing at present; empty if it does."""
        return self._not_renewed or str(self._writer.trouble() or "")

    def hub_token(self, owner: str) -> str:
        """The token with which a worker of this owner asks for models."""
        return self._file_tokens.issue(FileToken(owner, MODELS_OF, 0), HUB_TOKEN_LIFE_S)

    def _owner_of(self, release_id: str) -> str | None:
        try:
            return self.registry.release(release_id).owner
        except LookupError:
            return None

    def _admits(self, release_id: str) -> str | None:
        """Which workers may join for this release; None when none may."""
        return None if self.registry.is_deleted(release_id) else self._owner_of(release_id)

    def _config_of(self, release_id: str) -> ReleaseConfig | None:
        try:
            return release_config(self.registry.manifest(release_id))
        except LookupError:
            return None

    def _tag_moved(self, tag: Tag) -> None:
        self._resume(tag.release_id)
        self._shadows.tag_moved()
        self._canaries.look()
        self._on_tag_moved()

    def _withdrawn(self, release_ids: Collection[str]) -> None:
        self._on_tag_moved()
        for release_id in set(release_ids) - self.registry.in_use():
            self.keeper.withdraw(release_id)  # at once: nobody will come back to its workers

    def _resume(self, release_id: str) -> None:
        if self.fitness.resume(release_id):
            self.dispatcher.pump_release(release_id)

    def _open_runs(self) -> tuple[list[Run], dict[str, list[EventChunk]]]:
        found = self._store.open_runs()
        return found, {run.id: self._store.events_of(run.id) for run in found if run.attempt}

    def _over(self, open_run: OpenRun) -> None:
        if open_run.is_shadow:
            return
        run = open_run.run
        self._children.ended(run)
        self._shadows.ended(open_run)
        self._metrics.ended(run, open_run.first_output_at)
        self._canaries.ended(run, open_run.accepted_s)
        self._spending.ended(run)
        self._trace(run)

    def _winner(self, owner: str, run_id: str) -> int:
        """The attempt of a run whose files count, 0 when there is none yet. Blocking: called from threads."""
        run = self._store.get(run_id)
        return run.attempt if run is not None and run.owner == owner and run.state is RunState.SUCCEEDED else 0

    def _may_save(self, token: FileToken) -> bool:
        """Whether a worker has this attempt, so that its files may still change."""
        if self.over.done():
            raise NotLeadingError
        open_run = self.dispatcher.open.get(token.run_id)
        return open_run is not None and open_run.is_sent and (open_run.run.owner, open_run.run.attempt) == (token.owner, token.attempt)

    def _in_trouble(self, why: str) -> None:
        self._not_renewed = why

    def _depose(self, why: str) -> None:
        if not self.over.done():
            self._log.error("leader.deposed", why=why, epoch=self._leader.epoch)
            self.over.set_result(why)
