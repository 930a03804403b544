"""The store over time: check it, throw away what nobody needs, make room. Blocking."""

import os
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from gen_worker.content.cas import Cas, Snapshot
from gen_worker.content.disk import free_bytes
from gen_worker.content.lease_file import LeaseFile
from gen_worker.content.listing import RemoteFile
from gen_worker.net.digests import digest_file

ABANDONED_AFTER_S = 24 * 3600.0
LEAVINGS = (".part", ".part.json", ".part.json.new", ".new")


class Damage(msgspec.Struct, frozen=True):
    """A file that is not what its digest says. `found` is the digest of what is there, empty for nothing."""

    ref: str
    path: str
    expected: str
    found: str


class Collected(msgspec.Struct, frozen=True):
    """What a collection removed."""

    files: int
    size_bytes: int


def verify(ref: str, folder: Path, files: Iterable[RemoteFile]) -> Iterator[Damage]:
    """Hash every file of a model; what differs. Files whose digest nobody knows are not looked at."""
    for file in files:
        if not file.digest:
            continue
        path = folder / file.path
        found = digest_file(path, file.digest) if path.is_file() else ""
        if found != file.digest:
            yield Damage(ref, file.path, file.digest, found)


def repair(cas: Cas, snapshot: Snapshot, damaged: Iterable[Damage]) -> None:
    """Drop damaged blobs and the snapshot, so that the next fetch brings just them again."""
    by_path = {file.path: file for file in snapshot.listing.files}
    for damage in damaged:
        cas.blob_path(by_path[damage.path].digest).unlink(missing_ok=True)
    shutil.rmtree(snapshot.path, ignore_errors=True)


def collect(cas: Cas, *, now_s: float | None = None, grace_s: float = 3600.0) -> Collected:
    """Remove blobs of no snapshot, and what dead downloads left more than a day ago. Live downloads of any process are left alone.

    A blob without a snapshot is left for `grace_s`: a download may be about to make its snapshot.
    """
    now_s = time.time() if now_s is None else now_s
    files = size_bytes = 0
    for path in list(_abandoned(cas, now_s)) + list(_unreferenced(cas, now_s - grace_s)):
        size = _tree_bytes(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        files, size_bytes = files + 1, size_bytes + size
    cas.seals.collect()
    return Collected(files, size_bytes)


class StoreLimits(msgspec.Struct, frozen=True):
    """How large the store may grow (0: as its disk allows), and what stays free on its disk. Models used in the last minutes are not
    dropped."""

    max_bytes: int = 0
    floor_bytes: int = 0
    recent_s: float = 600.0


def make_room(cas: Cas, need_bytes: int, limits: StoreLimits, *, keep: Collection[str], held_bytes: int = 0) -> list[str]:
    """Drop the models that were used longest ago until `need_bytes` more fit, or none is left that may go; which ones went.

    `held_bytes` of what is needed are blocks that an interrupted download holds already.
    """
    short = _short_bytes(cas, need_bytes, held_bytes, limits)
    if short <= 0:
        return []
    gone = []
    for ref, _ in sorted(cas.inventory(), key=lambda item: cas.used_s(item[0])):
        if short <= 0:
            break
        if ref in gone or ref in keep or time.time() - cas.used_s(ref) < limits.recent_s:
            continue
        cas.forget(ref)
        short -= collect(cas, grace_s=0).size_bytes
        gone.append(ref)
    return gone


def _short_bytes(cas: Cas, need_bytes: int, held_bytes: int, limits: StoreLimits) -> int:
    if not need_bytes:
        return 0
    short = need_bytes - held_bytes + limits.floor_bytes - free_bytes(cas.root)
    if limits.max_bytes:
        used = sum(_size_bytes(blob) for blob in cas.blobs.glob("*/*/*") if not blob.name.endswith(LEAVINGS))
        short = max(short, used + need_bytes - limits.max_bytes)
    return short


def _abandoned(cas: Cas, now_s: float) -> Iterator[Path]:
    for path in cas.root.rglob("*"):
        leaving = path.name.endswith(LEAVINGS) or (".building" in path.name and path.parent == cas.snapshots)
        if leaving and now_s - _modified_s(path) > ABANDONED_AFTER_S and not _is_owned(cas, path):
            yield path
    for path in cas.locks.glob("*"):
        if now_s - _modified_s(path) > ABANDONED_AFTER_S and not LeaseFile(path).is_held():
            yield path


def _is_owned(cas: Cas, path: Path) -> bool:
    return LeaseFile(cas.locks / f"{path.name.partition('.')[0]}.lock").is_held()


def _unreferenced(cas: Cas, before_s: float) -> Iterator[Path]:
    needed: set[Path] = set()
    for manifest in cas.manifests.glob("*.json"):
        snapshot = cas.find(manifest.stem)
        if snapshot is not None:
            needed.update(cas.blob_path(file.digest) for file in snapshot.listing.files)
    for path in cas.blobs.glob("*/*/*"):
        if path.name.endswith(LEAVINGS) or path in needed or _has_other_names(path):
            continue
        if _modified_s(path) <= before_s and not _is_owned(cas, path):
            yield path


def _size_bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:  # another process has dropped it
        return 0


def _has_other_names(path: Path) -> bool:
    found = path.lstat() if os.path.lexists(path) else None
    return found is None or (stat.S_ISREG(found.st_mode) and found.st_nlink > 1)


def _modified_s(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def _tree_bytes(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() and file.lstat().st_nlink == 1)
    return path.lstat().st_blocks * 512 if os.path.lexists(path) else 0
