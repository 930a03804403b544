"""One orchestrator node: its parts built from settings and joined, started and stopped in order.

start: store -> leadership -> writer, dispatcher, gateway (the open runs are read before any worker may register) -> API
stop:  API takes no more -> workers drain -> gateway -> writer (writes what waits) -> leadership is given back -> store
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec
from starlette.types import ASGIApp

from gen_orchestrator.api.admin import AdminRoutes
from gen_orchestrator.api.app import build_app
from gen_orchestrator.api.files import FileRoutes
from gen_orchestrator.api.runs import RunRoutes
from gen_orchestrator.api.streams import RunStreams
from gen_orchestrator.auth.worker_tokens import WorkerTokens
from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.fleet.base import Fleet
from gen_orchestrator.fleet.keeper import Keeper
from gen_orchestrator.hub.files import FileToken, FileTokens, RunFiles
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.scheduling import leader as leadership
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.gateway import Gateway
from gen_orchestrator.scheduling.metrics import Metrics
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.pool import Pool
from gen_orchestrator.store.base import EventChunk, Leader, Store
from gen_orchestrator.store.writer import Writer
from gen_orchestrator.webhooks import Receivers, Webhooks, WebhookSecret
from gen_worker.clock import SystemClock
from gen_worker.http.hosts import HostPolicy
from gen_worker.log import Log

TAKEOVER_GRACE_S = 10.0


class _Reason(msgspec.Struct):
    reason: str = ""


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`data` holds keys and files. `http_url` is how workers on this machine reach the API. `owns_workers`: workers of an earlier
    process of this node are known to be gone. `allow_private_webhooks`: addresses of this machine and network may be told, too."""

    data: Path
    node_id: str
    worker_listen: str
    http_url: str
    hosts: HostPolicy
    owns_workers: bool = True
    allow_private_webhooks: bool = False


class Node:
    """ROOT of a node. Build it on the event loop that serves it. `on_tag_moved` is called after a caller of the API has moved a tag."""

    def __init__(self, settings: NodeSettings, store: Store, fleet: Fleet, log: Log, on_tag_moved: Callable[[], None]) -> None:
        self._settings = settings
        self._store = store
        self._fleet = fleet
        self._log = log
        self._on_tag_moved = on_tag_moved
        self._clock = SystemClock()
        self.registry = Registry(store)
        self.metrics = Metrics()
        self.pool = Pool()
        self.deposed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._leader: Leader | None = None
        self._holding: asyncio.Task[None] | None = None
        self._winners: dict[tuple[str, str], int] = {}
        self.keeper: Keeper
        self.dispatcher: Dispatcher
        self.gateway: Gateway
        self.webhooks: Webhooks
        self.app: ASGIApp

    async def start(self) -> None:
        """Become leader, take up what an earlier one left, open the port for workers."""
        settings, log, clock = self._settings, self._log, self._clock
        leader = self._leader = await leadership.campaign(self._store, settings.node_id, settings.worker_listen, log)
        self._writer = Writer(self._store, leader.epoch, lambda: self._depose("a newer epoch writes"))
        tokens = WorkerTokens.from_folder(settings.data)
        file_tokens = FileTokens(secrets.token_bytes(32), clock.unix_s)

        def files_of(run: Run) -> tuple[str, str]:
            return settings.http_url, file_tokens.issue(FileToken(run.owner, run.id, run.attempt))

        starved = asyncio.Event()
        self.dispatcher = Dispatcher(
            self._writer,
            self.pool,
            clock,
            random.Random(secrets.randbits(64)),  # noqa: S311
            log,
            files_of,
            on_over=self._over,
            on_starved=starved.set,
            on_delivery=lambda: self.webhooks.look(),
        )
        receivers = Receivers(allow_private=settings.allow_private_webhooks)
        secret = WebhookSecret.from_folder(settings.data)
        self.webhooks = Webhooks(self._store, self._writer, secret, receivers, clock, log)
        self.gateway = Gateway(settings.worker_listen, tokens, self.pool, self.dispatcher, clock, log)
        self._take_up(*await asyncio.to_thread(self._open_runs))
        await self.gateway.start()
        host = settings.worker_listen.rpartition(":")[0]
        self.keeper = Keeper(
            self._fleet,
            self.gateway,
            self.pool,
            self.dispatcher,
            tokens,
            clock,
            log,
            scheduler_addr=f"{host}:{self.gateway.port}",
            news=starved,
        )
        self.keeper.start()
        files = RunFiles(settings.data / "files", self._winner)
        runs = RunRoutes(self.registry, self.dispatcher, self._store, RunStreams(self._store, files), receivers)
        self.admin = AdminRoutes(self.registry, self.dispatcher, self.pool, self.metrics, self._on_tag_moved)
        self.app = build_app(runs, FileRoutes(files, file_tokens), self.admin, settings.hosts, log)
        self.webhooks.start()
        self._holding = asyncio.create_task(leadership.hold(self._store, leader, clock, self._depose, log), name="leader-hold")

    async def stop(self, drain_s: float) -> None:
        """Drain workers, write what waits, give leadership back."""
        await self.keeper.stop(drain_s)
        await self.gateway.stop(0.5)
        await self.webhooks.stop()
        if self._holding is not None:
            self._holding.cancel()
        await self._writer.close()
        if self._leader is not None:
            await asyncio.to_thread(self._store.resign, self._leader)
        await asyncio.to_thread(self._store.close)

    def _open_runs(self) -> tuple[list[Run], dict[str, list[EventChunk]]]:
        found = self._store.open_runs()
        return found, {run.id: self._store.events_of(run.id) for run in found if run.attempt}

    def _take_up(self, open_runs: list[Run], events: dict[str, list[EventChunk]]) -> None:
        orphans = []
        for run in open_runs:
            try:
                settings = self.registry.settings(run.release_id, run.function)
            except LookupError:
                settings = FunctionSettings()
            open_run = self.dispatcher.restore(
                run, self.dispatcher.lanes.lane(run.release_id, run.function, settings), events.get(run.id, ())
            )
            if run.state is RunState.LEASED:
                orphans.append(open_run)
        if open_runs:
            self._log.info("leader.took_up", runs=len(open_runs), with_workers=len(orphans))
        self.gateway.expect(orphans, 0.0 if self._settings.owns_workers else TAKEOVER_GRACE_S)

    def _over(self, open_run: OpenRun) -> None:
        run = open_run.run
        reason = msgspec.json.decode(run.routing, type=_Reason).reason if run.routing else ""
        self.metrics.ended(run, reason)

    def _winner(self, owner: str, run_id: str) -> int:
        """The attempt of a run whose files count, 0 while there is none. Blocking: called from threads."""
        run = self._store.get(run_id)
        return run.attempt if run is not None and run.owner == owner and run.state is RunState.SUCCEEDED else 0

    def _depose(self, why: str) -> None:
        if not self.deposed.done():
            self._log.error("leader.deposed", why=why)
            self.deposed.set_result(why)
