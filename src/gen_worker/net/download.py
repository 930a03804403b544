"""Fetches many files by parallel ranges: resumes where it stopped, hashes bytes as they arrive, publishes a file only
when its digest is correct. Blocking.

Stream threads fetch ranges, and hash bytes that continue a file's hash; the threads of `net.checks` do the rest.
"""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial

from gen_worker.errors import DISK_IS_FULL
from gen_worker.net.board import Board, Task
from gen_worker.net.call import Call
from gen_worker.net.checks import check_files, flush_files
from gen_worker.net.fetched_file import FetchedFile
from gen_worker.net.range_client import EXPIRED, READ_BYTES, RangeClient, RangeReply, WrongRangeError
from gen_worker.net.read_ahead import read_ahead
from gen_worker.net.retry import HttpError, PassingError, is_passing
from gen_worker.net.stream_count import WINDOW_S, StreamCount
from gen_worker.net.wanted import DownloadCanceledError, DownloadFailedError, Meter, NoSpaceError, Policy, Wanted
from gen_worker.texts import counted

CHECKS = 2
MAX_RENEWALS = 3
CHANGES = 2  # changes of a file's tag between two answers; after that it is requested as a whole
WRONG_RANGES = 2  # in a row; after that the file is requested as a whole
AHEAD = 3  # buffers of a stream that is read ahead: one being filled, one waiting, one in use
AHEAD_ABOVE_BYTES = 4 << 20


class _Watch:
    """An answer being read, and its progress at the last check."""

    def __init__(self, reply: RangeReply) -> None:
        self.reply = reply
        self.size_bytes = 0
        self.seen_bytes = 0
        self.seen_s = time.monotonic()
        self.hung_up = False


class _Stream:
    """What a fetching thread keeps between answers: fresh memory costs more than the bytes that pass through it."""

    def __init__(self) -> None:
        self._buffers: list[memoryview] = []
        self.call = Call()

    def take_buffers(self, count: int) -> list[memoryview]:
        while len(self._buffers) < count:
            self._buffers.append(memoryview(bytearray(READ_BYTES)))
        return self._buffers[:count]


class Download:
    """One call of `fetch`: its threads, and its reactions to unexpected answers."""

    def __init__(self, client: RangeClient, policy: Policy, cancel: threading.Event, board: Board, files: int) -> None:
        self._client = client
        self._policy = policy
        self._cancel = cancel
        self._board = board
        self._threads: list[threading.Thread] = []
        self._open_streams: list[tuple[threading.Thread, _Stream]] = []
        self._count = StreamCount(policy.streams, policy.max_streams, files)
        self._streams = 0
        self._watches: dict[_Stream, _Watch] = {}

    def run(self) -> None:
        """Fetch everything, or raise what stopped it, after every thread has ended."""
        board = self._board
        for number in range(CHECKS):
            self._start(lambda: check_files(board), f"download-check-{number}")
        self._start(lambda: flush_files(board), "download-flush")
        try:
            self._supervise()
        except BaseException as exc:
            board.fail(exc if isinstance(exc, Exception) else DownloadCanceledError("interrupted"))
            raise
        finally:
            if board.failure is not None:
                self._hang_up()
            for thread in self._threads:
                thread.join()
            board.close()
        if board.failure is not None:
            raise board.failure

    def _hang_up(self) -> None:
        """Abort every request, even one whose answer has not begun.

        A thread that is still connecting (DNS, TCP) cannot be woken. It is left behind, and finds the work over before
        it touches any file.
        """
        for thread, stream in self._open_streams:
            stream.call.hang_up()
            while thread.is_alive() and not stream.call.is_connecting:
                thread.join(0.02)

    def _supervise(self) -> None:
        """Wait, and keep as many streams as pay."""
        board, count = self._board, self._count
        last, since_s = 0, time.monotonic()
        while True:
            with board.changed:
                self._add_streams()
                if board.over:
                    return
                board.changed.wait(0.05)
                arrived = board.arrived
            if self._cancel.is_set():
                board.fail(DownloadCanceledError("the download was cancelled"))
                return
            self._hang_up_on_slow()
            now_s = time.monotonic()
            if now_s - since_s >= WINDOW_S:
                count.measured((arrived - last) / (now_s - since_s))
                last, since_s = arrived, now_s

    def _add_streams(self) -> None:
        """Start as many threads as are missing."""
        while self._streams < self._count.count:
            stream = _Stream()
            self._open_streams.append((_started(partial(self._run_stream, stream), f"download-{self._streams}"), stream))
            self._streams += 1

    def _hang_up_on_slow(self) -> None:
        now_s = time.monotonic()
        for watch in list(self._watches.values()):
            if now_s - watch.seen_s < self._policy.stall_s:
                continue
            if watch.size_bytes - watch.seen_bytes < self._policy.stall_bytes:
                watch.hung_up = True
                watch.reply.hang_up()
            watch.seen_s, watch.seen_bytes = now_s, watch.size_bytes

    # Streams.

    def _run_stream(self, stream: _Stream) -> None:
        board = self._board
        while (task := board.next_range(self._count)) is not None:
            try:
                self._try_range(task, stream)
            except OSError as exc:
                if exc.errno in DISK_IS_FULL:
                    size = task.file.wanted.size_bytes
                    board.fail(NoSpaceError(exc.errno, f"no space left for {task.file.name} ({size} bytes)"))
                else:
                    board.fail(exc)
            except Exception as exc:  # noqa: BLE001 - what a link gives may fail in any way; it ends the download, not the thread alone
                board.fail(exc)
            finally:
                board.leave(task.file)

    def _try_range(self, task: Task, stream: _Stream) -> None:
        renewed, failures = task.file.renewed, task.file.failures
        try:
            self._fetch_range(task, stream)
        except (PassingError, HttpError) as exc:
            self._retry(task.file, exc, task.epoch, renewed, failures)
        finally:
            # Given back only after the pause: otherwise another stream would request it at once, against the server's wish.
            with task.file.lock:
                if task.file.epoch == task.epoch and task.at < task.end:
                    task.file.gaps.appendleft((task.at, task.end))

    def _fetch_range(self, task: Task, stream: _Stream) -> None:
        file, size = task.file, task.file.wanted.size_bytes
        link = file.link or file.wanted.link(False)
        is_all = task.at == 0 and task.end == size
        began_s = time.monotonic()
        end = None if is_all and file.whole else task.end
        with self._client.get(link, task.at, end, file.part.etag, stream.call) as reply:
            if self._count.answered(time.monotonic() - began_s):
                self._board.wake()
            self._accept(task, reply)
            self._read(task, reply, stream)

    def _read(self, task: Task, reply: RangeReply, stream: _Stream) -> None:
        """Write what arrives, until the range is complete or no longer wanted."""
        file, board = task.file, self._board
        watch = self._watches[stream] = _Watch(reply)
        try:
            if board.over:
                return
            with closing(self._chunks(reply, task.end - task.at, stream)) as chunks:
                for chunk in chunks:
                    if board.over or file.epoch != task.epoch:
                        return
                    chunk = chunk[: task.end - task.at]
                    file.part.write(task.at, chunk)
                    if not file.arrived(task.at, chunk, task.epoch):
                        return
                    task.at += len(chunk)
                    board.count(len(chunk))
                    if task.at == task.end:
                        return
                    watch.size_bytes += len(chunk)
        finally:
            self._watches.pop(stream, None)
        if watch.hung_up:
            raise PassingError(f"only {watch.size_bytes} bytes of {file.name} in {self._policy.stall_s:.0f} s")
        raise PassingError(f"the answer for {file.name} ended {task.end - task.at} bytes early")

    def _chunks(self, reply: RangeReply, size_bytes: int, stream: _Stream) -> Generator[memoryview]:
        """Far away, the many streams keep the processors busy; nearby, each of the few streams gets a second thread."""
        if size_bytes < AHEAD_ABOVE_BYTES or self._count.far:
            return reply.chunks(*stream.take_buffers(1))
        return read_ahead(reply, size_bytes, stream.take_buffers(AHEAD))

    def _accept(self, task: Task, reply: RangeReply) -> None:
        """Check that an answer belongs to the file, and adjust the task to what the answer contains."""
        file, size = task.file, task.file.wanted.size_bytes
        if reply.total is not None and reply.total != size:
            if reply.is_range and not file.whole:
                raise WrongRangeError(f"{file.name} has {reply.total} bytes at its source by its Content-Range, expected {size}")
            raise DownloadFailedError(f"{file.name} has {reply.total} bytes at its source, expected {size}", passing=False)
        with file.lock:
            if file.epoch != task.epoch:
                raise PassingError("the file was started over")
            file.link = reply.link
            changed = bool(file.part.etag and reply.etag and reply.etag != file.part.etag)
            if reply.is_range:
                if changed:  # a server without If-Range: this answer is from another version
                    file.changes += 1
                    # Several machines behind one name may each have their own tag for the same content: then one answer, no ranges.
                    file.whole = file.whole or file.changes >= CHANGES
                    self._board.restart(file)
                    raise PassingError(f"{file.name} changed at its source")
                file.part.etag = file.part.etag or reply.etag
                return
            # The whole file although a range was requested: this server has no ranges, or not for this version.
            if task.at or task.end != size or file.part.done.total():
                file.whole = file.whole or not changed
                self._board.restart(file)
            file.part.etag = reply.etag
            file.gaps.clear()
            task.at, task.end, task.epoch = 0, size, file.epoch

    def _retry(self, file: FetchedFile, exc: Exception, epoch: int, renewed: int, seen: int) -> None:
        """Wait before the next try, or give up everything. `seen`: the file's failure count when the request was sent."""
        if isinstance(exc, HttpError):
            if exc.status in EXPIRED and self._renew(file, renewed):
                return
            if exc.status == 416 and file.restarts == 0:
                file.restarts += 1
                with file.lock:
                    self._board.restart(file)
                return
            if not is_passing(exc):
                passing = exc.status in EXPIRED
                self._board.fail(DownloadFailedError(f"{file.name}: {exc}", passing=passing, status=exc.status))
                return
        with file.lock:
            if file.epoch != epoch:
                return
            # When one outage or limit hits several streams, that counts as one failure.
            file.failures += file.failures == seen
            failures = file.failures
            if isinstance(exc, WrongRangeError) and failures >= WRONG_RANGES and not file.whole:
                file.whole = True  # maybe the server is better at whole files; the digest decides
                self._board.restart(file)
        pause_s = self._client.retries.pause_s(max(1, failures), exc)
        if pause_s is None:
            status = exc.status if isinstance(exc, HttpError) else None
            self._board.fail(DownloadFailedError(f"{file.name}: {exc} ({counted(failures, 'try', 'tries')})", passing=True, status=status))
            return
        self._client.retries.wait(self._board.wait_over, pause_s)

    def _renew(self, file: FetchedFile, seen: int) -> bool:
        """A fresh URL after the old one was refused; False when renewing does not help."""
        with file.lock:
            if file.renewed != seen:
                return True  # another stream has done it
            if file.renewals >= MAX_RENEWALS:
                return False
            file.renewals += 1
            file.renewed += 1
            file.link = file.wanted.link(True)
        return True

    def _start(self, work: Callable[[], None], name: str) -> None:
        self._threads.append(_started(work, name))


def _started(work: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def fetch(
    files: Sequence[Wanted],
    client: RangeClient,
    meter: Meter,
    cancel: threading.Event,
    *,
    policy: Policy = Policy(),  # noqa: B008 - frozen
    on_file: Callable[[Wanted], None] = lambda wanted: None,
) -> None:
    """Fetch all files; each is published under its name as soon as its digest is correct.

    Raises `DownloadFailedError`, `NoSpaceError`, `DownloadCanceledError`, or what a `link` raises. Bytes that arrived
    stay for the next call.
    """
    if files:
        board = Board(files, meter, on_file)
        Download(client, policy, cancel, board, len(files)).run()
