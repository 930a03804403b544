"""Files that are being written. Each is locked for as long as its writer lives, so the next start knows which ones a dead writer left.

    begin(path)      creates the file, locked (flock, shared). The kernel frees the lock however the writer ends
    forget(paths)    removes those that nobody has locked

A file keeps its lock when it is renamed: rename it to its final name first, then close it. Several nodes may share a data folder, so a
file that this process does not know may have a writer elsewhere. On a disk without locks, `forget` removes nothing; then files go by their
age. Blocking, any thread.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO


def begin(path: Path) -> BinaryIO:
    """A new file for writing; `FileExistsError` when there is one."""
    while True:
        file = path.open("xb")
        try:
            is_ours = hold(file.fileno())
        except BaseException:
            file.close()
            raise
        if is_ours:
            return file
        file.close()  # `forget` came between, and removes it
        path.unlink(missing_ok=True)


def hold(fd: int) -> bool:
    """Lock an open file until it is closed. False when `forget` is about to remove it, or has removed it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return True
    return os.fstat(fd).st_nlink > 0


def forget(paths: Iterable[Path]) -> int:
    """Remove those files whose writers are dead; returns their number. Links are left alone."""
    count = 0
    for path in paths:
        with contextlib.suppress(OSError):  # it was finished meanwhile, or its writer lives
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), path.lstat()):
                    path.unlink()
                    count += 1
            finally:
                os.close(fd)
    return count
