"""Disk space that only deletes may use.

SQLite must write in order to delete. So a full disk would refuse the deletes that could free space. Two pieces of disk
space, 8 MiB each, are reserved for them:

    behind the end of the write-ahead log   for the log itself: no other program can take a part of it
    in a file beside the store              for what the log does not cover, such as the log's index when the store opens

A delete writes into the first piece without noticing. When it still finds the disk full, the file shrinks by 1 MiB and
the delete tries again, until the file is empty: another program may take each freed part first, but hardly all of them.
While one of the pieces is not whole, the store accepts only operations that free space, so that new runs do not use it up.
"""

import contextlib
import errno
import os
import time
from pathlib import Path

from gen_worker.net.disk_calls import set_aside

NAME = "store.reserve"
SIZE_BYTES = 8 << 20  # of each piece
STEP_BYTES = 1 << 20
AGAIN_S = 0.5


class Reserve:
    """The reserve of one store, in the folder of its log. One call at a time."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._path = log.with_name(NAME)
        self._log_fd = -1
        self._end = 0  # of what is reserved behind the end of the log
        self._tried_s = float("-inf")
        self._is_whole = False
        self._is_possible = True

    def take(self) -> bool:
        """Reserve what is missing, once the log exists; returns whether nothing is missing now. A full disk is tried
        twice a second. If the file system cannot reserve space, there is no reserve, and nothing waits for one.
        """
        if not self._is_possible or (self._is_whole and self._size() + SIZE_BYTES <= self._end):
            return True
        now_s = time.monotonic()
        if not self._is_whole and now_s - self._tried_s < AGAIN_S:
            return False
        self._tried_s = now_s
        try:
            self._take_behind_log()
            self._take_file()
            self._is_whole = True
        except OSError as exc:
            self._is_whole = False
            self._is_possible = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        return self._is_whole or not self._is_possible

    def give_some(self) -> bool:
        """Make a part of the file free; returns False if nothing was left of it."""
        self._is_whole = False
        with contextlib.suppress(OSError):
            left_bytes = self._path.stat().st_size
            if left_bytes:
                os.truncate(self._path, max(0, left_bytes - STEP_BYTES))
                return True
        return False

    def close(self) -> None:
        """Let go of the log."""
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd = -1

    def _take_behind_log(self) -> None:
        if self._log_fd < 0:
            self._log_fd = os.open(self._log, os.O_RDWR | os.O_CLOEXEC)
            self._end = os.fstat(self._log_fd).st_blocks * 512  # what an earlier process reserved is still there
        size_bytes = self._size()
        start, end = max(size_bytes, self._end), size_bytes + SIZE_BYTES + STEP_BYTES
        if start < end - STEP_BYTES:
            set_aside(self._log_fd, end - start, start)
            self._end = end

    def _take_file(self) -> None:
        with self._path.open("ab") as file:
            left_bytes = os.fstat(file.fileno()).st_size
            if left_bytes < SIZE_BYTES:
                set_aside(file.fileno(), SIZE_BYTES - left_bytes, left_bytes)
                file.truncate(SIZE_BYTES)

    def _size(self) -> int:
        return os.fstat(self._log_fd).st_size
