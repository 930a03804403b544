"""State shared by the threads of a download: which files are waiting or in progress, who may work on what next, and what went wrong."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence

from gen_worker.net.fetched_file import FetchedFile
from gen_worker.net.stream_count import StreamCount
from gen_worker.net.wanted import DownloadFailedError, Meter, Wanted

CHECK_BYTES = 4 << 20  # when a hash lags behind by this much, another thread reads those bytes again
FLUSH_BYTES = 32 << 20
MAX_RESTARTS = 16  # of one file, because bytes that arrived do not count as progress then
LOOK_S = 0.05  # between checks for work


class Task:
    """A range for one stream to fetch."""

    def __init__(self, file: FetchedFile, start: int, end: int) -> None:
        self.file = file
        self.at = start
        self.end = end
        self.epoch = file.epoch


class Board:
    """`changed` guards who works on what; each file's own lock guards what is known about the file."""

    def __init__(self, files: Sequence[Wanted], meter: Meter, on_file: Callable[[Wanted], None]) -> None:
        self.changed = threading.Condition()
        self.failure: Exception | None = None
        self.arrived = 0  # bytes, for measuring
        self._waiting = deque(FetchedFile(wanted) for wanted in files)
        self._active: list[FetchedFile] = []
        self._left = len(files)
        self._meter = meter
        self._on_file = on_file

    @property
    def over(self) -> bool:
        return self.failure is not None or self._left == 0

    def fail(self, exc: Exception) -> None:
        """End all work; the first failure counts."""
        with self.changed:
            self.failure = self.failure or exc
            self.changed.notify_all()

    def wait_over(self, seconds: float) -> bool:
        """Wait this long; True as soon as there is nothing left to do."""
        with self.changed:
            return self.changed.wait_for(lambda: self.over, seconds)

    def wake(self) -> None:
        """More streams are wanted than before."""
        with self.changed:
            self.changed.notify_all()

    def count(self, size_bytes: int) -> None:
        self._meter.add(size_bytes)
        with self.changed:
            self.arrived += size_bytes

    def restart(self, file: FetchedFile) -> None:
        """Start a file over; call with its lock held. `DownloadFailedError` when that happened too often."""
        self._meter.add(-file.restart())
        if file.epoch > MAX_RESTARTS:
            raise DownloadFailedError(f"{file.name} was restarted {MAX_RESTARTS} times and never arrived completely", passing=True)

    def next_range(self, count: StreamCount) -> Task | None:
        """A range of a file that nobody fetches, else of the next file, else of one that others are fetching, too.
        Waits; None at the end.
        """
        with self.changed:
            while not self.over:
                task = self._take(lambda file: not file.busy, count)
                if task is None and self._waiting:
                    if not self._open():
                        return None
                    continue
                task = task or self._take(lambda file: not file.whole, count)
                if task is not None:
                    return task
                self.changed.wait()
            return None

    def _take(self, suits: Callable[[FetchedFile], bool], count: StreamCount) -> Task | None:
        for file in self._active:
            with file.lock:
                if file.gaps and suits(file):
                    file.busy += 1
                    return Task(file, *file.take(count.count, count.range_bytes))
        return None

    def _open(self) -> bool:
        file = self._waiting.popleft()
        try:
            have = file.open()
        except OSError as exc:
            self.failure = self.failure or exc
            self.changed.notify_all()
            return False
        self._meter.add(have)
        self._active.append(file)
        self.changed.notify_all()
        return True

    def leave(self, file: FetchedFile) -> None:
        """A stream has ended its work on a file for now."""
        with self.changed:
            file.busy -= 1
            self.changed.notify_all()

    def next_check(self) -> FetchedFile | None:
        """A file whose hash lags behind, or that is complete; waits, None at the end. Give it back with `checked`."""
        with self.changed:
            while not self.over:
                for file in self._active:
                    with file.lock:
                        if not file.checking and ((file.is_complete and not file.flushing) or file.lag >= CHECK_BYTES):
                            file.checking = True
                            return file
                self.changed.wait(LOOK_S)
            return None

    def checked(self, file: FetchedFile) -> None:
        with self.changed:
            with file.lock:
                file.checking = False
            self.changed.notify_all()

    def next_flush(self) -> FetchedFile | None:
        """A file with much data that is not on the disk yet; waits, None at the end. Give it back with `flushed`."""
        with self.changed:
            while not self.over:
                for file in self._active:
                    with file.lock:
                        if not file.is_complete and not file.flushing and file.part.done.total() - file.flushed >= FLUSH_BYTES:
                            file.flushing = True
                            return file
                self.changed.wait(LOOK_S)
            return None

    def flushed(self, file: FetchedFile) -> None:
        with self.changed:
            file.flushing = False
            self.changed.notify_all()

    def done(self, file: FetchedFile) -> None:
        """A file was published."""
        self._on_file(file.wanted)
        with self.changed:
            self._active.remove(file)
            self._left -= 1
            self.changed.notify_all()

    def close(self) -> None:
        """After all threads have ended: save the state of the incomplete files."""
        for file in self._active:
            if file.opened:
                # A full disk may refuse the journal, too. That must not hide why the download ended; the digest decides in the end.
                with contextlib.suppress(OSError):
                    file.part.write_journal()
                file.part.close()
