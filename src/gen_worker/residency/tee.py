"""Weights that have just arrived go on to pinned host memory while the rest of their model still comes, so that loading it needs no file.

A file is handed over when its digest has been found right: nothing that could still turn out wrong is kept anywhere else.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gen_worker.residency.host_tier import DISK_BYTES_S, HostTier, file_key
from gen_worker.sources.weight_files import HeaderError, header_size, read_header

ABOVE_BYTES = 4 << 20  # smaller files are not worth a buffer of their own
PIECE_BYTES = 8 << 20


class Tee:
    """`host` gives the tier, None where there is none; it is asked in a thread, and may take its time. Only free room is used."""

    def __init__(self, host: Callable[[], HostTier | None]) -> None:
        self._host = host
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-tee")
        self._closed = threading.Event()

    def arrived(self, path: Path) -> None:
        """From any thread: this file is complete and right."""
        with contextlib.suppress(RuntimeError):  # closed
            self._thread.submit(self._take, path)

    def close(self) -> None:
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            if size < ABOVE_BYTES:
                return
            with path.open("rb") as file:
                begin = _data_start(file.read(8), file.read, size)
                host = self._host() if begin is not None else None
                if begin is not None and host is not None and host.has_room(size - begin):
                    self._fill(host, path, file.fileno(), begin, size)
        except OSError:
            return  # gone again, or unreadable: whoever loads it will say so

    def _fill(self, host: HostTier, path: Path, fd: int, start: int, end: int) -> None:
        key = file_key(path)
        if host.holds(key):
            return
        buffer = host.admit(key, end - start, (end - start) / DISK_BYTES_S)
        if buffer is None:
            return
        done = 0
        try:
            while start + done < end and not self._closed.is_set():
                got = os.preadv(fd, [buffer.view[done : done + PIECE_BYTES]], start + done)
                if not got:
                    break
                done += got
        finally:
            (host.commit if start + done == end else host.abort)(key)
            host.release(key)


def _data_start(first: bytes, read_more: Callable[[int], bytes], size: int) -> int | None:
    """Where the tensors of a safetensors file begin; None for any other file."""
    try:
        length = header_size(first, size)
        read_header(first + read_more(length), size)
    except HeaderError:
        return None
    return 8 + length
