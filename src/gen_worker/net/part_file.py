"""A file being downloaded: `<name>.part` holds its bytes, `<name>.part.json` says which of them are there.

The journal is written after the bytes it describes, so a killed process loses at most the last moment of a download. It
may not survive a power failure; the digest of the finished file covers that.
"""

import os
import re
import threading
import time
from pathlib import Path

import msgspec

from gen_worker.net.disk_calls import reserve, start_writing
from gen_worker.net.intervals import Intervals
from gen_worker.shared_files import open_own, read_whole

JOURNAL_EVERY_BYTES = 4 << 20
JOURNAL_EVERY_S = 0.25
JOURNAL_ABOVE_BYTES = 1 << 20  # smaller files are fetched again


class Journal(msgspec.Struct, frozen=True):
    """The content of `.part.json`. `etag` is the server's name for the version that the ranges come from."""

    size_bytes: int
    digest: str
    etag: str
    done: tuple[tuple[int, int], ...]


class PartFile:
    """Bytes may be written in any order, from several threads. The caller holds a lock around `note` and what reads it."""

    def __init__(self, final: Path, size_bytes: int, digest: str) -> None:
        self.final = final
        self.path = part_path(final)
        self.size_bytes = size_bytes
        self.etag = ""
        self.done = Intervals()
        self._digest = digest
        self._writing = threading.Lock()  # the kernel writes one piece of a file at a time: better to sleep than to spin for it
        self._journal = final.with_name(final.name + ".part.json")
        self._unwritten = 0
        self._written_s = 0.0
        self._fd: int | None = None
        self._journal_fd: int | None = None
        self._journal_bytes = 0

    def open(self) -> int:
        """Open or create it, and adopt what an earlier process left; returns how many bytes are there."""
        self.final.parent.mkdir(parents=True, exist_ok=True)
        self._fd = open_own(self.path, os.O_RDWR)  # the folder may be shared: a symbolic link in it is not followed
        have = os.fstat(self._fd).st_size
        journal = self._read_journal()
        if journal is not None:
            self.done, self.etag = Intervals(journal.done), journal.etag
        elif have <= self.size_bytes:
            self.done = Intervals([(0, have)])  # written from the front by a program without journals
        if not self.done.within(min(have, self.size_bytes)):
            self.done, self.etag = Intervals(), ""
        self.write_journal()  # before the file grows: a full-length .part without a journal would count as finished
        os.ftruncate(self._fd, self.size_bytes)
        if self.size_bytes >= JOURNAL_ABOVE_BYTES:
            reserve(self._fd, self.size_bytes)
        return self.done.total()

    def write(self, at: int, data: memoryview) -> None:
        """Write bytes in their place; `OSError` when the disk is full."""
        with self._writing:
            while data:
                written = os.pwrite(self.fd, data, at)
                data, at = data[written:], at + written

    def read_into(self, at: int, buffer: memoryview) -> int:
        return os.preadv(self.fd, [buffer], at)

    def flush(self) -> None:
        """Ask the disk to write what has arrived so far, so that little is left for the end."""
        start_writing(self.fd)

    def note(self, start: int, end: int) -> None:
        """These bytes have been written."""
        self.done.add(start, end)
        self._unwritten += end - start
        if self._unwritten >= JOURNAL_EVERY_BYTES or time.monotonic() - self._written_s >= JOURNAL_EVERY_S:
            self.write_journal()

    def restart(self, etag: str = "") -> None:
        """Forget what is there."""
        self.done, self.etag = Intervals(), etag
        self.write_journal()

    def write_journal(self) -> None:
        self._unwritten, self._written_s = 0, time.monotonic()
        if self.size_bytes < JOURNAL_ABOVE_BYTES:
            return
        data = msgspec.json.encode(Journal(self.size_bytes, self._digest, self.etag, tuple(self.done)))
        if self._journal_fd is None:
            self._journal_fd = open_own(self._journal, os.O_WRONLY)
        # In place, in one piece: replacing the file each time would make some file systems write everything to disk.
        self._journal_bytes = max(self._journal_bytes, len(data))
        os.pwrite(self._journal_fd, data.ljust(self._journal_bytes), 0)

    def publish(self) -> None:
        """Publish the finished file under its name, safely on the disk."""
        os.fsync(self.fd)
        self.path.replace(self.final)
        self._journal.unlink(missing_ok=True)
        sync_folder(self.final.parent)

    def discard(self) -> None:
        """Close it and remove everything."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def close(self) -> None:
        for fd in (self._fd, self._journal_fd):
            if fd is not None:
                os.close(fd)
        self._fd = self._journal_fd = None

    @property
    def fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.path.name} is closed")
        return self._fd

    def _read_journal(self) -> Journal | None:
        try:
            data = read_whole(self._journal)
            self._journal_bytes = len(data)
            journal = msgspec.json.decode(data, type=Journal)
        except (OSError, ValueError, RecursionError):
            return None
        # It becomes the header `If-Range`: a line break in it would start a second header.
        if journal.etag != clean_etag(journal.etag):
            journal = msgspec.structs.replace(journal, etag="")
        same = journal.size_bytes == self.size_bytes and journal.digest == self._digest
        return journal if same else Journal(self.size_bytes, self._digest, "", ())


def clean_etag(text: str) -> str:
    """An entity tag that is allowed in a request header (RFC 9110, 8.8.3, quoted or not); "" for anything else."""
    return text if re.fullmatch(r"[\x21-\x7e]{1,1024}", text) else ""


def part_path(final: Path) -> Path:
    """The path of a file's bytes while it is being downloaded."""
    return final.with_name(final.name + ".part")


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
