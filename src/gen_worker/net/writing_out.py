"""Writes received bytes to the disk while they arrive.

Otherwise the kernel keeps gigabytes of them in memory, and the next sync of another file, such as the database's, may have
to wait until all of them are on a slow disk.
"""

from typing import BinaryIO

from gen_worker.net.disk_calls import start_writing

WRITTEN_OUT_BYTES = 16 << 20


class WritingOut:
    """Adds bytes to an open file. After each 16 MiB the disk is asked to write them, and the previous 16 MiB are waited for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting_bytes = 0

    def write(self, data: bytes) -> None:
        """`OSError` when the disk is full, or could not write what came before."""
        self._file.write(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= WRITTEN_OUT_BYTES:
            self._waiting_bytes = 0
            self._file.flush()
            start_writing(self._file.fileno())
