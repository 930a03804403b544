r"""Stdout and stderr of a program whose reader may stop reading: log output never waits for it.

    any thread --write--> the pipe or terminal, as much as it accepts at once
                    \---> lines that wait, at most `MAX_WAITING_BYTES` --a thread, as fast as the reader reads--> the pipe

A full pipe makes `write` wait for its reader: a supervisor that reads only stdout, `less`, Ctrl-S on a terminal. On the
thread of an event loop that stops a whole server; on a function's thread it stops the run. Here the lines that do not
fit wait in memory. Beyond the bound they are dropped and counted, and a line in their place says how many were lost.

Laws. What was written stays in order. A line that has begun is written to its end. Results are not for this: see
`project/stdout`.
"""

import atexit
import contextlib
import os
import select
import socket
import stat
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from io import FileIO, RawIOBase, TextIOWrapper
from typing import Any, TextIO, TypeVar

MAX_WAITING_BYTES = 1 << 20
THREAD = "log"
END_S = 1.0  # how long an ending program waits for its reader to read the rest

T = TypeVar("T", bound=TextIO | None)
Send = Callable[[bytes], int]  # returns how many bytes it took; BlockingIOError for none
LostLine = Callable[[int], str]  # the line, without its end, that says how many lines were lost


class LogPipe(RawIOBase):
    """The file below a text stream. `number`: the descriptor that it writes to; the pipe keeps a duplicate."""

    def __init__(self, number: int, lost_line: LostLine, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self._number = number
        self._lost_line = lost_line
        self._max = max_waiting_bytes
        self._broken = False
        self._own: socket.socket | FileIO | None = None
        self._begin()
        self._own, self._send = _own_way(number)
        if hasattr(os, "register_at_fork"):
            this = weakref.WeakMethod(self._begin)
            os.register_at_fork(after_in_child=lambda: begin() if (begin := this()) is not None else None)

    def _begin(self) -> None:
        """Also called in a forked child: the waiting lines are the parent's to write, and the thread that held the lock
        does not exist there.
        """
        self._changed = threading.Condition(threading.RLock())  # a signal handler may write in the middle of a write
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        return {1: "<stdout>", 2: "<stderr>"}.get(self._number, "<log>")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: Any) -> int:
        data = bytes(data)
        with self._changed:
            if not self._broken:
                rest = data if self._waiting or self._send is None else self._write_now(data, self._send)
                if rest:
                    self._keep(rest, begun=len(rest) < len(data))
        return len(data)

    def drain(self, timeout_s: float | None) -> bool:
        """Wait until everything is written; False if that takes longer than `timeout_s`. None: no limit."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._thread is None, timeout_s)
            return not self._waiting

    def close(self) -> None:
        if not self.closed:
            super().close()
            with self._changed, contextlib.suppress(OSError):
                if self._thread is None and self._own is not None:  # otherwise the thread uses it
                    self._own.close()

    def _keep(self, data: bytes, *, begun: bool) -> None:
        if not begun and self._waiting_bytes + len(data) > self._max:
            self._lost += data.count(b"\n")
            return
        self._tell_lost()
        self._add(data)
        if self._thread is None:
            thread = threading.Thread(target=self._write_on, name=THREAD, daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread can be started now; the next write tries again
                thread.start()
                self._thread = thread
        self._changed.notify_all()

    def _tell_lost(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self._add(self._lost_line(lost).encode("utf-8", "backslashreplace") + b"\n")

    def _add(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)

    def _write_now(self, data: bytes, send: Send) -> bytes:
        """Write what is possible now; returns the rest."""
        try:
            return data[send(data) :]
        except BlockingIOError:
            return data
        except OSError:  # its reader, or the terminal, is gone
            self._broken = True
            return b""

    def _write_on(self) -> None:
        changed = self._changed
        assert self._own is not None
        while True:
            with changed:
                changed.wait_for(lambda: self._waiting)
                data = self._waiting[0]
            _wait_for_reader(self._own)
            rest = self._write_now(data, self._send or partial(os.write, self._own.fileno()))
            with changed:
                self._waiting_bytes -= len(data) - len(rest)
                if rest:
                    self._waiting[0] = rest
                else:
                    self._waiting.popleft()
                if self._broken:
                    self._waiting.clear()
                    self._waiting_bytes = 0
                elif not self._waiting:
                    self._tell_lost()
                changed.notify_all()


class LogText(TextIOWrapper):
    """Text for a `LogPipe`, line by line."""

    def __init__(self, pipe: LogPipe, encoding: str = "utf-8", errors: str = "backslashreplace") -> None:
        super().__init__(pipe, encoding, errors, line_buffering=True)
        self._pipe = pipe

    def drain(self, timeout_s: float | None) -> bool:
        """Wait until everything is written; False if that takes longer."""
        self.flush()
        return self._pipe.drain(timeout_s)

    def close(self) -> None:
        """Does nothing: an author's code that closes its stdout must not close the log, which may share the pipe."""
        self.flush()


def guard_standard_streams(lost_line: LostLine, *, end_s: float | None = END_S) -> None:
    """From now on, printing to `sys.stdout` and `sys.stderr` waits for no reader. When the program ends, it gives the
    reader `end_s` to read the rest; None: as long as it takes. For programs whose stdout is no result, or whose result
    is kept safe by `project/stdout`.
    """
    before = sys.stderr
    if sys.stderr is sys.__stderr__:
        sys.stderr = guarded(sys.stderr, lost_line, end_s)
    if sys.stdout is sys.__stdout__:
        # Two pipes to one reader could not keep the order.
        shared = sys.stderr._pipe if isinstance(sys.stderr, LogText) and sys.stderr is not before and _are_one(1, 2) else None
        sys.stdout = guarded(sys.stdout, lost_line, end_s, shared)


def guarded(stream: T, lost_line: LostLine, end_s: float | None = END_S, pipe: LogPipe | None = None) -> T | LogText:
    """The stream, or, if its reader could make it wait, a replacement that never waits. A file, or a stream that a test
    has put there, is returned as it is.
    """
    try:
        if stream is None or not can_wait(stream.fileno()):
            return stream
        stream.flush()
        found = LogText(pipe or LogPipe(stream.fileno(), lost_line), stream.encoding, stream.errors or "backslashreplace")
    except (OSError, ValueError, AttributeError):  # there is no stream, it is closed, or it has no descriptor
        return stream
    atexit.register(_end, found, end_s)
    return found


def _end(stream: LogText, end_s: float | None) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        drain(stream, end_s)


def drain(stream: TextIO | None, timeout_s: float | None) -> None:
    """Write the waiting lines and wait for that; for other streams, flush the buffer."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if isinstance(stream, LogText):
            stream.drain(timeout_s)
        elif stream is not None:
            stream.flush()


def can_wait(number: int) -> bool:
    """Whether a write to this descriptor may wait for a reader."""
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(number)


def _are_one(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _own_way(number: int) -> tuple[socket.socket | FileIO, Send | None]:
    """The same pipe, terminal or socket by a descriptor of our own, and how to write to it without ever waiting; None
    if only a thread can. Whether writes wait is a property of the open file, which other programs share. So the file is
    opened again, which only Linux can do.
    """
    if stat.S_ISSOCK(os.fstat(number).st_mode):
        sock = socket.socket(fileno=os.dup(number))
        return sock, lambda data: sock.send(data, socket.MSG_DONTWAIT)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # another user's terminal, as after `su`
            anew = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            return FileIO(anew, "wb"), partial(os.write, anew)
    return FileIO(os.dup(number), "wb"), None


def _wait_for_reader(file: socket.socket | FileIO) -> None:
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    poll.poll()
