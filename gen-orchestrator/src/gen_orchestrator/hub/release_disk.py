"""The disk use of releases, and their deletion: folders of sources, environments that they share, images that the
platform built.

    releases/NAME/{source, manifest.json}    a published source, or a copy of a served folder; `source/.venv` links to its environment
    environments/KEY                         one for all releases that need the same packages
    trash/NAME                               about to be deleted

A folder is moved in one step, so that a kill in the middle leaves a release complete or gone; nothing uses folders in
`trash`. No release is made meanwhile (`Making`), because a build needs its environment before its release links to it.
All methods block.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from gen_orchestrator.hub.builders import ENVIRONMENTS, is_image
from gen_orchestrator.hub.environments import READY
from gen_orchestrator.hub.image_builder import OURS
from gen_orchestrator.store.base import Release
from gen_worker.images.engines import Engine, EngineError
from gen_worker.names import slugify

_ENVIRONMENT = re.compile(r"[0-9a-f]{16}")
TRASH = "trash"
RELEASES = "releases"


class DiskUse(msgspec.Struct, frozen=True):
    """Bytes of releases. Shared environments and image layers are counted once; only images built here count."""

    sources_bytes: int = 0
    environments_bytes: int = 0
    images_bytes: int = 0


class ReleaseDisk:
    """Below `data`. `find` returns the engine that has the images."""

    def __init__(self, data: Path, find: Callable[[], Engine]) -> None:
        self._data = data.absolute()
        self._find = find
        self._sizes: dict[str, int] = {}  # of things that never change once they exist
        self._layers: dict[str, dict[str, int]] = {}  # of a release's image: each layer's instruction and size in bytes

    def take_away(self, release: Release) -> int:
        """Move a release's files into the trash; returns the bytes freed by images. `OSError` and `EngineError` when
        that fails; it may be tried again.
        """
        if is_image(release.source):
            return self._remove_image(release)
        folder = self._folder_of(release)
        if folder is not None:
            self._to_trash(folder)
            # All that nobody links to, not the release's alone: a kill between these two steps leaves no link that names it.
            linked = self._linked()
            for path in list(self._entries(ENVIRONMENTS)):
                if _ENVIRONMENT.fullmatch(path.name) and path not in linked:
                    self._to_trash(path)
        return 0

    def forget_halves(self, releases: Iterable[Release]) -> None:
        """Move what interrupted builds have left into the trash: folders without a manifest, which is written last, and
        environments that were never finished. Nothing that one of these releases needs, and only while no release is made.
        """
        with contextlib.suppress(OSError):  # now, because on a disk that is full later there may be no room for a folder
            (self._data / TRASH).mkdir(mode=0o700, exist_ok=True)
        needed = {self._folder_of(release) for release in releases}
        for path in list(self._entries(RELEASES)):
            if path.is_dir() and path not in needed and not (path / "manifest.json").exists():
                self._to_trash(path)
        linked = self._linked()
        for path in list(self._entries(ENVIRONMENTS)):
            if _ENVIRONMENT.fullmatch(path.name) and path not in linked and not (path / READY).exists():
                self._to_trash(path)

    def throw_away(self) -> int:
        """Delete the trash, including what was left before a kill; returns the bytes freed."""
        freed_bytes = 0
        for path in self._entries(TRASH):
            size_bytes = size_of(path)
            shutil.rmtree(path, ignore_errors=True)
            freed_bytes += 0 if path.exists() else size_bytes
        return freed_bytes

    def use(self, releases: Iterable[Release]) -> DiskUse:
        """What these releases take together."""
        sources, environments, layers = 0, set[Path](), dict[str, int]()
        for release in releases:
            folder = self._folder_of(release)
            if is_image(release.source):
                layers |= self._layers_of(release)
            elif folder is not None and folder.is_dir():
                sources += self._size(folder)
                if (environment := self._environment_of(folder)) is not None:
                    environments.add(environment)
        return DiskUse(sources, sum(self._size(path) for path in environments), sum(layers.values()))

    def _folder_of(self, release: Release) -> Path | None:
        """The folder with all of a release; None when its source is not one of ours."""
        folder = Path(release.source).parent
        return folder if folder.parent == self._data / RELEASES else None

    def _linked(self) -> set[Path]:
        """Environments that a release links to."""
        found = (self._environment_of(folder) for folder in self._entries(RELEASES))
        return {path for path in found if path is not None}

    def _environment_of(self, folder: Path) -> Path | None:
        """The environment below `data` that a release's folder links to; None when it uses another."""
        try:
            found = (folder / "source" / ".venv").readlink()
        except OSError:
            return None
        return found if found.parent == self._data / ENVIRONMENTS else None

    def _to_trash(self, path: Path) -> None:
        trash = self._data / TRASH
        trash.mkdir(mode=0o700, exist_ok=True)
        self._sizes.pop(str(path), None)
        with contextlib.suppress(FileNotFoundError):
            path.rename(trash / f"{path.name}-{secrets.token_hex(4)}")

    def _remove_image(self, release: Release) -> int:
        """The image stays under other names: someone may need it."""
        engine = self._find()
        layers = self._layers_of(release)
        names = self._names_of(engine, release)
        for name in names:
            engine.remove(name)
        del self._layers[release.release_id]
        shared = {made for others in self._layers.values() for made in others}
        return sum(size for made, size in layers.items() if made not in shared) if names else 0

    def _layers_of(self, release: Release) -> dict[str, int]:
        """The layers of an image built here, by instruction and size; none for any other image."""
        if release.release_id not in self._layers:
            found: dict[str, int] = {}
            with contextlib.suppress(EngineError):
                engine = self._find()
                if self._names_of(engine, release):
                    found = {f"{each.instruction} {each.size_bytes}": each.size_bytes for each in engine.inspect(release.source).layers}
            self._layers[release.release_id] = found
        return self._layers[release.release_id]

    @staticmethod
    def _names_of(engine: Engine, release: Release) -> list[str]:
        """The names that this platform has given to a release's image; none when it is gone."""
        try:
            return [name for name in engine.names(release.source) if name.startswith(f"{OURS}/{slugify(release.owner)}/")]
        except EngineError:
            return []

    def _size(self, path: Path) -> int:
        name = str(path)
        if name not in self._sizes:
            self._sizes[name] = size_of(path)
        return self._sizes[name]

    def _entries(self, name: str) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            yield from (self._data / name).iterdir()


def size_of(path: Path) -> int:
    """Bytes on the disk; a file with several links in the folder counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - of tens of thousands
                if (status.st_dev, status.st_ino) not in seen and not stat.S_ISLNK(status.st_mode):
                    total += status.st_blocks * 512
                if status.st_nlink > 1:
                    seen.add((status.st_dev, status.st_ino))
    return total
