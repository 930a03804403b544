"""Many files by parallel ranges: resumed where they stopped, hashed while they come, published only when their digest is right. Blocking.

Stream threads fetch ranges; checking threads follow each file's contiguous front with its hash while the pages are still in memory.
"""

import errno
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from gen_worker.net.fetched_file import FetchedFile
from gen_worker.net.range_client import EXPIRED, PASSING, HttpError, PassingError, RangeClient, RangeReply
from gen_worker.net.wanted import DiskFullError, DownloadCanceledError, DownloadFailedError, Meter, Policy, Wanted

HASH_BYTES = 4 << 20
HASH_BUFFER_BYTES = 1 << 20
FLUSH_BYTES = 64 << 20
MEASURE_S = 0.25  # between decisions on more streams
MAX_RENEWALS = 3


class _Watch:
    """An answer that is being read, and how far it had come when it was last looked at."""

    def __init__(self, reply: RangeReply) -> None:
        self.reply = reply
        self.size_bytes = 0
        self.seen_bytes = 0
        self.seen_s = time.monotonic()
        self.hung_up = False


class Download:
    """One call of `fetch`: the threads and what they share."""

    def __init__(
        self, client: RangeClient, policy: Policy, meter: Meter, cancel: threading.Event, on_file: Callable[[Wanted], None]
    ) -> None:
        self._client = client
        self._policy = policy
        self._meter = meter
        self._cancel = cancel
        self._on_file = on_file
        self._changed = threading.Condition()
        self._waiting: deque[FetchedFile] = deque()
        self._active: list[FetchedFile] = []
        self._left = 0
        self._failure: Exception | None = None
        self._arrived = 0  # bytes, for measuring
        self._threads: list[threading.Thread] = []
        self._streams = policy.streams
        self._watches: dict[int, _Watch] = {}  # by stream thread

    def run(self, files: Sequence[Wanted]) -> None:
        """Fetch all, or raise what stopped it after every thread has ended."""
        self._waiting.extend(FetchedFile(wanted) for wanted in files)
        self._left = len(files)
        for number in range(self._policy.streams):
            self._start(self._stream, f"download-{number}")
        for number in range(2):
            self._start(self._check, f"download-check-{number}")
        self._start(self._flush, "download-flush")
        try:
            self._supervise()
        except BaseException as exc:
            self._fail(exc if isinstance(exc, Exception) else DownloadCanceledError("interrupted"))
            raise
        finally:
            for thread in self._threads:
                thread.join()
            for file in self._active:
                if file.opened:
                    file.part.write_journal()
                    file.part.close()
        if self._failure is not None:
            raise self._failure

    def _supervise(self) -> None:
        """Wait; add streams for as long as each addition pays."""
        best_rate, last, since_s = 0.0, 0, time.monotonic()
        while True:
            with self._changed:
                if self._over:
                    return
                self._changed.wait(0.1)
                arrived = self._arrived
            if self._cancel.is_set():
                self._fail(DownloadCanceledError("the download was cancelled"))
                return
            self._hang_up_on_slow()
            elapsed_s = time.monotonic() - since_s
            if elapsed_s < MEASURE_S:
                continue
            rate, last, since_s = (arrived - last) / elapsed_s, arrived, time.monotonic()
            if rate > best_rate * 1.1 and self._streams < self._policy.max_streams:
                best_rate = rate
                for _ in range(2):
                    self._start(self._stream, f"download-{self._streams}")
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

    def _stream(self) -> None:
        while (task := self._next_range()) is not None:
            file = task[0]
            try:
                self._try_range(*task)
            except OSError as exc:
                if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                    self._fail(DiskFullError(exc.errno, f"no space left for {file.name} ({file.wanted.size_bytes} bytes)"))
                else:
                    self._fail(exc)
            except Exception as exc:  # noqa: BLE001 - what a link gives may fail in any way; it ends the download, not the thread alone
                self._fail(exc)
            finally:
                with self._changed:
                    file.busy -= 1
                    self._changed.notify_all()

    def _try_range(self, file: FetchedFile, start: int, end: int, epoch: int) -> None:
        renewed = file.renewed
        try:
            self._fetch_range(file, start, end, epoch)
        except (PassingError, HttpError) as exc:
            self._retry(file, exc, epoch, renewed)

    def _next_range(self) -> tuple[FetchedFile, int, int, int] | None:
        with self._changed:
            while not self._over:
                for file in self._active:
                    with file.lock:
                        if file.gaps and not (file.whole and file.busy):
                            file.busy += 1
                            return file, *file.take(self._streams), file.epoch
                if self._waiting:
                    file = self._waiting.popleft()
                    try:
                        have = file.open()
                    except OSError as exc:
                        self._failure = self._failure or exc
                        self._changed.notify_all()
                        return None
                    self._meter.add(have)
                    self._active.append(file)
                    self._changed.notify_all()
                    continue
                self._changed.wait()
            return None

    def _fetch_range(self, file: FetchedFile, start: int, end: int, epoch: int) -> None:
        at = start
        try:
            link = file.link or file.wanted.link(False)
            size = file.wanted.size_bytes
            is_all = start == 0 and end == size
            with self._client.get(link, start, None if is_all and file.whole else end, file.part.etag) as reply:
                at, end, epoch = self._accept(file, reply, start, end, epoch)
                watch = self._watches[threading.get_ident()] = _Watch(reply)
                for chunk in reply.chunks():
                    if self._over or file.epoch != epoch:
                        return
                    chunk = chunk[: end - at]
                    file.part.write(at, chunk)
                    with file.lock:
                        if file.epoch != epoch:
                            return
                        file.part.note(at, at + len(chunk))
                        file.failures = file.renewals = 0
                        at += len(chunk)
                    self._count(len(chunk))
                    if at == end:
                        return
                    watch.size_bytes += len(chunk)
                if watch.hung_up:
                    raise PassingError(f"only {watch.size_bytes} bytes of {file.name} in {self._policy.stall_s:.0f} s")
                raise PassingError(f"the answer for {file.name} ended {end - at} bytes early")
        finally:
            self._watches.pop(threading.get_ident(), None)
            with file.lock:
                if file.epoch == epoch and at < end:
                    file.gaps.appendleft((at, end))

    def _accept(self, file: FetchedFile, reply: RangeReply, start: int, end: int, epoch: int) -> tuple[int, int, int]:
        """Check that an answer belongs to the file; where its bytes begin and end, and in which epoch."""
        size = file.wanted.size_bytes
        if reply.total is not None and reply.total != size:
            raise DownloadFailedError(f"{file.name} has {reply.total} bytes at its source, expected {size}", passing=False)
        with file.lock:
            if file.epoch != epoch:
                raise PassingError("the file was begun again")
            file.link = reply.link
            changed = bool(file.part.etag and reply.etag and reply.etag != file.part.etag)
            if reply.is_range:
                if changed:  # a server without If-Range: this answer is of another version
                    self._meter.add(-file.restart())
                    raise PassingError(f"{file.name} changed at its source")
                file.part.etag = file.part.etag or reply.etag
                return start, end, epoch
            # The whole file though a range was asked for: no ranges here, or not of this version.
            if start or end != size or file.part.done.total():
                file.whole = file.whole or not changed
                self._meter.add(-file.restart())
            file.part.etag = reply.etag
            file.gaps.clear()
            return 0, size, file.epoch

    def _retry(self, file: FetchedFile, exc: Exception, epoch: int, renewed: int) -> None:
        """Wait before the next try, or give up on everything."""
        policy = self._policy
        if isinstance(exc, HttpError):
            if exc.status in EXPIRED and self._renew(file, renewed):
                return
            if exc.status == 416 and file.restarts == 0:
                file.restarts += 1
                with file.lock:
                    self._meter.add(-file.restart())
                return
            if exc.status not in PASSING:
                passing = exc.status in EXPIRED
                self._fail(DownloadFailedError(f"{file.name}: {exc}", passing=passing, status=exc.status))
                return
        with file.lock:
            if file.epoch != epoch:
                return
            file.failures += 1
            failures = file.failures
        if failures >= policy.tries:
            status = exc.status if isinstance(exc, HttpError) else None
            self._fail(DownloadFailedError(f"{file.name}: {exc} ({failures} tries)", passing=True, status=status))
            return
        asked_s = exc.retry_after_s if isinstance(exc, HttpError) else None
        pause_s = min(policy.max_pause_s, policy.first_pause_s * 2 ** (failures - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._cancel.wait(asked_s if asked_s is not None else pause_s)

    def _renew(self, file: FetchedFile, seen: int) -> bool:
        """A fresh address after a refusal of the one before; False when renewing does not help."""
        with file.lock:
            if file.renewed != seen:
                return True  # another stream has done it
            if file.renewals >= MAX_RENEWALS:
                return False
            file.renewals += 1
            file.renewed += 1
            file.link = file.wanted.link(True)
        return True

    # Checking.

    def _check(self) -> None:
        while (file := self._next_check()) is not None:
            try:
                self._hash_on(file)
            except Exception as exc:  # noqa: BLE001 - a disk that cannot be read ends the download
                self._fail(exc)
            finally:
                with self._changed:
                    file.checking = False
                    self._changed.notify_all()

    def _flush(self) -> None:
        while (file := self._next_flush()) is not None:
            try:
                written = file.part.done.total()
                file.part.flush()
                file.flushed = written
            except Exception as exc:  # noqa: BLE001 - as above
                self._fail(exc)
            finally:
                with self._changed:
                    file.flushing = False
                    self._changed.notify_all()

    def _next_flush(self) -> FetchedFile | None:
        with self._changed:
            while not self._over:
                for file in self._active:
                    if not file.checking and not file.flushing and file.part.done.total() - file.flushed >= FLUSH_BYTES:
                        file.flushing = True
                        return file
                self._changed.wait(0.05)
            return None

    def _next_check(self) -> FetchedFile | None:
        with self._changed:
            while not self._over:
                for file in self._active:
                    front = file.part.done.front()
                    ready = front == file.wanted.size_bytes and not file.busy
                    behind = file.hash is not None and front - file.hashed >= HASH_BYTES
                    if not file.checking and ((ready and not file.flushing) or behind):
                        file.checking = True
                        return file
                self._changed.wait(0.05)
            return None

    def _hash_on(self, file: FetchedFile) -> None:
        """Take the hash up to the front; publish a file that is complete and right."""
        size = file.wanted.size_bytes
        buffer = memoryview(bytearray(min(HASH_BUFFER_BYTES, max(size, 1))))
        while not self._over:
            with file.lock:
                epoch, at, front, hasher = file.epoch, file.hashed, file.part.done.front(), file.hash
            if at < front and hasher is not None:
                got = file.part.read_into(at, buffer[: front - at])
                hasher.update(buffer[:got])
                with file.lock:
                    if file.epoch == epoch:
                        file.hashed = at + got
                continue
            if front < size or file.busy:
                return
            break
        else:
            return
        expected = file.wanted.digest.partition(":")[2]
        if file.hash is not None and file.hash.hexdigest() != expected:
            if file.restarts:
                file.opened = False
                file.part.discard()
                raise DownloadFailedError(
                    f"{file.name} arrived with another content than its digest says, twice; the source is wrong", passing=False
                )
            file.restarts += 1
            with file.lock:
                self._meter.add(-file.restart())
            return
        file.part.publish()
        file.part.close()
        self._on_file(file.wanted)
        with self._changed:
            self._active.remove(file)
            self._left -= 1
            self._changed.notify_all()

    # What all share.

    @property
    def _over(self) -> bool:
        return self._failure is not None or self._left == 0

    def _count(self, size_bytes: int) -> None:
        self._meter.add(size_bytes)
        with self._changed:
            self._arrived += size_bytes

    def _fail(self, exc: Exception) -> None:
        with self._changed:
            self._failure = self._failure or exc
            self._changed.notify_all()

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def fetch(
    files: Sequence[Wanted],
    client: RangeClient,
    meter: Meter,
    cancel: threading.Event,
    *,
    policy: Policy = Policy(),  # noqa: B008 - frozen
    on_file: Callable[[Wanted], None] = lambda wanted: None,
) -> None:
    """Have all files, each published under its name as soon as it is right.

    Raises `DownloadFailedError`, `DiskFullError`, `DownloadCanceledError`, or what a `link` raises. What came stays for the next call.
    """
    if files:
        Download(client, policy, meter, cancel, on_file).run(files)
