"""Calls of Linux about files that Python does not have. Where there are none, the nearest that it has, or nothing."""

import ctypes
import errno
import fcntl
import os
from typing import Any

_WAIT_BEFORE, _WRITE = 1, 2
_KEEP_SIZE = 1
_FICLONE = 0x40049409  # linux/fs.h


def reserve(fd: int, size_bytes: int) -> None:
    """Have the disk set a file's blocks aside, if it can and has the room: it writes longer pieces then, and nobody else takes the room.

    Not `os.posix_fallocate`: on file systems that cannot do it the C library would write every block instead.
    """
    stat, disk = os.fstat(fd), os.fstatvfs(fd)
    missing = size_bytes - stat.st_blocks * 512
    call = _call("fallocate")
    if call is not None and 0 < missing < disk.f_bavail * disk.f_frsize:
        call(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size_bytes))  # refused: the file grows as it is written


def set_aside(fd: int, size_bytes: int) -> None:
    """Have the disk keep so many bytes behind the end of a file for it, whose size stays. `OSError`: ENOSPC where there is no room,
    EOPNOTSUPP where the file system or the system cannot."""
    call = _call("fallocate")
    end = os.fstat(fd).st_size
    if call is None or call(fd, _KEEP_SIZE, ctypes.c_int64(end), ctypes.c_int64(size_bytes)):
        code = errno.EOPNOTSUPP if call is None else ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def start_writing(fd: int) -> None:
    """Have the disk begin with what was written to a file so far, and wait for what it began with before; `OSError` when that failed."""
    call = _call("sync_file_range")
    if call is None:
        os.fsync(fd)
    elif call(fd, ctypes.c_int64(0), ctypes.c_int64(0), _WAIT_BEFORE | _WRITE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def share_bytes(source: int, target: int) -> bool:
    """Make an empty file a copy of another that takes no room of its own, on file systems that can (Btrfs, XFS); whether it is one now."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _call(name: str) -> Any:
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)
