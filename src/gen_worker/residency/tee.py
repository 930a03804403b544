"""Copies weights that have just arrived into pinned host memory while the rest of their model is still downloading, so
that the load reads no file.

A file is copied only after its digest was found correct, so nothing that could still prove wrong is kept elsewhere.
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gen_worker.residency.host_tier import DISK_BYTES_S, HostTier, file_key
from gen_worker.residency.layout import Image, image_of
from gen_worker.residency.reader import fill
from gen_worker.sources.weight_files import HeaderError, header_size, read_header

ABOVE_BYTES = 4 << 20  # smaller files are not worth a buffer of their own


class Tee:
    """`host` returns the tier, or None without one. It is called in a thread and may take its time. Only free room is used."""

    def __init__(self, host: Callable[[], HostTier | None]) -> None:
        self._host = host
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-tee")
        self._closed = threading.Event()

    def arrived(self, path: Path) -> None:
        """This file is complete and its digest is correct. Callable from any thread."""
        with contextlib.suppress(RuntimeError):  # the pool is closed
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
                image = _image(file.read(8), file.read, size)
                host = self._host() if image is not None else None
                if image is not None and host is not None and host.has_room(image.size_bytes):
                    self._fill(host, path, file.fileno(), image)
        except OSError:
            return  # deleted or unreadable: the load will report it

    def _fill(self, host: HostTier, path: Path, fd: int, image: Image) -> None:
        key = file_key(path)
        if host.holds(key):
            return
        buffer = host.admit(key, image.size_bytes, image.size_bytes / DISK_BYTES_S)
        if buffer is None:
            return
        full = False
        try:
            full = fill(buffer.view, fd, image, path, self._closed)
        finally:
            (host.commit if full else host.abort)(key)
            host.release(key)


def _image(first: bytes, read_more: Callable[[int], bytes], size: int) -> Image | None:
    """The memory layout of a safetensors file's tensors; None for any other file."""
    try:
        length = header_size(first, size)
        return image_of(read_header(first + read_more(length), size), 8 + length)
    except HeaderError:
        return None
