"""Disk space that only deletes may use.

SQLite must write in order to delete. So a full disk would refuse the deletes that could free space. A file of a few MiB
beside the store reserves space for them:

    whole --a delete finds the disk full--> handed over to the write-ahead log --there is space again--> whole

While it is handed over, the store accepts only operations that free space, so that new runs do not use it up.
"""

import contextlib
import errno
import time
from pathlib import Path

from gen_worker.net.disk_calls import set_aside

NAME = "store.reserve"
SIZE_BYTES = 8 << 20
LOOSE_BYTES = 1 << 20  # the part not for the log: for its index, and for names in folders
AGAIN_S = 0.5


class Reserve:
    """The reserve of one store, in its folder. One call at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._tried_s = float("-inf")
        self._is_whole = False

    def take(self) -> bool:
        """Create the reserve if it is missing; returns whether it is there now. A full disk is tried twice a second. If
        the file system cannot reserve room, there is no reserve, and nothing waits for one.
        """
        now_s = time.monotonic()
        if self._is_whole or now_s - self._tried_s < AGAIN_S:
            return self._is_whole
        self._tried_s = now_s
        try:
            with self._path.open("ab") as file:
                set_aside(file.fileno(), SIZE_BYTES)
            self._is_whole = True
        except OSError as exc:
            self._is_whole = exc.errno not in (errno.ENOSPC, errno.EDQUOT)
        return self._is_whole

    def hand_over(self, log: Path) -> None:
        """Give the room to the write-ahead log if there is one: blocks after its end, which nobody else can take."""
        self._is_whole = False
        with contextlib.suppress(OSError):
            self._path.unlink()
        share_bytes = SIZE_BYTES - LOOSE_BYTES
        while share_bytes >= LOOSE_BYTES:
            try:
                with log.open("r+b") as file:
                    set_aside(file.fileno(), share_bytes)
                return
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    return
                share_bytes //= 2  # another program has taken the space in the meantime
