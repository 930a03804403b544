"""Linux file calls that Python lacks. On other systems the nearest equivalent, or nothing."""

import ctypes
import errno
import fcntl
import os
from typing import Any

_WAIT_BEFORE, _WRITE = 1, 2
_KEEP_SIZE = 1
_COPIED_BYTES = 64 << 20  # between two checks for signals
_FICLONE = 0x40049409  # linux/fs.h


def reserve(fd: int, size_bytes: int) -> None:
    """Ask the disk to reserve a file's blocks if it can and has the room: it then writes longer pieces, and nobody else
    takes the room.

    Not `os.posix_fallocate`: on file systems without support the C library would write every block instead.
    """
    stat, disk = os.fstat(fd), os.fstatvfs(fd)
    missing = size_bytes - stat.st_blocks * 512
    call = _call("fallocate")
    if call is not None and 0 < missing < disk.f_bavail * disk.f_frsize:
        call(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size_bytes))  # if refused, the file grows as it is written


def set_aside(fd: int, size_bytes: int, start: int) -> None:
    """Reserve the blocks of this many bytes of a file from `start` on, also behind its end, without changing its size.
    `OSError`: ENOSPC if there is no room, EOPNOTSUPP if the file system or the system cannot do it.
    """
    call = _call("fallocate")
    if call is None or call(fd, _KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(size_bytes)):
        code = errno.EOPNOTSUPP if call is None else ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def start_writing(fd: int) -> None:
    """Ask the disk to write what was added to a file so far, and wait for the previous request; `OSError` when that failed."""
    call = _call("sync_file_range")
    if call is None:
        os.fsync(fd)
    elif call(fd, ctypes.c_int64(0), ctypes.c_int64(0), _WAIT_BEFORE | _WRITE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def share_bytes(source: int, target: int) -> bool:
    """Make an empty file a copy of another one that shares its bytes, on file systems that can (Btrfs, XFS); whether that worked."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def copy_bytes(source: int, target: int) -> bool:
    """Copy a file from its position into another, without reading the bytes into this process; returns whether the
    files now share their bytes.

    The disk starts writing meanwhile: gigabytes left for one sync at the end would delay every other program that
    syncs.
    """
    if share_bytes(source, target):
        return True
    try:
        while os.copy_file_range(source, target, _COPIED_BYTES):
            start_writing(target)
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while os.sendfile(target, source, None, _COPIED_BYTES):  # for file systems that cannot share bytes
            start_writing(target)
    return False


def _call(name: str) -> Any:
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)
