"""The disk use of the data folder, by kind, and which command frees how much of it."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from gen_orchestrator.hub.model_records import DamagedStoreError
from gen_orchestrator.hub.models import ModelStore
from gen_orchestrator.hub.release_disk import DiskUse, size_of

LITTLE = 0.05  # of the disk's size
KINDS = ("store", "models", "files", "releases", "environments", "images", "logs", "other")
_FOLDERS = {
    "models": "models",
    "blobs": "files",  # files of callers and of runs
    "files": "files",
    "uploads": "files",
    "releases": "releases",
    "builds": "releases",
    "archives": "releases",
    "environments": "environments",
    "image-caches": "images",
    "logs": "logs",
    "container-logs": "logs",
}


class Freeable(msgspec.Struct, frozen=True):
    """What a command frees; `what` names it for people."""

    command: str
    size_bytes: int
    what: str


class DiskReport(msgspec.Struct, frozen=True, kw_only=True):
    """`bytes` by kind. `free_bytes` is what this program may still write on the disk of `size_bytes` that has the folder."""

    folder: str
    size_bytes: int
    free_bytes: int
    bytes: dict[str, int]
    freeable: tuple[Freeable, ...]

    @property
    def is_nearly_full(self) -> bool:
        return self.free_bytes < LITTLE * self.size_bytes


class DataFolder:
    """The data folder of one platform. `releases` gives the bytes of all releases, and of those that are not in use. Blocking."""

    def __init__(self, folder: Path, models: ModelStore, releases: Callable[[], tuple[DiskUse, DiskUse]] | None = None) -> None:
        self._folder = folder
        self._models = models
        self._releases = releases

    def look(self) -> DiskReport:
        """Read the whole folder: takes seconds if there are many files."""
        found = dict.fromkeys(KINDS, 0)
        for path in _entries(self._folder):
            found[_kind(path.name)] += _taken(path)
        freeable = [*self._unused_models()]
        if self._releases is not None:
            every, unneeded = self._releases()
            found["images"] += every.images_bytes  # their container engine keeps these outside of the data folder
            if (size_bytes := sum(msgspec.structs.astuple(unneeded))) > 0:
                freeable.append(Freeable("cozyctl releases prune --keep 0", size_bytes, "releases that nothing needs"))
        disk = shutil.disk_usage(self._folder)
        return DiskReport(folder=str(self._folder), size_bytes=disk.total, free_bytes=disk.free, bytes=found, freeable=tuple(freeable))

    def _unused_models(self) -> Iterable[Freeable]:
        try:
            size_bytes = self._models.unused_bytes()
        except DamagedStoreError:  # the collection itself reports it
            return
        if size_bytes:
            yield Freeable("cozyctl models hub gc", size_bytes, "files that no model has; those of the last hour stay")


def _taken(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return size_of(path) if path.is_dir() else path.lstat().st_blocks * 512
    return 0


def _kind(name: str) -> str:
    if name.startswith("store."):
        return "store"
    if name.startswith("orchestrator.log"):
        return "logs"
    return _FOLDERS.get(name, "other")


def _entries(folder: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(folder)]
    except FileNotFoundError:
        return []
