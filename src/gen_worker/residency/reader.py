"""Reads weight files into a slab with several threads.

One `Reading` is one load. Readers take slices of files, largest file first. They read into the slab itself if the host
can write to it. Otherwise they read into host memory, which is copied to the device while the next slices are read.
Files that the host tier already has are sent by a separate thread, in large copies one after the other. All copies of a
load are awaited once, at its end.

Each slice takes the interpreter's lock a few times. Whoever needs the lock meanwhile (a function between two torch
operations, the thread that builds the module) also loses the time it takes to wake its own thread. So slices are small
only while this load has the interpreter to itself. Slices larger than BUFFER_BYTES were no faster: docs/performance.md
has the figures.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.residency.device import Link, Slab
from gen_worker.residency.host_tier import HostBuffer
from gen_worker.residency.layout import Image, Run, Slice, slices_of
from gen_worker.residency.readers import Readers
from gen_worker.residency.staging import BLOCK_BYTES, BUFFER_BYTES

PIECE_BYTES = 8 << 20  # slice size while the load is alone and reads straight into the slab
BESIDE_PYTHON_BYTES = BUFFER_BYTES  # slice size while functions run or the load's own thread builds
SENT_BYTES = 64 << 20  # one copy out of the host tier
MOST_RANGES = 1024  # ranges in one call of preadv (Linux: IOV_MAX)
WINDOW_S = 0.03  # time between two looks at the rate
NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class Source(msgspec.Struct, frozen=True):
    """A file whose image goes to the slab from byte `at`.

    With a `host` buffer the image passes through it, or is copied from it if the buffer is already `filled`.
    """

    path: Path
    image: Image
    at: int = 0
    host: HostBuffer | None = None
    filled: bool = False


class ReadCanceledError(Exception):
    """Nobody waits for these weights any more."""


class Reading:
    """Bytes on their way into a slab; reading starts on construction. Call `finish` or `abandon`. The slab must outlive both."""

    def __init__(
        self,
        slab: Slab,
        sources: Sequence[Source],
        readers: Readers,
        on_bytes: Callable[[int], None],
        cancel: threading.Event,
        working: Callable[[], int] = lambda: 0,
    ) -> None:
        """`working` returns how many functions run beside it now."""
        self._direct = slab.host_view()
        self._link = None if self._direct is not None else slab.link()
        self._readers = readers
        self._on_bytes = on_bytes
        self._cancel = cancel
        self._working = working
        self._lock = threading.Lock()
        self._stopped = False
        self._awaited = False  # whether the load's own thread does nothing but wait
        self._error: BaseException | None = None
        self._active = 0  # threads at work, including the one that sends from the host tier
        self._reading = 0
        self._ended = threading.Event()
        self._bytes = 0
        by_size = sorted(sources, key=lambda source: -source.image.size_bytes)
        to_read = [source for source in by_size if not source.filled]
        self._left_bytes = sum(source.image.size_bytes for source in to_read)
        self._slice_bytes = 0  # size of the slice to be cut next
        straight = [source for source in to_read if self._direct is not None or source.host is not None]
        passing = [source for source in to_read if self._direct is None and source.host is None]
        self._straight = self._slices(straight)
        self._passing = self._slices(passing) if passing else None
        readers.count.begin()
        filled = [source for source in by_size if source.filled]
        with self._lock:
            if filled:
                self._start(lambda: self._send(filled))
            self._start_readers()
            if not self._active:
                self._ended.set()

    def finish(self) -> None:
        """Return when everything is there. `OSError` for a file shorter than expected; `ReadCanceledError` after `cancel`."""
        self._awaited = True
        looked_s, seen = time.monotonic(), 0
        while not self._ended.wait(WINDOW_S):
            now_s, done = time.monotonic(), self._bytes
            if done > seen:
                self._readers.count.measured((done - seen) / (now_s - looked_s))
                looked_s, seen = now_s, done
            with self._lock:
                self._start_readers()
        self._arrive()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Stop. Returns when nothing writes to the slab any more."""
        with self._lock:
            self._stopped = True
            if not self._active:
                self._ended.set()
        self._ended.wait()
        self._arrive()

    def _arrive(self) -> None:
        """Wait for the copies, also after an error: until they end they write to the slab. A pool thread may hold a
        reference to this object.
        """
        if self._link is not None:
            self._link.finish()
        self._direct = self._link = None

    def _wanted(self) -> int:
        return 0 if self._stopped else min(self._readers.count.allowed(self._working()), -(-self._left_bytes // BLOCK_BYTES))

    def _start_readers(self) -> None:
        """Start as many readers as are missing. Call with the lock held."""
        while self._reading < self._wanted() and not self._ended.is_set():
            self._reading += 1
            self._start(self._read)

    def _start(self, work: Callable[[], None]) -> None:
        self._active += 1
        self._readers.pool.submit(self._run, work)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - `finish` raises it in the thread of the load
            with self._lock:
                self._error = self._error or exc
                self._stopped = True
        finally:
            with self._lock:
                self._active -= 1
                if not self._active and (self._stopped or not self._left_bytes):
                    self._ended.set()

    def _read(self) -> None:
        files: dict[Path, int] = {}
        try:
            while self._goes_on() and (found := self._cut(self._straight, self._piece(PIECE_BYTES))) is not None:
                source, part = found
                self._fetch(source, part, files)
            while self._passing is not None and self._goes_on():
                with _link(self._link).staged(self._piece(BLOCK_BYTES)) as staged:
                    found = self._cut(self._passing, len(staged.view))
                    if found is None:
                        break
                    source, part = found
                    into = staged.to(source.at + part.at, part.end - part.at)
                    _read_slice(_open(files, source.path), into, part.at, part, source.path)
                self._tell(part)
        finally:
            with self._lock:
                self._reading -= 1
                if not self._reading:
                    self._left_bytes = 0  # the last reader leaves only when nothing is left to read
            for fd in files.values():
                os.close(fd)

    def _goes_on(self) -> bool:
        """Whether this reader should go on."""
        with self._lock:
            if self._cancel.is_set():
                raise ReadCanceledError
            return not self._stopped and self._reading <= max(1, self._wanted())

    def _piece(self, alone_bytes: int) -> int:
        """How many bytes to read at once: `alone_bytes` while nobody else needs the interpreter."""
        return alone_bytes if self._awaited and not self._working() else BESIDE_PYTHON_BYTES

    def _slices(self, sources: Sequence[Source]) -> Iterator[tuple[Source, Slice]]:
        return ((source, part) for source in sources for part in slices_of(source.image, lambda: self._slice_bytes, MOST_RANGES))

    def _cut(self, slices: Iterator[tuple[Source, Slice]], most_bytes: int) -> tuple[Source, Slice] | None:
        """The next slice, at most `most_bytes` long; None when there is none."""
        with self._lock:
            self._slice_bytes = most_bytes
            found = next(slices, None)
            if found is not None:
                self._left_bytes = max(1, self._left_bytes - (found[1].end - found[1].at))
            return found

    def _fetch(self, source: Source, part: Slice, files: dict[Path, int]) -> None:
        """Read a slice to where it belongs: into the slab, or into the host tier, from which it is sent."""
        fd = _open(files, source.path)
        if self._direct is not None:
            _read_slice(fd, self._direct[source.at : source.at + source.image.size_bytes], 0, part, source.path)
        else:
            host = _host(source)
            _read_slice(fd, host.view, 0, part, source.path)
            _link(self._link).send_from(host, part.at, source.at + part.at, part.end - part.at)
        self._tell(part)

    def _send(self, sources: Sequence[Source]) -> None:
        """Send the files that the host tier already has."""
        for source in sources:
            for at in range(0, source.image.size_bytes, SENT_BYTES):
                if self._cancel.is_set():
                    raise ReadCanceledError
                if self._stopped:
                    return
                size = min(SENT_BYTES, source.image.size_bytes - at)
                _link(self._link).send_from(_host(source), at, source.at + at, size)
                self._told(size)

    def _tell(self, part: Slice) -> None:
        self._told(sum(end - at for at, end in part.ranges))

    def _told(self, size_bytes: int) -> None:
        self._bytes += size_bytes  # a race may lose one addition: the sum is only used for the rate
        self._on_bytes(size_bytes)


def read_into(slab: Slab, sources: Sequence[Source], readers: Readers, on_bytes: Callable[[int], None], cancel: threading.Event) -> None:
    """Fill a slab and wait for it. Raises what `Reading.finish` raises."""
    Reading(slab, sources, readers, on_bytes, cancel).finish()


def whole_file(path: Path, start: int, end: int, at: int = 0) -> Source:
    """Bytes `[start, end)` of a file as they are."""
    return Source(path, Image((Run(start, 0, end - start),), (), end - start), at)


def fill(into: memoryview, fd: int, image: Image, path: Path, cancel: threading.Event) -> bool:
    """Read a whole image in the calling thread; False after `cancel`."""
    for part in slices_of(image, lambda: PIECE_BYTES, MOST_RANGES):
        if cancel.is_set():
            return False
        _read_slice(fd, into, 0, part, path)
    return True


def _read_slice(fd: int, into: memoryview, first: int, part: Slice, path: Path) -> None:
    """Read one slice. `into` begins at byte `first` of the image."""
    views = [into[at - first : end - first] for at, end in part.ranges]
    at, left = part.start, sum(map(len, views))
    flags = NOWAIT
    while left:
        try:
            got = os.preadv(fd, views, at, flags) if flags else os.preadv(fd, views, at)
        except OSError as exc:
            if not flags or exc.errno not in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            got = -1
        if got < left and flags:  # the page cache does not hold all of it
            flags = 0
            if hasattr(os, "posix_fadvise"):  # otherwise the kernel reads the disk 128 KiB at a time
                os.posix_fadvise(fd, at, left, os.POSIX_FADV_WILLNEED)
            got = max(0, got)
        elif not got:
            raise OSError(f"{path.name} ends at byte {at}, {left} bytes early")
        at, left = at + got, left - got
        views = _after(views, got)


def _after(views: list[memoryview], got: int) -> list[memoryview]:
    """The views that are left to fill after `got` bytes."""
    for number, view in enumerate(views):
        if got < len(view):
            return [view[got:], *views[number + 1 :]]
        got -= len(view)
    return []


def _open(files: dict[Path, int], path: Path) -> int:
    """A reader's own descriptor for a file; opened once."""
    if path not in files:
        files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return files[path]


def _link(link: Link | None) -> Link:
    assert link is not None
    return link


def _host(source: Source) -> Any:
    return source.host
