"""The whole platform on this machine: a node, child processes, and project folders as releases that follow their edits.

A folder's first release gets the tags `prod` and `dev`. Each edit makes a new release under `dev`; `prod` stays until a promote, or
moves along with `follow`. A release is a copy of the source: what works keeps serving while the new code is broken.
"""

import asyncio
import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from gen_orchestrator.fleet.keeper import Launch
from gen_orchestrator.fleet.processes import Processes
from gen_orchestrator.hub.folders import FolderError, Snapshot, files_of, interpreter_of, snapshot
from gen_orchestrator.hub.registry import DEV, PROD
from gen_orchestrator.node import Node, NodeSettings
from gen_orchestrator.serving import make_server
from gen_orchestrator.store.base import Release
from gen_orchestrator.store.sqlite import SqliteStore
from gen_worker.http.hosts import HostPolicy
from gen_worker.http.listening import url_of
from gen_worker.log import Log

OWNER = "local"
WATCH_S = 0.5
DRAIN_S = 20.0


class UpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `cozyctl up` was told. `models`: KEY=FOLDER overrides for all folders."""

    folders: tuple[Path, ...]
    data: Path
    worker_listen: str = "127.0.0.1:0"
    follow: bool = False
    models: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_private_webhooks: bool = False


class Platform:
    """ROOT of `cozyctl up`."""

    def __init__(self, settings: UpSettings, log: Log, show: Callable[[str], None]) -> None:
        self._settings = settings
        self._log = log
        self._show = show
        self._failed: dict[Path, str] = {}
        self.releases: dict[Path, Release] = {}
        self.node: Node

    async def run(self, sock: socket.socket, ready: Callable[["Platform", str], None]) -> int:
        """Serve until a signal; the exit status. A second signal ends it at once."""
        settings = self._settings
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        url = url_of(sock)
        store = await asyncio.to_thread(SqliteStore, settings.data)
        node = self.node = Node(
            NodeSettings(
                data=settings.data,
                node_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
                worker_listen=settings.worker_listen,
                http_url=url,
                hosts=HostPolicy.listening_on(sock.getsockname()[0], settings.allowed_hosts),
                allow_private_webhooks=settings.allow_private_webhooks,
            ),
            store,
            Processes(settings.data / "logs"),
            self._log,
            self._offer_tagged,
        )
        await node.start()
        stop = self._signals()
        # Before anybody is answered: a caller who came first would be told that there is no such function.
        await self._take_folders()
        server = make_server(node.app)
        serving = asyncio.create_task(server.serve(sockets=[sock]), name="http")
        gc.collect()
        gc.freeze()
        ready(self, url)
        watching = asyncio.create_task(self._watch(), name="watch")
        ends: list[asyncio.Future[object]] = [stop, serving, node.deposed]  # type: ignore[list-item]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        self._show("draining: runs that are under way may finish; Ctrl-C again ends at once")
        server.should_exit = True
        await asyncio.wait([serving], timeout=5)
        await node.stop(DRAIN_S)
        return 1 if node.deposed.done() else 0

    def _signals(self) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[None] = loop.create_future()

        def told() -> None:
            if stop.done():
                sys.stderr.write("ended at once\n")
                os._exit(130)
            stop.set_result(None)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, told)
        return stop

    async def _take_folders(self) -> None:
        for folder in self._settings.folders:
            await self._release(folder)
        self._offer_tagged()

    async def _release(self, folder: Path) -> bool:
        """Make a release of the folder as it is; False where its code is broken, and the last one stays."""
        registry = self.node.registry
        try:
            taken = await snapshot(folder, self._settings.data / "releases")
            release = await asyncio.to_thread(registry.add, OWNER, taken.manifest, str(taken.folder), "")
        except (FolderError, msgspec.DecodeError) as exc:
            text = str(exc)
            if self._failed.get(folder) != text:
                self._failed[folder] = text
                self._show(f"{folder.name}: the new code is not served, because it has a mistake:\n{text}")
            return False
        self._failed.pop(folder, None)
        known = self.releases.get(folder)
        self.releases[folder] = release
        self._launch(release, taken)
        tags = {(tag.function, tag.tag): tag for tag in registry.tags(OWNER, release.endpoint)}
        for entry in registry.manifest(release.release_id).functions:
            await asyncio.to_thread(registry.move, OWNER, release.endpoint, entry.name, DEV, release.release_id)
            if (entry.name, PROD) not in tags or (self._settings.follow and known is not None):
                await asyncio.to_thread(registry.move, OWNER, release.endpoint, entry.name, PROD, release.release_id)
        if known is not None and known.release_id != release.release_id:
            self._show(f"{folder.name}: release {release.release_id} is served as :dev{' and :prod' if self._settings.follow else ''}")
        return True

    def _launch(self, release: Release, taken: Snapshot) -> None:
        env = {"COZY_MODEL_OVERRIDES": ",".join(self._settings.models)} if self._settings.models else {}
        self.node.keeper.offer(
            Launch(
                release_id=release.release_id,
                owner=release.owner,
                folder=str(taken.folder),
                manifest=str(taken.folder.parent / "manifest.json"),
                python=taken.python,
                env=env,
            )
        )

    def _offer_tagged(self) -> None:
        """Have workers ready for what tags point at, and for nothing else."""
        registry, keeper = self.node.registry, self.node.keeper
        in_use = registry.in_use()
        for release in registry.releases(OWNER):
            folder = Path(release.source)
            if release.release_id not in in_use:
                keeper.withdraw(release.release_id)
            elif folder.is_dir():
                if keeper.launch_of(release.release_id) is None:  # of an earlier start
                    self._launch(release, Snapshot(folder, release.manifest, interpreter_of(folder)))
                keeper.keep_ready(release.release_id)

    async def _watch(self) -> None:
        seen = {folder: _stamp(folder) for folder in self._settings.folders}
        while True:
            await asyncio.sleep(WATCH_S)
            for folder in self._settings.folders:
                stamp = await asyncio.to_thread(_stamp, folder)
                if stamp != seen[folder]:
                    seen[folder] = stamp
                    if await self._release(folder):
                        self._offer_tagged()


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a project's files: equal while nothing was edited. Empty for a folder that cannot be read now."""
    try:
        found = [(str(path), path.stat()) for path in files_of(folder)]
    except (OSError, FolderError):
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in found)
