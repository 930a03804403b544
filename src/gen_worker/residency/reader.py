"""Bytes of weight files into a slab, by several threads at once. Blocking."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from gen_worker.residency.device import STAGING_BYTES, Slab
from gen_worker.residency.host_tier import HostBuffer

PIECE_BYTES = 8 << 20
MIN_THREADS = 4  # however few processors there are: a disk is quickest when several things are asked of it at once
MAX_THREADS = 8


class Extent(msgspec.Struct, frozen=True):
    """Bytes `[start, end)` of a file that belong to byte `at` of the slab and on.

    With a `host` buffer they pass through it (its first byte is byte `start`), or come from it if it is `filled` already.
    """

    path: Path
    start: int
    end: int
    at: int
    host: HostBuffer | None = None
    filled: bool = False


class ReadCanceledError(Exception):
    """Nobody waits for these weights any more."""


class _Pieces:
    """The pieces still to read, handed out in the order of the file."""

    def __init__(self, extents: Sequence[Extent], piece: int) -> None:
        self._left = iter((extent, at, min(at + piece, extent.end)) for extent in extents for at in range(extent.start, extent.end, piece))
        self._lock = threading.Lock()

    def take(self) -> tuple[Extent, int, int] | None:
        with self._lock:
            return next(self._left, None)


def read_into(slab: Slab, extents: Sequence[Extent], on_bytes: Callable[[int], None], cancel: threading.Event) -> None:
    """Fill the slab. `OSError` for a file that is shorter than it should be; `ReadCanceledError` after `cancel`."""
    host = slab.host_view()
    pieces = _Pieces(extents, PIECE_BYTES if host is not None else STAGING_BYTES)
    total = sum(extent.end - extent.start for extent in extents)
    threads = max(1, min(MAX_THREADS, max(MIN_THREADS, os.cpu_count() or 1), total // PIECE_BYTES))

    def work() -> None:
        files: dict[Path, int] = {}
        copier = None if host is not None else slab.copier()
        try:
            while (piece := pieces.take()) is not None:
                if cancel.is_set():
                    raise ReadCanceledError
                extent, start, end = piece
                at, size = extent.at + start - extent.start, end - start
                if extent.path not in files and not extent.filled:
                    files[extent.path] = os.open(extent.path, os.O_RDONLY | os.O_CLOEXEC)
                if host is not None:
                    _read_exactly(files[extent.path], host[at : at + size], start, extent.path)
                elif copier is not None and extent.host is not None:
                    first = start - extent.start
                    if not extent.filled:
                        _read_exactly(files[extent.path], extent.host.view[first : first + size], start, extent.path)
                    copier.copy_from(extent.host, first, at, size)
                elif copier is not None:
                    _read_exactly(files[extent.path], copier.buffer()[:size], start, extent.path)
                    copier.copy(at, size)
                on_bytes(size)
            if copier is not None:
                copier.finish()
        finally:
            for fd in files.values():
                os.close(fd)

    if threads == 1:
        work()
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="model-load-read") as pool:
        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()


def _read_exactly(fd: int, into: memoryview, at: int, path: Path) -> None:
    if hasattr(os, "posix_fadvise"):  # else the disk is asked for 128 KiB at a time
        os.posix_fadvise(fd, at, len(into), os.POSIX_FADV_WILLNEED)
    while into:
        got = os.preadv(fd, [into], at)
        if not got:
            raise OSError(f"{path.name} ends at byte {at}, {len(into)} bytes early")
        into, at = into[got:], at + got
