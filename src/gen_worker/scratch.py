"""Temporary folders that outlive no process: each says who owns it, and what a dead owner left is removed by the next program.

    <folder>/.gen-worker-owner   locked (flock) by the owner for as long as it lives; the kernel frees the lock however the process ends

A folder is removed only if it has this file, the file names this very folder, both belong to our user, and nobody
holds the lock. So a living owner keeps its folder, whoever it is: a process in another container, or a forked child that
still uses the folder of its dead parent. Everything else is left alone: a link, another user's folder, a folder without
the file, a copy of such a folder.

The file is removed last. A removal that is cut short is continued by the next program.
"""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gen_worker.shared_files import remove_tree

PREFIX = "gen-worker-"
OWNER = ".gen-worker-owner"
MAX_NAME_BYTES = 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Owned:
    """A folder that this process owns until `remove`, or until the process ends."""

    def __init__(self, folder: Path, lock: int | None) -> None:
        self.folder = folder
        self._lock = lock
        self._pid = os.getpid()

    def remove(self) -> None:
        """Remove the folder with everything in it; does nothing the second time, or in a forked child. Raises no `OSError`:
        what cannot be removed now is left to a later program.
        """
        lock, self._lock = self._lock, None
        if os.getpid() != self._pid:
            return
        with contextlib.suppress(OSError):
            _remove(self.folder)
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def scratch_folder(purpose: str = "") -> Iterator[Path]:
    """A new folder `gen-worker-<purpose>-...` below the folder for temporary files, removed at the end. Removes what dead
    owners left there.
    """
    sweep()
    owned = new_owned(Path(tempfile.gettempdir()), f"{PREFIX}{purpose}-" if purpose else PREFIX)
    try:
        yield owned.folder
    finally:
        owned.remove()


def new_owned(parent: Path, prefix: str) -> Owned:
    """A new folder with a random name below `parent`; `OSError` when it cannot be created."""
    while True:
        owned = own(Path(tempfile.mkdtemp(prefix=prefix, dir=parent)))
        if owned is not None:
            return owned


def own(folder: Path) -> Owned | None:
    """Own a folder that this process has just created; None if another program took it for a dead owner's before it was
    locked, and removed it.
    """
    try:
        lock = os.open(folder / OWNER, _FILE | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(lock)
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        (folder / OWNER).unlink(missing_ok=True)  # a file system without locks: nobody could tell whether the owner lives
        return Owned(folder, None)
    if os.fstat(lock).st_nlink == 0:
        os.close(lock)
        return None
    os.ftruncate(lock, 0)
    os.write(lock, _name_of(folder, folder.lstat()))
    return Owned(folder, lock)


def sweep(parent: Path | None = None) -> list[Path]:
    """Remove the folders of dead owners directly below `parent`; returns their paths. By default, below the folder for
    temporary files, and only those of `scratch_folder`. Raises no `OSError`. Blocking.
    """
    prefix = PREFIX if parent is None else ""
    folder = Path(tempfile.gettempdir()) if parent is None else parent
    removed: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False)]
    except OSError:
        return removed
    for name in names:
        with contextlib.suppress(OSError):
            if _remove_if_dead(folder / name):
                removed.append(folder / name)
    return removed


def _remove_if_dead(folder: Path) -> bool:
    inside = os.open(folder, _FOLDER)
    try:
        if os.fstat(inside).st_uid != os.geteuid():
            return False
        lock = os.open(OWNER, _FILE, dir_fd=inside)
        try:
            found = os.fstat(lock)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
                return False
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.fstat(inside)
            if not os.path.samestat(there, folder.lstat()) or os.pread(lock, MAX_NAME_BYTES, 0) != _name_of(folder, there):
                return False
            _remove(folder)
            return True
        finally:
            os.close(lock)
    finally:
        os.close(inside)


def _name_of(folder: Path, found: os.stat_result) -> bytes:
    """What the owner's file says: a copy of a folder has another name or another inode."""
    return f"{folder.name} {found.st_ino}\n".encode()


def _remove(folder: Path) -> None:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name != OWNER]
    for name in names:
        remove_tree(folder, name)
    remove_tree(folder.parent, folder.name)
