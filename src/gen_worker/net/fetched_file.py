"""One file of a download: which bytes are not being fetched yet, how far its hash is, how its source has behaved."""

import threading
from collections import deque
from typing import Any

from gen_worker.net.digests import new_hash
from gen_worker.net.part_file import PartFile
from gen_worker.net.range_client import Link
from gen_worker.net.wanted import Wanted

MIN_RANGE_BYTES = 4 << 20
READ_BACK_BYTES = 1 << 20


class FetchedFile:
    """A file being fetched. `lock` guards all of it; `epoch` grows whenever earlier bytes no longer count."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.name = wanted.name or wanted.path.name
        self.part = PartFile(wanted.path, wanted.size_bytes, wanted.digest)
        self.lock = threading.Lock()
        self.gaps: deque[tuple[int, int]] = deque()  # byte ranges that nobody fetches yet
        self.busy = 0  # streams working on it
        self.whole = False  # the server has no ranges: one stream from the start
        self.epoch = 0
        self.failures = 0  # in a row, without a byte in between
        self.renewals = 0  # of its URL, in a row
        self.renewed = 0  # of its URL, in all
        self.restarts = 0  # after a refused range, or a wrong digest
        self.changes = 0  # of its entity tag between two answers
        self.link: Link | None = None
        self.hash = self._new_hash()
        self.hashed = 0
        self.checking = False
        self.flushed = 0  # bytes written at the last flush
        self.flushing = False
        self.opened = False

    def open(self) -> int:
        have = self.part.open()
        self.gaps = deque(self.part.done.missing(self.wanted.size_bytes))
        self.opened = True
        return have

    def take(self, streams: int, most_bytes: int) -> tuple[int, int]:
        """The next bytes to request: large pieces first, small ones at the end, so that all streams end together."""
        start, end = self.gaps.popleft()
        left = end - start + sum(stop - at for at, stop in self.gaps)
        piece = end - start if self.whole else min(most_bytes, max(MIN_RANGE_BYTES, left // (2 * streams)))
        if start + piece < end:
            self.gaps.appendleft((start + piece, end))
        return start, min(start + piece, end)

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are there, and nobody is writing."""
        return self.part.done.front() == self.wanted.size_bytes and not self.busy

    @property
    def lag(self) -> int:
        """Bytes at the front that are not hashed yet."""
        return self.part.done.front() - self.hashed if self.hash is not None else 0

    def arrived(self, at: int, data: memoryview, epoch: int) -> bool:
        """Bytes were written in their place. If they continue the hash, they are hashed at once, while they are in the
        processor's cache.

        False: the file was started over meanwhile, and they do not count.
        """
        end = at + len(data)
        with self.lock:
            if self.epoch != epoch:
                return False
            self.part.note(at, end)
            self.failures = self.renewals = 0
            if self.hash is None or self.checking or not self._continues(at, end):
                return True
            self.checking, hashed, hasher = True, self.hashed, self.hash
        try:
            if hashed < at:
                self._read_back(hasher, hashed, at)
            hasher.update(data)
        finally:
            with self.lock:
                self.checking = False
                if self.epoch == epoch:
                    self.hashed = end
        return True

    def _continues(self, at: int, end: int) -> bool:
        """Whether the hash lacks only these bytes, and at most a few before them."""
        return at - READ_BACK_BYTES <= self.hashed <= at and self.part.done.front() >= end

    def hash_on(self) -> bool:
        """Advance the hash with bytes read from the file; False when there is nothing to do. The caller has set `checking`."""
        with self.lock:
            epoch, hasher = self.epoch, self.hash
            start, end = self.hashed, min(self.part.done.front(), self.hashed + READ_BACK_BYTES)
        if hasher is None or start >= end:
            return False
        self._read_back(hasher, start, end)
        with self.lock:
            if self.epoch == epoch:
                self.hashed = end
        return True

    def _read_back(self, hasher: Any, start: int, end: int) -> None:
        buffer = memoryview(bytearray(end - start))
        while start < end:
            got = self.part.read_into(start, buffer[: end - start])
            if not got:
                raise OSError(f"{self.part.path.name} became shorter while it was being fetched")
            hasher.update(buffer[:got])
            start += got

    def restart(self) -> int:
        """Start over; returns how many bytes no longer count."""
        lost = self.part.done.total()
        self.epoch += 1
        self.part.restart()
        self.hash, self.hashed, self.flushed = self._new_hash(), 0, 0
        self.gaps = deque(self.part.done.missing(self.wanted.size_bytes))
        return lost

    def _new_hash(self) -> Any:
        return new_hash(self.wanted.digest, self.wanted.size_bytes) if self.wanted.digest else None
