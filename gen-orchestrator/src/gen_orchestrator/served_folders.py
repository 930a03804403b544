"""Publishes each edit of project folders as a release, while this node leads.

A folder's first release gets the tags `prod` and `dev`. Each edit makes a new release under `dev`; `prod` stays until a
promote, or moves along with `follow`. A release is a copy of the source, so working code keeps serving while new code
is broken.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.fleet.failures import source_gone
from gen_orchestrator.fleet.launch import Launch
from gen_orchestrator.hub.builders import is_image
from gen_orchestrator.hub.folders import FolderError, ReleaseFiles, files_of, interpreter_of
from gen_orchestrator.hub.registry import DEV, PROD
from gen_orchestrator.hub.snapshots import Snapshot, snapshot
from gen_orchestrator.store.base import Release, StoreError
from gen_orchestrator.term import Term
from gen_worker.project.watching import follow_changes

TRY_AGAIN_S = 0.5  # after an edit that could not become a release for a reason outside its code


class FolderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which folders, for whom. `models`: KEY=FOLDER overrides for all of them. Copies of the sources are below `data`.
    `gives_hub_tokens`: workers need one to get models from this platform.
    """

    folders: tuple[Path, ...]
    data: Path
    owner: str
    follow: bool = False
    models: tuple[str, ...] = ()
    gives_hub_tokens: bool = False
    environment: ChildEnvironment
    polls: bool = False  # check for edits twice a second instead of using notifications


class ServedFolders:
    """One for each node. `show` gets lines for people, `step` the current activity."""

    def __init__(self, settings: FolderSettings, show: Callable[[str], None], step: Callable[[str], None] = lambda text: None) -> None:
        self._settings = settings
        self._show = show
        self._step = step
        self._failed: dict[Path, str] = {}
        self._seen: dict[Path, object] = {}  # the folder's state when its last release was made
        self._edited: set[Path] = set()  # folders whose last edit may have no release yet
        self._news = asyncio.Event()
        self._term: Term | None = None
        self._earlier: list[str] = []
        self._lacking: dict[Path, str] = {}  # what was said of missing secrets and models, for each folder
        self.releases: dict[Path, Release] = {}

    async def watch(self) -> None:
        """Make releases of edits, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for folder in self._settings.folders:
                edited, say = partial(self._note_edit, folder), partial(self._say_of, folder)
                tasks.create_task(follow_changes(ReleaseFiles(folder), {}, edited, say, polls=self._settings.polls))
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(TRY_AGAIN_S if self._edited and self._leads() else None):
                        await self._news.wait()
                self._news.clear()
                for folder in self._settings.folders:
                    if folder in self._edited:
                        await self._take_up(folder)

    async def _note_edit(self, folder: Path, changed: str) -> None:
        self._edited.add(folder)
        self._news.set()

    def _say_of(self, folder: Path, text: str) -> None:
        self._show(f"{folder.name}: {text}")

    def _leads(self) -> bool:
        return self._term is not None and not self._term.over.done()

    async def _take_up(self, folder: Path) -> None:
        """Make a release of an edit. The folder stays in `_edited` while this node does not lead, or after a failure:
        then it is tried again.
        """
        stamp = await asyncio.to_thread(_stamp, folder)
        term = self._term
        if term is None or term.over.done():
            return
        try:
            if stamp != self._seen.get(folder) and await self._release(term, folder):
                self.offer_tagged()
        except Exception as exc:  # noqa: BLE001 - whatever becomes of a folder, the disk or the store: the watch goes on, and tries again
            text = f"the edit is not served yet: {type(exc).__name__}: {exc}"
            if self._failed.get(folder) != text:
                self._failed[folder] = text
                self._show(f"{folder.name}: {text}")
        else:
            self._seen[folder] = stamp
            if stamp == await asyncio.to_thread(_stamp, folder):
                self._edited.discard(folder)

    async def take(self, term: Term) -> None:
        """This node leads: make releases of the current folders, and keep workers ready."""
        self._term = None  # until all folders are done, because the watch would make releases of the same folders meanwhile
        for number, folder in enumerate(self._settings.folders, start=1):
            self._step(f"reading {folder.name} ({number} of {len(self._settings.folders)})")
            stamp = await asyncio.to_thread(_stamp, folder)  # taken before, so that an edit during this counts as another edit
            try:
                await self._release(term, folder)
            except StoreError:
                raise  # whoever leads next starts over
            except Exception as exc:  # noqa: BLE001 - one folder must not keep the others from being served; the watch tries it again
                self._show(f"{folder.name}: not served yet: {type(exc).__name__}: {exc}")
            else:
                self._seen[folder] = stamp
        self._term = term
        self._edited.update(self._settings.folders)  # edited meanwhile, or could not become a release
        self._news.set()
        self._earlier = self._of_earlier_starts(term)
        self.offer_tagged()

    async def _release(self, term: Term, folder: Path) -> bool:
        """Make a release of the folder; False when its code is broken and the last release stays."""
        async with term.making.making():
            return await self._release_now(term, folder)

    async def _release_now(self, term: Term, folder: Path) -> bool:
        registry, owner = term.registry, self._settings.owner
        try:
            taken = await snapshot(folder, self._settings.data / "releases", self._settings.environment)
            release = await asyncio.to_thread(registry.add, owner, taken.manifest, str(taken.folder), "")
        except (FolderError, msgspec.DecodeError) as exc:
            text = str(exc)
            if self._failed.get(folder) != text:
                self._failed[folder] = text
                self._show(f"{folder.name}: the new code is not served, because it has an error:\n{text}")
            return False
        was_broken = self._failed.pop(folder, None) is not None
        known = self.releases.get(folder)
        if known is not None and not registry.tags(owner, release.endpoint):
            self._show(f"{folder.name}: {owner}/{release.endpoint} was taken out of service; serve it again with: cozyctl up {folder.name}")
            return False
        self.releases[folder] = release
        self._launch(term, release, taken)
        tags = {(tag.function, tag.tag): tag for tag in registry.tags(owner, release.endpoint)}
        for entry in registry.manifest(release.release_id).callables:
            await asyncio.to_thread(registry.move, owner, release.endpoint, entry.name, DEV, release.release_id)
            if (entry.name, PROD) not in tags or (self._settings.follow and known is not None):
                await asyncio.to_thread(registry.move, owner, release.endpoint, entry.name, PROD, release.release_id)
        if known is not None and (was_broken or known.release_id != release.release_id):
            self._show(f"{folder.name}: release {release.release_id} is served as :dev{' and :prod' if self._settings.follow else ''}")
        await self._note_lacking(term, folder, release, is_first=known is None)
        return True

    async def _note_lacking(self, term: Term, folder: Path, release: Release, *, is_first: bool) -> None:
        """Report secrets that are not set, and models that are not here: otherwise only runs would say so. Once for the same ones."""
        keys_elsewhere = [each.partition("=")[0] for each in self._settings.models]
        problems = await asyncio.to_thread(term.models_of_releases.problems, release.release_id, keys_elsewhere)
        lacking = [*filter(None, [term.secrets.missing(release.release_id)]), *problems]
        text = "\n".join(f"warning: {folder.name}: {each}" for each in lacking)
        if text and not is_first and text != self._lacking.get(folder):
            self._show(text)
        self._lacking = {**{each: said for each, said in self._lacking.items() if each != folder}, **({folder: text} if text else {})}

    def _launch(self, term: Term, release: Release, taken: Snapshot | None) -> None:
        """Register how to start workers of a release; `taken`: its source, None when it is an image."""
        env = {"COZY_MODEL_OVERRIDES": ",".join(self._settings.models)} if self._settings.models and taken else {}
        if self._settings.gives_hub_tokens:
            env |= {"COZY_HUB_TOKEN": term.hub_token(release.owner), "COZY_MODELS_OWNER": release.owner}
        term.keeper.offer(
            Launch(
                release_id=release.release_id,
                owner=release.owner,
                folder=str(taken.folder) if taken else "",
                manifest=str(taken.folder.parent / "manifest.json") if taken else "",
                python=taken.python if taken else "",
                image="" if taken else release.source,
                env=env,
                variables=term.registry.manifest(release.release_id).env or {},
                limits=term.registry.scaling(release.release_id),
            )
        )

    def tell_of_earlier(self) -> None:
        """Report which releases of earlier starts are served besides those of the folders, and which cannot be; and which
        folders lack a secret or a model. Once, after the start.
        """
        told, self._earlier = [*self._lacking.values(), *self._earlier], []
        for text in told:
            self._show(text)

    def _of_earlier_starts(self, term: Term) -> list[str]:
        in_use = term.registry.in_use()
        served: dict[str, list[str]] = {}
        lost = []
        for release in term.registry.releases():
            if release.release_id not in in_use or term.keeper.launch_of(release.release_id) is not None:
                continue
            name, place = f"{release.owner}/{release.endpoint}", Path(release.source)
            if place.is_dir() or is_image(release.source):
                served.setdefault(name, []).append(release.release_id)
            elif release.source:
                lost.append(
                    f"{name}: release {release.release_id} has a tag, but cannot be served: its copy of the code, {place}, is gone; "
                    "name its project's folder, or point the tag at another release (cozyctl releases, cozyctl promote)"
                )
        if not served:
            return lost
        named = ", ".join(f"{name} ({', '.join(releases)})" for name, releases in served.items())
        others = [name for name in served if name not in {f"{each.owner}/{each.endpoint}" for each in self.releases.values()}]
        out = f"; take it out of service with: cozyctl rm {others[0] if len(others) == 1 else 'OWNER/ENDPOINT'}" if others else ""
        return [f"of an earlier start is also served, because a tag points at it: {named}{out}", *lost]

    def offer_tagged(self, linger_s: float = 0.0) -> None:
        """Keep workers ready for the releases that tags point at; the workers of a release that a tag has just left
        stay for `linger_s`. For other releases, workers start when a run requests one (`function@release`).
        """
        term = self._term
        if term is None or term.over.done():
            return
        registry, keeper = term.registry, term.keeper
        in_use = registry.in_use()
        for release in registry.releases():
            try:
                self._offer(term, release, linger_s, is_tagged=release.release_id in in_use)
            except Exception as exc:  # noqa: BLE001 - one release must not keep the others from being served
                keeper.cannot_start(release.release_id, f"it cannot be started: {type(exc).__name__}: {exc}")
                self._show(f"{release.owner}/{release.endpoint}: release {release.release_id} cannot be started: {exc}")

    def _offer(self, term: Term, release: Release, linger_s: float, *, is_tagged: bool) -> None:
        keeper, folder = term.keeper, Path(release.source)
        can_run = is_image(release.source) or folder.is_dir()
        if can_run and keeper.launch_of(release.release_id) is None:  # published, or from an earlier start
            taken = None if is_image(release.source) else Snapshot(folder, release.manifest, interpreter_of(folder))
            self._launch(term, release, taken)
        if not is_tagged:
            keeper.withdraw(release.release_id, linger_s)
        elif can_run:
            keeper.keep_ready(release.release_id)
        else:
            keeper.cannot_start(release.release_id, source_gone(release.source))


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a project's files: equal as long as nothing was edited. Empty for an unreadable folder."""
    try:
        found = [(str(path), path.stat()) for path in files_of(folder)]
    except (OSError, FolderError):
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in found)
