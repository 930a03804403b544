"""Builds turn published sources into releases, one at a time, in order of arrival.

    queued -> running -> succeeded (its release is there, tags that did not exist point at it) | failed | canceled

A build is a folder below `DATA/builds`: `build.json` with its state, `source.tar.gz`, and `log` with a line of JSON for each thing said.
So it survives this process: a build that was queued or running is started again by the next process. The source is deleted when the build
ends.
"""

import asyncio
import contextlib
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from gen_orchestrator.hub.archives import ArchiveError, unpack
from gen_orchestrator.hub.builders import Builder, BuildFailedError, Order
from gen_orchestrator.hub.making import Making
from gen_orchestrator.hub.registry import PROD, NotFoundError, Registry
from gen_orchestrator.store.base import StoreError
from gen_worker.log import Log
from gen_worker.names import is_run_id

Status = Literal["queued", "running", "succeeded", "failed", "canceled"]
MAX_QUEUED = 100
MAX_LOG_BYTES = 8 << 20
KEPT = 200
ARCHIVE = "source.tar.gz"


class Build(msgspec.Struct, kw_only=True):
    """A build as the API shows it. `image` is the published image, empty for a project's source. `existed`: an earlier
    build had published the same files, and nothing new was made. `created_at` and `finished_at` are unix seconds;
    `finished_at` is 0 until it is over.
    """

    build_id: str
    owner: str
    status: Status = "queued"
    message: str = ""
    builder: str = ""
    image: str = ""
    endpoint: str = ""
    release_id: str = ""
    error: str = ""
    existed: bool = False
    created_at: float = 0.0
    finished_at: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.status not in ("queued", "running")


class LogLine(msgspec.Struct, frozen=True):
    """`n` counts from 1."""

    n: int
    at: float
    text: str


class QueueFullError(Exception):
    """Too many builds are already waiting."""


class Builds:
    """One for each leader. `builders` by name; the first is for builds that name none. `on_release` is called when tags
    have moved. All methods except `reserve` and `drop` belong on the event loop.
    """

    def __init__(
        self,
        folder: Path,
        builders: Mapping[str, Builder],
        registry: Registry,
        now_s: Callable[[], float],
        log: Log,
        on_release: Callable[[], None],
        making: Making,
    ) -> None:
        self._folder = folder
        self._builders = builders
        self._registry = registry
        self._now_s = now_s
        self._log = log
        self._on_release = on_release
        self._making = making
        self._builds: dict[str, Build] = {}
        self._lines: dict[str, list[LogLine]] = {}
        self._queue: deque[str] = deque()
        self._news = asyncio.Event()
        self._changed: dict[str, asyncio.Event] = {}
        self._task: asyncio.Task[None] | None = None
        self._running: tuple[str, asyncio.Task[None]] | None = None

    async def start(self) -> None:
        """Continue the builds of an earlier leader."""
        for build in await asyncio.to_thread(self._read):
            self._builds[build.build_id] = build
            if not build.is_over:
                build.status = "queued"
                self._queue.append(build.build_id)
        self._news.set()
        self._task = asyncio.create_task(self._work(), name="builds")

    async def stop(self) -> None:
        """Stop running builds; the next leader builds them again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def builders(self) -> tuple[str, ...]:
        """The names of the available builders, the default one first."""
        return tuple(self._builders)

    def reserve(self, owner: str, message: str, builder: str = "", image: str = "") -> tuple[Build, Path]:
        """A new build, and the file for its archive. Blocking. `QueueFullError` when too many wait."""
        if len(self._queue) >= MAX_QUEUED:
            raise QueueFullError
        build = Build(
            build_id=f"b-{secrets.token_hex(8)}",
            owner=owner,
            message=message,
            builder=builder or self.builders[0],
            image=image,
            created_at=self._now_s(),
        )
        place = self._folder / build.build_id
        place.mkdir(parents=True)
        return build, place / ARCHIVE

    async def submit(self, build: Build) -> None:
        """Its archive has arrived: queue the build. Once this returns, it is built even if this process dies."""
        await asyncio.to_thread(self._write, build)
        self._builds[build.build_id] = build
        self._queue.append(build.build_id)
        self._forget_old()
        self._news.set()

    def drop(self, build: Build) -> None:
        """Its archive did not arrive. Blocking."""
        shutil.rmtree(self._folder / build.build_id, ignore_errors=True)

    def get(self, build_id: str) -> Build | None:
        return self._builds.get(build_id) if is_run_id(build_id) else None

    def newest_first(self, owner: str = "") -> list[Build]:
        found = [build for build in self._builds.values() if owner in ("", build.owner)]
        return sorted(found, key=lambda build: build.created_at, reverse=True)

    async def lines(self, build: Build, after: int) -> list[LogLine]:
        """Lines of its log after line `after`."""
        known = self._lines.get(build.build_id)
        if known is None:
            known = await asyncio.to_thread(self._read_log, build.build_id)
        return known[after:]

    async def wait(self, build: Build, after: int, timeout_s: float) -> None:
        """Wait until the build is over, or has log lines after `after`, or the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not build.is_over and (after < 0 or len(self._lines.get(build.build_id, ())) <= after):
                    await self._changed.setdefault(build.build_id, asyncio.Event()).wait()

    async def forget(self, release_id: str) -> None:
        """Remove the builds of a deleted release, with their logs."""
        for build in [build for build in self._builds.values() if build.release_id == release_id and build.is_over]:
            await asyncio.to_thread(self.drop, build)
            self._builds.pop(build.build_id, None)
            self._lines.pop(build.build_id, None)

    async def cancel(self, build: Build) -> None:
        """Cancel the build; a finished one is unchanged."""
        if build.is_over:
            return
        if self._running is not None and self._running[0] == build.build_id:
            task = self._running[1]
            task.cancel()
            await asyncio.wait([task])
        else:
            self._queue.remove(build.build_id)
        if not build.is_over:
            await self._finish(build, "canceled")

    async def _work(self) -> None:
        while True:
            while self._queue:
                build = self._builds[self._queue.popleft()]
                task = asyncio.create_task(self._make(build), name=f"build-{build.build_id}")
                self._running = build.build_id, task
                try:
                    await asyncio.wait([task])
                finally:
                    task.cancel()
                    self._running = None
            self._news.clear()
            await self._news.wait()

    async def _make(self, build: Build) -> None:
        async with self._making.making():
            await self._build(build)

    async def _build(self, build: Build) -> None:
        place = self._folder / build.build_id
        source = place / "source"
        build.status = "running"
        (place / "log").unlink(missing_ok=True)
        self._lines[build.build_id] = []
        with (place / "log").open("ab") as file:

            def say(text: str) -> None:
                lines = self._lines[build.build_id]
                if file.tell() > MAX_LOG_BYTES:
                    return
                lines.append(LogLine(len(lines) + 1, self._now_s(), text[:4000]))
                file.write(msgspec.json.encode(lines[-1]) + b"\n")
                file.flush()
                self._tell(build)

            try:
                await asyncio.to_thread(shutil.rmtree, source, ignore_errors=True)
                if not build.image:
                    await asyncio.to_thread(_unpack, place / ARCHIVE, source)
                builder = self._builders.get(build.builder or self.builders[0])
                if builder is None:
                    raise BuildFailedError(f"this platform no longer has the builder {build.builder!r}: {', '.join(self.builders)}")
                built = await builder.build(Order(owner=build.owner, source=source, image=build.image), say)
                before = {each.release_id for each in self._registry.releases(build.owner)}
                release = await asyncio.to_thread(self._registry.add, build.owner, built.manifest, built.source, build.message)
                build.existed = release.release_id in before
                build.endpoint, build.release_id = release.endpoint, release.release_id
                await asyncio.to_thread(self._tag_new, build)
                say(f"release {release.release_id}{' existed already: its files are the same' if build.existed else ''}")
            except (ArchiveError, BuildFailedError, NotFoundError, msgspec.DecodeError) as exc:
                build.error = str(exc).removeprefix("error: ")  # a command's own message has begun with it
                say(f"error: {build.error}")
            except Exception as exc:  # noqa: BLE001 - the boundary: a build that broke has ended, and others follow
                known = isinstance(exc, (OSError, StoreError))
                build.error = f"the platform failed: {exc if known else type(exc).__name__}"
                self._log.error("build.broken", build_id=build.build_id, error=repr(exc))
        await self._finish(build, "failed" if build.error else "succeeded")
        if not build.error:
            self._on_release()

    def _tag_new(self, build: Build) -> None:
        """A function's first release gets the tag `prod`; later ones move no tag."""
        known = {(tag.function, tag.tag) for tag in self._registry.tags(build.owner, build.endpoint)}
        for entry in self._registry.manifest(build.release_id).callables:
            if (entry.name, PROD) not in known:
                self._registry.move(build.owner, build.endpoint, entry.name, PROD, build.release_id, expected="")

    async def _finish(self, build: Build, status: Status) -> None:
        build.status, build.finished_at = status, self._now_s()
        try:
            await asyncio.to_thread(self._close, build)
        except OSError as exc:
            self._log.error("build.not_recorded", build_id=build.build_id, error=str(exc))
        self._tell(build)

    def _tell(self, build: Build) -> None:
        changed = self._changed.pop(build.build_id, None)
        if changed is not None:
            changed.set()

    def _forget_old(self) -> None:
        over = [build for build in self._builds.values() if build.is_over]
        for build in sorted(over, key=lambda build: build.created_at)[: max(0, len(over) - KEPT)]:
            del self._builds[build.build_id]
            self._lines.pop(build.build_id, None)
            self.drop(build)

    def _write(self, build: Build) -> None:
        path = self._folder / build.build_id / "build.json"
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(build))
        new.replace(path)

    def _close(self, build: Build) -> None:
        """Record the build's end, and remove its source. If a full disk refuses the record, the source is removed
        first, which makes room.
        """
        place = self._folder / build.build_id
        shutil.rmtree(place / "source", ignore_errors=True)  # first, because a repeated build unpacks it again
        try:
            self._write(build)
        except OSError:
            (place / ARCHIVE).unlink(missing_ok=True)
            self._write(build)
        (place / ARCHIVE).unlink(missing_ok=True)

    def _read(self) -> list[Build]:
        found = []
        for path in sorted(self._folder.glob("*/build.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Build))
            except (OSError, msgspec.DecodeError) as exc:
                self._log.warning("build.unreadable", path=str(path), error=str(exc))
        for place in self._folder.glob("*"):
            if not (place / "build.json").exists():
                shutil.rmtree(place, ignore_errors=True)  # its archive never arrived completely
        return sorted(found, key=lambda build: build.created_at)

    def _read_log(self, build_id: str) -> list[LogLine]:
        try:
            lines = (self._folder / build_id / "log").read_bytes().splitlines()
            return [msgspec.json.decode(line, type=LogLine) for line in lines]
        except (OSError, msgspec.DecodeError):
            return []


def _unpack(archive: Path, into: Path) -> None:
    into.mkdir(parents=True)
    with archive.open("rb") as file:
        if unpack(file, archive.stat().st_size, into) == 0:
            raise ArchiveError("the archive has no files")
