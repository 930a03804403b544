"""Bounded log files of workers: the oldest lines of a worker are dropped, and the oldest files of workers that have exited.

A worker writes into its file itself, even while the platform is down, so the file cannot be renamed or truncated. Instead, the space of old
lines is released in place (`fallocate` with a hole): offsets stay valid for readers, and no new line is lost. If the file system does not
support holes, a file that is too long is restarted, and readers restart with it.
"""

import asyncio
import ctypes
import os
from collections.abc import Collection, Mapping
from pathlib import Path

MAX_BYTES = 64 << 20  # kept for a worker
MAX_FILES = 50  # kept for workers that have exited
TAIL_BYTES = 16 << 10
BOUND_S = 5.0
_KEEP_SIZE_AND_PUNCH = 0x01 | 0x02
_BLOCK = 4096


class LogFiles:
    """In one folder. All methods block."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def path(self, worker_id: str) -> Path:
        return self._folder / f"{worker_id}.log"

    def tail(self, worker_id: str) -> bytes:
        """The last whole lines written by a worker; empty without a file. In a part of a line, a part of a secret would not be found."""
        place = max(0, self.end(worker_id) - TAIL_BYTES)
        found = self.read(worker_id, place, TAIL_BYTES) or b""
        return found.partition(b"\n")[2] if place else found

    def read(self, worker_id: str, place: int, most: int) -> bytes | None:
        """At most `most` bytes from an offset on; None without a file. Bytes that are no longer kept read as zeros."""
        try:
            with self.path(worker_id).open("rb") as log:
                log.seek(place)
                return log.read(most)
        except OSError:
            return None

    def begin(self, worker_id: str) -> int:
        """The offset of the first kept byte."""
        try:
            with self.path(worker_id).open("rb") as log:
                return os.lseek(log.fileno(), 0, os.SEEK_DATA)
        except OSError:  # no file, or an empty one
            return 0

    def end(self, worker_id: str) -> int:
        """How many bytes a worker has written."""
        try:
            return self.path(worker_id).stat().st_size
        except OSError:
            return 0

    def bound(self, present: Collection[str]) -> None:
        """Drop what exceeds the limits. `present`: workers that still write."""
        try:
            files = sorted(self._folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
        except OSError:  # the folder does not exist yet, or a file was deleted meanwhile: try again next time
            return
        gone = [path for path in files if path.stem not in present]
        for path in gone[: max(0, len(gone) - MAX_FILES)]:
            path.unlink(missing_ok=True)
        for path in files:
            self._bound_file(path)

    def _bound_file(self, path: Path) -> None:
        try:
            with path.open("r+b") as log:
                status = os.fstat(log.fileno())
                first = max(0, status.st_size - self._max_bytes) // _BLOCK * _BLOCK
                # Only when a quarter more than the limit has collected, not at each line.
                if first - self.begin(path.stem) <= self._max_bytes // 4:
                    return
                if not _punch(log.fileno(), first):
                    log.truncate(0)
        except OSError:
            return


async def keep_bounded(logs: LogFiles, present: Mapping[str, object]) -> None:
    """Limit them every few seconds, for ever; the keys of `present` are the workers that still write."""
    while True:
        await asyncio.to_thread(logs.bound, list(present))
        await asyncio.sleep(BOUND_S)


def _punch(descriptor: int, size_bytes: int) -> bool:
    """Release the disk space of this many bytes at the beginning of a file, which keeps its length; False when that is not supported."""
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is None:
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(descriptor, _KEEP_SIZE_AND_PUNCH, 0, size_bytes) == 0)
