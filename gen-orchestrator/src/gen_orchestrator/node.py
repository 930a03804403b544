"""One orchestrator node. Its two ports stay open for its whole life, while it alternates between standing by and
leading.

    stand by --lease won--> Term begins --(on_lead)--> routes open --lease lost--> routes shut, Term ends --> stand by

A node that stands by redirects workers to the leader and forwards requests to it. A deposed leader drops its state,
ends its streams, and stands by again: nothing has to be restarted.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from gen_orchestrator.api.front import Front
from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.domain.receipts import Prices
from gen_orchestrator.fleet.base import Fleet
from gen_orchestrator.fleet.keeper import Keeper
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.hub.retention import RetentionSettings
from gen_orchestrator.scheduling import leader as leadership
from gen_orchestrator.scheduling.door import Door
from gen_orchestrator.scheduling.metrics import Metrics
from gen_orchestrator.scheduling.standing import Standing
from gen_orchestrator.scheduling.trace import Trace
from gen_orchestrator.store.base import Leader, Store, StoreError
from gen_orchestrator.term import Term
from gen_orchestrator.term_settings import TermSettings
from gen_worker.clock import SystemClock
from gen_worker.http.hosts import HostPolicy
from gen_worker.log import Log
from gen_worker.settings import ModelSettings

AGAIN_S = 1.0


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`worker_host` and `http_url` are how others reach this node. `public_url` is where workers save files; with
    several nodes, the address in front of all of them. `peers` are worker addresses of other nodes, which this node's
    workers try when it is gone. `gpus` are the devices of this machine, by their names for CUDA_VISIBLE_DEVICES.
    `environment`: what child processes are given parts of.
    """

    data: Path
    owner: str
    node_id: str
    worker_listen: str
    worker_host: str
    http_url: str
    hosts: HostPolicy
    public_url: str = ""
    peers: tuple[str, ...] = ()
    owns_workers: bool = True
    drain_s: float = 20.0
    builder: str = "process"
    engine: str = ""
    asks_for_keys: bool
    allow_private_webhooks: bool = False
    gpus: tuple[str, ...] = ()
    retention: RetentionSettings = RetentionSettings()
    prices: Prices | None = None
    mirror: ModelSettings | None = None
    environment: ChildEnvironment


class Node:
    """Built on the event loop that serves it. `app` answers requests whichever node leads. `on_lead` is awaited at the
    beginning of each leadership, before requests are answered; `on_tag_moved` is called after an API call has moved a
    tag.
    """

    def __init__(
        self,
        settings: NodeSettings,
        store: Store,
        fleet: Fleet,
        log: Log,
        *,
        on_lead: Callable[[Term], Awaitable[None]],
        on_tag_moved: Callable[[], None],
        trace: Trace | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._fleet = fleet
        self._log = log
        self._on_lead = on_lead
        self._on_tag_moved = on_tag_moved
        self._trace = trace or Trace()
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._standing = Standing()
        self._door = Door(settings.worker_listen, self._standing)
        self.app = Front(self._standing, settings.hosts, self._trouble, stands_by=not settings.owns_workers)
        self.term: Term | None = None
        self._resting: Keeper | None = None  # keeps the workers of the last leadership until it is known who leads next
        self.living: asyncio.Task[None] | None = None

    @property
    def worker_address(self) -> str:
        """Where workers reach this node."""
        return f"{self._settings.worker_host}:{self._door.port}"

    def _trouble(self) -> str:
        return self.term.trouble if self.term is not None else ""

    async def start(self) -> None:
        """Open the port for workers and begin to campaign; `OSError` when the port is not available."""
        await self._door.start()
        self.living = asyncio.create_task(self._live(), name="node")

    async def leads(self) -> None:
        """Wait until this node leads and answers requests."""
        while self.term is None:
            await self._standing.changed(3600)

    async def drain(self) -> None:
        """End this node's workers. Their runs may finish, and callers get the results; callers of other runs are told
        that they continue.
        """
        if self.term is not None:
            await self.term.drain()
        elif self._resting is not None:
            await self._resting.stop()

    async def stop(self) -> None:
        """Call it after `drain`: write what waits, give the leadership back, close the store."""
        if self.living is not None:
            self.living.cancel()
            await asyncio.gather(self.living, return_exceptions=True)
        term, self.term = self.term, None
        if term is not None:
            with contextlib.suppress(StoreError):  # the store does not answer: the lease expires by itself
                await term.end(None)
        await self._door.stop(0.5)
        await self.app.close()
        await asyncio.to_thread(self._store.close)

    async def _live(self) -> None:
        settings, standing = self._settings, self._standing
        epochs = leadership.Epochs()
        is_first = True
        while True:
            here = (settings.node_id, self.worker_address, settings.http_url)
            is_patient = not (is_first and settings.owns_workers)  # when a single node starts, a person reads the error
            leader = await leadership.campaign(self._store, *here, epochs, self._see, self._log, is_patient=is_patient)
            standing.begin(leader)
            try:
                term = await self._begin(leader, owns_workers=settings.owns_workers and is_first)
            except StoreError as exc:
                self._log.warning("leader.not_begun", error=str(exc))
                await asyncio.sleep(AGAIN_S)
                continue
            except Exception as exc:
                # Damaged rows, folders and releases are skipped one by one where they are read; this handles everything
                # unforeseen. When a single node starts, a person reads the error. A node beside others is more useful
                # alive: another may lead meanwhile.
                if is_first and settings.owns_workers:
                    raise
                self._log.error("leader.not_begun", error=repr(exc))
                await asyncio.sleep(AGAIN_S)
                continue
            is_first = False
            why = await asyncio.shield(term.over)  # `stop` cancels this task, but must not cancel what reports the end of this leadership
            self.term = None
            self._door.lead_to(None)
            self.app.shut()
            self._log.warning("leader.stepped_down", why=why)
            await self._give_up(term)

    def _see(self, leader: Leader | None) -> None:
        """What the store says while this node campaigns."""
        self._standing.see(leader)
        if leader is not None and leader.node_id != self._settings.node_id and self._resting is not None:
            self._resting.retire()
            self._resting = None

    async def _begin(self, leader: Leader, *, owns_workers: bool) -> Term:
        settings = self._settings
        term_settings = TermSettings(
            data=settings.data,
            owner=settings.owner,
            http_url=settings.public_url or settings.http_url,
            scheduler_addrs=(self.worker_address, *settings.peers),
            hosts=settings.hosts,
            owns_workers=owns_workers,
            drain_s=settings.drain_s,
            builder=settings.builder,
            engine=settings.engine,
            asks_for_keys=settings.asks_for_keys,
            allow_private_webhooks=settings.allow_private_webhooks,
            gpus=settings.gpus,
            retention=settings.retention,
            prices=settings.prices,
            mirror=settings.mirror,
            environment=settings.environment,
        )
        registry = await asyncio.to_thread(Registry, self._store)
        term = Term(
            term_settings,
            leader,
            self._store,
            registry,
            self._fleet,
            self._metrics,
            self._clock,
            self._log,
            self._on_tag_moved,
            self._trace,
        )
        if self._resting is not None:
            term.keeper.take_over(self._resting)
            self._resting = None
        try:
            await term.begin()
            self._door.lead_to(term.gateway)
            await self._on_lead(term)
        except BaseException:
            self._door.lead_to(None)
            await self._give_up(term)
            raise
        self.term = term
        self.app.open(term.app)
        return term

    async def _give_up(self, term: Term) -> None:
        """End a lost leadership. This node's workers continue their runs and bring the results to the next leader. If
        that is this node, after a moment without its database, it adopts them again; if it is another node, they end.
        """
        term.pause()
        self._resting = term.keeper
        try:
            await term.end(self._standing.leader)
        except Exception as exc:  # noqa: BLE001 - the lease ends by itself, and this node goes on
            self._log.warning("leader.not_resigned", error=str(exc) if isinstance(exc, StoreError) else repr(exc))
