"""Maintains the store: checks it, removes what nobody needs, makes room. Blocking."""

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
    """A file whose content does not match its digest. `found` is the digest of the content; empty when the file is missing."""

    ref: str
    path: str
    expected: str
    found: str


class Collected(msgspec.Struct, frozen=True):
    """What a collection removed."""

    files: int
    size_bytes: int


def verify(ref: str, folder: Path, files: Iterable[RemoteFile]) -> Iterator[Damage]:
    """Hash every file of a model; returns those that differ. Files without a known digest are skipped."""
    for file in files:
        if not file.digest:
            continue
        path = folder / file.path
        found = digest_file(path, file.digest) if path.is_file() else ""
        if found != file.digest:
            yield Damage(ref, file.path, file.digest, found)


def repair(cas: Cas, snapshot: Snapshot, damaged: Iterable[Damage]) -> None:
    """Remove damaged blobs and their snapshot, so that the next fetch brings just these."""
    by_path = {file.path: file for file in snapshot.listing.files}
    for damage in damaged:
        cas.blob_path(by_path[damage.path].digest).unlink(missing_ok=True)
    shutil.rmtree(snapshot.path, ignore_errors=True)


def collect(cas: Cas, *, now_s: float | None = None, grace_s: float = 3600.0) -> Collected:
    """Remove blobs without a snapshot, and leftovers of downloads that died more than a day ago. Running downloads of
    any process are left alone.

    A blob without a snapshot is kept for `grace_s`, because a download may be about to publish its snapshot.
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
    """How large the store may grow (0: as large as its disk allows) and how much stays free on its disk. Models used in
    the last minutes are not removed.
    """

    max_bytes: int = 0
    floor_bytes: int = 0
    recent_s: float = 600.0


def make_room(cas: Cas, need_bytes: int, limits: StoreLimits, *, keep: Collection[str], held_bytes: int = 0) -> list[str]:
    """Remove the least recently used models until `need_bytes` more fit or none is left that may be removed; returns
    those removed.

    `held_bytes` of what is needed are blocks that an interrupted download already holds.
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
    except FileNotFoundError:  # another process removed it
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
