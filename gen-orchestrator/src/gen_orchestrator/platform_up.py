"""The whole platform as one process: a node, child processes, and project folders; `cozyctl up` and `gen-orchestrator serve`."""

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from gen_orchestrator.allocator import return_large_blocks
from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.fleet.by_kind import ByKind
from gen_orchestrator.fleet.containers import Containers
from gen_orchestrator.fleet.devices import find_gpus
from gen_orchestrator.fleet.processes import Processes
from gen_orchestrator.hub.prices import read_prices
from gen_orchestrator.hub.retention import RetentionSettings
from gen_orchestrator.node import Node, NodeSettings
from gen_orchestrator.scheduling.trace import Trace
from gen_orchestrator.served_folders import FolderSettings, ServedFolders
from gen_orchestrator.serving import make_server
from gen_orchestrator.store.base import DamagedRowError, Store, StoreUnavailableError
from gen_orchestrator.store.opening import open_store
from gen_orchestrator.term import OPERATOR_KEY, Term
from gen_worker.http.hosts import HostPolicy
from gen_worker.images.engines import find_engine
from gen_worker.interpreter import settle_interpreter
from gen_worker.leaving import end_at_once
from gen_worker.log import Log
from gen_worker.project.watching import polls_files
from gen_worker.scratch import sweep
from gen_worker.settings import ModelSettings

OWNER = "local"
DRAIN_S = 20.0
LINGER_S = 30.0  # how long a worker of the previous release is kept after a promote, so that a rollback finds it
STORE_AGAIN_S = 1.0
MAX_DAMAGED_TOLD = 1000


class PlatformSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`store` is the URL of a database, empty for SQLite in `data`. `advertise` is the host by which workers and other
    nodes reach this one. `builder` makes releases when a publish names none, with `engine` if it is `container`. A
    `stands_by` node is one of several: it serves at once, whoever leads, and waits for a store that does not answer.
    `environment`: what child processes are given parts of. `record` is the file for routing decisions, for `benchmarks/routing_replay.py`.
    """

    folders: tuple[Path, ...]
    data: Path
    environment: ChildEnvironment
    owner: str = OWNER
    store: str = ""
    worker_listen: str = "127.0.0.1:0"
    advertise: str = ""
    public_url: str = ""
    peers: tuple[str, ...] = ()
    follow: bool = False
    models: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_private_webhooks: bool = False
    stands_by: bool = False
    drain_s: float = DRAIN_S
    builder: str = "process"
    engine: str = ""
    asks_for_keys: bool = False
    retention: RetentionSettings = RetentionSettings()
    mirror: ModelSettings | None = None
    record: Path | None = None


class Platform:
    """ROOT of `cozyctl up` and `gen-orchestrator serve`."""

    def __init__(
        self, settings: PlatformSettings, log: Log, show: Callable[[str], None], step: Callable[[str], None] = lambda text: None
    ) -> None:
        self.settings = settings
        self._log = log
        self._show = show
        self.folders = ServedFolders(
            FolderSettings(
                folders=settings.folders,
                data=settings.data,
                owner=settings.owner,
                follow=settings.follow,
                models=settings.models,
                gives_hub_tokens=settings.asks_for_keys and "COZY_HUB_URL" not in settings.environment,
                polls=polls_files(settings.environment),
                environment=settings.environment,
            ),
            show,
            step,
        )
        self._damaged: set[str] = set()
        self.node: Node

    @property
    def operator_key(self) -> Path:
        """The file with the operator's first key."""
        return self.settings.data / OPERATOR_KEY

    @property
    def term(self) -> Term | None:
        """This node's leadership, None while it is a standby."""
        return self.node.term

    async def run(self, sock: socket.socket, ready: Callable[["Platform", str], None]) -> int:
        """Serve until a signal; returns the exit status. A second signal ends it at once."""
        settings = self.settings
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(sweep)
        prices = read_prices(settings.data)
        stop = self._signals()
        store = await self._open_store(stop)
        if store is None:
            return 0
        host, port = sock.getsockname()[:2]
        name = settings.advertise or host
        url = f"http://{f'[{name}]' if ':' in name else name}:{port}"
        worker_host = settings.advertise or settings.worker_listen.rpartition(":")[0]
        record = None if settings.record is None else settings.record.open("ab")
        own_names = (settings.advertise, *settings.allowed_hosts) if settings.advertise else settings.allowed_hosts
        return_large_blocks()
        node = self.node = Node(
            NodeSettings(
                data=settings.data,
                owner=settings.owner,
                node_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
                worker_listen=settings.worker_listen,
                worker_host=worker_host,
                http_url=url,
                hosts=HostPolicy.listening_on(host, own_names),
                public_url=settings.public_url,
                peers=settings.peers,
                owns_workers=not settings.stands_by,
                drain_s=settings.drain_s,
                builder=settings.builder,
                engine=settings.engine,
                asks_for_keys=settings.asks_for_keys,
                allow_private_webhooks=settings.allow_private_webhooks,
                gpus=await asyncio.to_thread(find_gpus, settings.environment.get("CUDA_VISIBLE_DEVICES")),
                retention=settings.retention,
                prices=prices,
                mirror=settings.mirror,
                environment=settings.environment,
            ),
            store,
            self._fleet(settings.public_url or url),
            self._log,
            on_lead=self.folders.take,
            on_tag_moved=lambda: self.folders.offer_tagged(LINGER_S),
            trace=Trace(record.write, time.time) if record is not None else None,
        )
        await node.start()
        assert node.living is not None
        server = make_server(node.app)
        serving = asyncio.create_task(server.serve(sockets=[sock]), name="http")
        if not settings.stands_by:
            leading = asyncio.create_task(node.leads(), name="leads")
            await asyncio.wait([stop, leading, node.living, serving], return_when=asyncio.FIRST_COMPLETED)
            leading.cancel()
        watching = asyncio.create_task(self.folders.watch(), name="watch")
        if not node.living.done() and not stop.done():
            settle_interpreter()
            ready(self, url)
            if not settings.stands_by:
                self.folders.tell_of_earlier()
        await asyncio.wait([stop, serving, node.living], return_when=asyncio.FIRST_COMPLETED)
        broken = node.living.done()
        watching.cancel()
        self._show("draining: active runs may finish; Ctrl-C again stops at once")
        node.app.drain()
        if not broken and not settings.peers:
            await node.drain()  # while the API still answers: callers wait for results, and workers save the files of their runs
        server.should_exit = True
        await asyncio.wait([serving], timeout=5)
        if not broken and settings.peers:
            await node.drain()  # callers have moved to another node, which holds their requests until it leads
        await node.stop()
        if record is not None:
            record.close()
        if broken:
            node.living.result()
        return 0

    def _fleet(self, url: str) -> ByKind:
        settings = self.settings
        hub, log_bytes = _hub_for_workers(url, settings.data), settings.retention.gen_orchestrator_worker_log_bytes
        place = f"{settings.data}\n{settings.worker_listen}"  # unique among the nodes of one machine
        logs, caches = settings.data / "container-logs", settings.data / "image-caches"
        env = settings.environment
        containers = Containers(logs, caches, place, lambda: find_engine(settings.engine), env, hub, log_bytes)
        return ByKind(Processes(settings.data / "logs", env, hub, log_bytes), containers)

    async def _open_store(self, stop: "asyncio.Future[None]") -> Store | None:
        """The store; None when told to stop before it answered."""
        name = self.settings.store or str(self.settings.data)
        told = False
        while not stop.done():
            try:
                return await asyncio.to_thread(open_store, name, self._note_damaged)
            except StoreUnavailableError as exc:
                if not self.settings.stands_by:
                    raise
                if not told:
                    self._show(f"waiting for the store: {exc}")
                    self._log.warning("store.unavailable", error=str(exc))
                told = True
            await asyncio.wait([stop], timeout=STORE_AGAIN_S)
        return None

    def _note_damaged(self, exc: DamagedRowError) -> None:
        """Report each damaged row once, because it is read again and again. Called from threads."""
        if len(self._damaged) < MAX_DAMAGED_TOLD and str(exc) not in self._damaged:
            self._damaged.add(str(exc))
            self._log.error("store.damaged_row", error=str(exc))

    def _signals(self) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[None] = loop.create_future()

        def told() -> None:
            if stop.done():
                end_at_once()
            stop.set_result(None)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, told)
        return stop


def _hub_for_workers(url: str, data: Path) -> dict[str, str]:
    """Variables by which workers on this machine find our models and link their files."""
    return {
        "COZY_HUB_URL": url,
        "WORKER_ALLOW_COZY_HUB_API_RESOLVE": "1",
        "COZY_NEAR_BLOBS": str(data.absolute() / "models" / "blobs" / "blake3"),
    }
