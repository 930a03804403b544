"""Deletes releases: first a final mark in the store, then the files.

    request --used? 409--> gone (no new run) --open run? 409--> marked in the store --> its workers end --> files to the trash --> cleared
                                                                    |  after a kill from here on, the next leader continues with the files

The mark is one statement with all conditions in it. So a concurrent promote finds the release either there or deleted,
and a tag never points at a deleted one. Files are deleted while no release is made (`Making`): if the same source is
published again, the release is there again, complete.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from gen_orchestrator.domain.access import ALL_OWNERS, Caller
from gen_orchestrator.domain.pruning import Aged, to_prune
from gen_orchestrator.hub.builds import Builds
from gen_orchestrator.hub.making import Making
from gen_orchestrator.hub.registry import InUseError, NotFoundError, Registry
from gen_orchestrator.hub.release_disk import DiskUse, ReleaseDisk
from gen_orchestrator.store.base import Release, StoreError
from gen_worker.images.engines import EngineError
from gen_worker.log import Log

WAIT_S = 15.0  # how long a caller waits for the deletion of files
LOOK_S = 0.05
USE_S = 30.0  # how long a measurement of the disk is valid
LOOKING_S = 2.0  # a slow engine must not hold up status requests
_ITSELF = Caller(ALL_OWNERS, (), "retention")


class Workers(Protocol):
    """What the fleet does for a deleted release."""

    def dismiss(self, release_id: str) -> None:
        """Start no more workers of it, and end the existing ones."""
        ...

    def has_workers(self, release_id: str) -> bool:
        """Whether a process of it may still use its files."""
        ...


class Removed(msgspec.Struct, frozen=True):
    """`freed_bytes` were freed so far. If `is_cleared` is false, the remaining files are deleted later."""

    release: Release
    is_cleared: bool
    freed_bytes: int


class Removal:
    """One for each leader, with this `epoch`. `open_runs` counts the open runs of a release. `note` writes an audit row
    (by whom, whose, action, subject, detail) and blocks.
    """

    def __init__(
        self,
        registry: Registry,
        epoch: int,
        disk: ReleaseDisk,
        builds: Builds,
        making: Making,
        workers: Workers,
        open_runs: Callable[[str], int],
        note: Callable[[Caller, str, str, str, str], None],
        log: Log,
    ) -> None:
        self._registry = registry
        self._epoch = epoch
        self._disk = disk
        self._builds = builds
        self._making = making
        self._workers = workers
        self._open_runs = open_runs
        self._note = note
        self._log = log
        self._clearing = asyncio.Lock()
        self._tasks: set[asyncio.Task[int | None]] = set()
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._used: dict[str, tuple[float, DiskUse]] = {}

    async def begin(self) -> None:
        """Continue with the files of releases that an earlier leader deleted."""
        left = [release for release in self._registry.deleted() if not release.cleared_at]
        await asyncio.to_thread(self._disk.forget_halves, self._registry.releases())
        await asyncio.to_thread(self._disk.throw_away)
        for release in left:
            self._soon(release)

    async def stop(self) -> None:
        """This leadership ends; the next leader continues."""
        tasks = [*self._tasks, *self._looking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def delete(self, release_id: str, by: Caller) -> Removed:
        """Delete a release; `InUseError` says what needs it, `NotFoundError` when it is already deleted."""
        marked = asyncio.create_task(self._mark(release_id, by), name=f"delete-{release_id}")
        release = await asyncio.shield(marked)  # a caller who leaves must not leave a half-deleted release
        clearing = self._soon(release)
        await asyncio.wait([clearing], timeout=WAIT_S)
        freed_bytes = clearing.result() if clearing.done() and not clearing.cancelled() else None
        return Removed(release, freed_bytes is not None, freed_bytes or 0)

    def to_prune(self, keep: int, owner: str = "", endpoint: str = "") -> list[str]:
        """All but the `keep` newest releases of each endpoint, oldest first, without those in use and those that a
        rollback would go to. Blocking.
        """
        kept = self._registry.in_use() | self._registry.before(owner, endpoint)
        releases = self._registry.releases(owner, endpoint)
        found = to_prune([Aged(each.release_id, (each.owner, each.endpoint), each.created_at) for each in releases], kept, keep)
        return [release_id for release_id in found if not self._open_runs(release_id)]

    async def prune(self, keep: int, owner: str = "", endpoint: str = "", by: Caller = _ITSELF) -> list[Removed]:
        """Delete them; releases that came into use meanwhile stay."""
        found = []
        for release_id in await asyncio.to_thread(self.to_prune, keep, owner, endpoint):
            with contextlib.suppress(InUseError, NotFoundError):
                found.append(await self.delete(release_id, by))
        return found

    def uses(self) -> tuple[DiskUse, DiskUse]:
        """The disk use of all releases, and of those that are not in use. Blocking."""
        every, unneeded = self._registry.releases(), set(self.to_prune(0))
        whole = self._disk.use(every)
        kept = self._disk.use(release for release in every if release.release_id not in unneeded)
        pairs = zip(msgspec.structs.astuple(whole), msgspec.structs.astuple(kept), strict=True)
        return whole, DiskUse(*(both - rest for both, rest in pairs))

    async def use(self, owner: str = "") -> DiskUse:
        """The disk space of an owner's releases, or of all; the last known value when measuring takes long."""
        found_at, known = self._used.get(owner, (float("-inf"), DiskUse()))
        if time.monotonic() - found_at < USE_S:
            return known
        looking = self._looking.get(owner)
        if looking is None:
            looking = self._looking[owner] = asyncio.create_task(self._look(owner), name="disk-use")
            looking.add_done_callback(lambda _: self._looking.pop(owner))
        done, _ = await asyncio.wait([looking], timeout=LOOKING_S)
        return self._used[owner][1] if done and owner in self._used else known

    async def _look(self, owner: str) -> None:
        found = await asyncio.to_thread(self._disk.use, self._registry.releases(owner))
        self._used[owner] = time.monotonic(), found

    async def _mark(self, release_id: str, by: Caller) -> Release:
        registry = self._registry
        if uses := registry.uses(release_id):
            raise InUseError(release_id, uses)
        registry.gone.add(release_id)  # from here on no run of it is accepted
        try:
            if count := self._open_runs(release_id):
                raise InUseError(release_id, [f"{count} of its runs {'is' if count == 1 else 'are'} still open"])
            release = await asyncio.to_thread(registry.delete, release_id, self._epoch)
        except BaseException:
            if not registry.is_deleted(release_id):
                registry.gone.discard(release_id)
            raise
        self._log.info("release.deleted", release_id=release_id)
        subject = f"{release.endpoint} {release_id}"
        await asyncio.to_thread(self._note, by, release.owner, "release.deleted", subject, release.message)
        self._used.clear()
        return release

    def _soon(self, release: Release) -> asyncio.Task[int | None]:
        task = asyncio.create_task(self._clear(release), name=f"clear-{release.release_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _clear(self, release: Release) -> int | None:
        """Remove its files; returns the bytes freed. None when it was published again, or the files stay for now."""
        release_id = release.release_id
        self._workers.dismiss(release_id)
        while self._workers.has_workers(release_id):  # noqa: ASYNC110 - they end by themselves, within the time of a drain
            await asyncio.sleep(LOOK_S)
        try:
            async with self._clearing:
                async with self._making.alone():
                    if not self._registry.is_deleted(release_id):
                        return None
                    freed_bytes = await asyncio.to_thread(self._disk.take_away, release)
                    await self._builds.forget(release_id)
                    await asyncio.to_thread(self._registry.note_cleared, release_id)
                freed_bytes += await asyncio.to_thread(self._disk.throw_away)
        except (OSError, EngineError, StoreError) as exc:
            self._log.warning("release.files_kept", release_id=release_id, error=str(exc))
            return None
        self._log.info("release.cleared", release_id=release_id, freed_bytes=freed_bytes)
        self._used.clear()
        return freed_bytes
