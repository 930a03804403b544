"""A log file of a bounded size."""

import io
import os
import threading
from pathlib import Path

MAX_BYTES = 64 << 20


class BoundedLog(io.TextIOBase):
    """Text written to a file. When the file reaches `max_bytes` it becomes `NAME.1`, replacing the previous one, and a
    new file begins: so at most twice that is kept. A write is never split. Safe from any thread.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._open()

    def write(self, text: str) -> int:
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._file.closed and not self.closed:  # opening it failed the last time
                self._open()
            elif self._size_bytes and self._size_bytes + len(data) > self._max_bytes:
                self._begin_anew()
            self._file.write(data)
            self._size_bytes += len(data)
        return len(text)

    def close(self) -> None:
        with self._lock:
            self._file.close()
        super().close()

    def _begin_anew(self) -> None:
        self._file.close()
        try:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        except OSError:
            self._path.unlink(missing_ok=True)  # stays bounded in any case
        self._open()

    def _open(self) -> None:
        self._file = self._path.open("ab", buffering=0)
        self._size_bytes = os.fstat(self._file.fileno()).st_size
