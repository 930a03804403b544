"""Disks: the file system of a folder, and whether more fits there."""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gen_worker.errors import DiskFullError
from gen_worker.net.part_file import part_path

_ESCAPE = re.compile(r"\\([0-7]{3})")
_NETWORK = frozenset({"nfs", "nfs4"})


class Mount(msgspec.Struct, frozen=True):
    """A mounted file system. `source` may name a server, so it never leaves this machine; `volume_key` may."""

    mountpoint: str
    fstype: str
    source: str

    @property
    def is_nfs(self) -> bool:
        return self.fstype in _NETWORK

    @property
    def backend(self) -> str:
        return "nfs" if self.is_nfs else "local"

    @property
    def volume_key(self) -> str:
        return hashlib.sha256(f"{self.fstype}|{self.source}|{self.mountpoint}".encode()).hexdigest()


def mount_of(path: Path, mountinfo: str | None = None) -> Mount | None:
    """The file system of a path, from the kernel's table (proc(5), mountinfo); None on systems without that table."""
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return None
    target, best = os.path.realpath(path), None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 2:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best.mountpoint)):
            best = Mount(point, kind[0], _ESCAPE.sub(lambda match: chr(int(match[1], 8)), kind[1]))
    return best


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the folder's disk. The folder need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def has_size(path: Path, size_bytes: int) -> bool:
    """Whether a file of this size exists."""
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size_bytes


def growth_bytes(path: Path, size_bytes: int) -> int:
    """Bytes that the disk must still provide for a complete download at `path`: 0 when it is complete; blocks that an
    interrupted download already holds do not count.
    """
    if has_size(path, size_bytes):
        return 0
    try:
        return max(0, size_bytes - part_path(path).stat().st_blocks * 512)
    except OSError:
        return size_bytes


def missing_bytes(sizes: Mapping[Path, int]) -> tuple[int, int]:
    """Bytes to fetch for these files, and bytes that the disk must still provide for them."""
    brings = sum(size for path, size in sizes.items() if not has_size(path, size))
    return brings, sum(growth_bytes(path, size) for path, size in sizes.items())


def admit(folder: Path, need_bytes: int, floor_bytes: int, what: str) -> None:
    """`DiskFullError` when `need_bytes` more would leave less than `floor_bytes` free."""
    free = free_bytes(folder)
    if need_bytes and need_bytes + floor_bytes > free:
        raise DiskFullError(
            f"disk_full: {what} needs {need_bytes / 1e9:.2f} GB more, {free / 1e9:.2f} GB are free, "
            f"and {floor_bytes / 1e9:.2f} GB stay free. "
            "Make room (cozyctl models gc), or choose another disk with TENSORHUB_CACHE_DIR."
        )
