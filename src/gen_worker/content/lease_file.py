"""A lock with one owner across processes that also works where file locks cannot be trusted.

The lock file is created with O_EXCL and names its owner. The file of a dead owner is taken over under a POSIX record
lock. On some network file systems such locks always succeed, so there the takeover is verified by its result. An owner
on another machine counts as dead when it has not touched its file for a minute.
"""

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gen_worker.shared_files import open_own, read_whole

FOREIGN_DEAD_AFTER_S = 60.0
TOUCH_EVERY_S = 5.0


class Owner(msgspec.Struct, frozen=True):
    """A process: the boot id of its machine, its process id, and its start time, because process ids are reused."""

    boot_id: str
    pid: int
    started: str
    token: str


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.uname().nodename


def _start_of(pid: int) -> str:
    """When a process started, in kernel ticks; empty when it does not exist."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            return "alive"
        return "alive"
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


class LeaseFile:
    """A lock to try, held until `release` or until this process dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mine = Owner(_boot_id(), os.getpid(), _start_of(os.getpid()), secrets.token_hex(8))
        self._touched_s = 0.0

    def try_acquire(self) -> bool:
        """True when this object is now the owner."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._create():
            return True
        owner = self._owner()
        if owner is None or self._is_alive(owner):
            return False
        with _record_lock(self.path.with_name(self.path.name + ".takeover")) as locked:
            if not locked or self._owner() != owner:
                return False
            grave = self.path.with_name(f"{self.path.name}.{self._mine.token}")
            try:
                self.path.rename(grave)
            except FileNotFoundError:
                return False
            moved = _read_owner(grave)
            if moved != owner and moved is not None:
                _link_back(grave, self.path)  # another process took it over first, and this file is theirs
                return False
            grave.unlink(missing_ok=True)
            return self._create()

    def is_held(self) -> bool:
        """Whether a living process owns the lock."""
        owner = self._owner()
        return owner is not None and self._is_alive(owner)

    def touch(self) -> None:
        """Tell other machines that the owner is alive."""
        now_s = time.monotonic()
        if now_s - self._touched_s > TOUCH_EVERY_S:
            self._touched_s = now_s
            try:
                os.utime(self.path, follow_symlinks=False)
            except FileNotFoundError:
                pass

    def release(self) -> None:
        if self._owner() == self._mine:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(self._mine))
        return self._owner() == self._mine

    def _owner(self) -> Owner | None:
        return _read_owner(self.path)

    def _is_alive(self, owner: Owner) -> bool:
        if owner.boot_id == self._mine.boot_id:
            return _start_of(owner.pid) == owner.started
        try:
            return time.time() - self.path.lstat().st_mtime < FOREIGN_DEAD_AFTER_S
        except FileNotFoundError:
            return False


_UNREADABLE = Owner("", 0, "", "")


def _read_owner(path: Path) -> Owner | None:
    """The owner in the file; None when there is none. An unreadable file may be in the middle of a write; once it is
    old, its owner is dead.
    """
    try:
        return msgspec.json.decode(read_whole(path), type=Owner)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return _UNREADABLE


def _link_back(grave: Path, path: Path) -> None:
    try:
        os.link(grave, path)
    except OSError:
        return
    finally:
        grave.unlink(missing_ok=True)


_threads = threading.Lock()  # record locks do not exclude threads of the same process


@contextmanager
def _record_lock(path: Path) -> Iterator[bool]:
    if not _threads.acquire(blocking=False):
        yield False
        return
    try:
        fd = open_own(path, os.O_RDWR)
        try:
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True
        finally:
            os.close(fd)
    finally:
        _threads.release()
