"""How our programs are asked to end, and how they end even if an author's code has left something running.

    first signal    our own work ends in order: runs are drained, results delivered, files closed
    `leave`         our own work is over. Python would now wait for non-daemon threads, thread pools and child processes of the
                    author's; they get `GRACE_S`, then the process ends without them
    second signal   our own work ends in a hurry; after `leave` was called, the process ends at once

Only programs call `leave`: a `Worker` inside another program leaves the end of the process to that program.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NoReturn

from gen_worker.log import Log
from gen_worker.log_pipe import THREAD as LOG_THREAD
from gen_worker.log_pipe import drain

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

GRACE_S = 2.0
INTERRUPTED = 130  # what a shell shows for a program that SIGINT ended: 128 + 2
SHOW_CURSOR = "\x1b[?25h"
FLUSH_S = 0.5
LEAVING = "leaving"


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask a program to end. SIGHUP is one of them (a closed terminal, an init system), except for
    programs that ignore it already because they were started to outlive their terminal, for example by `nohup`.
    """
    found = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        found.append(hangup)
    return tuple(found)


class Interruption:
    """Which signal has interrupted a command, if any."""

    number: int | None = None

    @property
    def status(self) -> int:
        """What a shell shows for a program that this signal ended."""
        return 128 + (self.number or signal.SIGINT)


@contextlib.contextmanager
def interrupted_once() -> Iterator[Interruption]:
    """While open, the first Ctrl-C raises `KeyboardInterrupt`, and so do the other signals that ask a program to end. A
    second one ends the process at once, without waiting for the work that the first one has to finish, and without a
    traceback. For the main thread of a command; an existing handler of the caller's stays.
    """
    found = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return

    def first(number: int, frame: object) -> NoReturn:
        found.number = number
        for each in taken:
            signal.signal(each, second)
        raise KeyboardInterrupt

    def second(number: int, frame: object) -> NoReturn:
        end_at_once(found.status)

    taken = {
        number: before for number in stop_signals() if (before := signal.getsignal(number)) in (signal.SIG_DFL, signal.default_int_handler)
    }
    for number in taken:
        signal.signal(number, first)
    try:
        yield found
    finally:
        for number, before in taken.items():
            if signal.getsignal(number) in (first, second):  # unless `leave` has installed its own
                signal.signal(number, before)


def end_at_once(status: int = INTERRUPTED) -> NoReturn:
    """End a command that was interrupted twice. Shows the terminal's cursor again, which a progress bar may have hidden."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{SHOW_CURSOR if sys.stderr.isatty() else ''}ended at once\n")
        sys.stderr.flush()
    os._exit(status)


@cache
def leave_forks_alone() -> None:
    """Restore the default meaning of signals in child processes that an author's code forks.

    A forked child has our handlers, and the socket by which they wake our event loop. `multiprocessing.Pool` ends its
    children by SIGTERM, and each of them would pass it on to us. Signals are blocked while a process forks: a signal
    that arrives before the child has dropped our handlers would reach us, or nobody, and a pool waits for ever for a
    child that it has told to end.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals, after_in_child=_forget_signals)


_held = threading.local()  # the signal mask of the forking thread


def _hold_signals() -> None:
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())


def _let_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _forget_signals() -> None:
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
        for number in stop_signals():
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    _let_signals()


def leave(status: int, log: Log, grace_s: float = GRACE_S) -> int:
    """Our own work is over: the process ends within `grace_s`, with `status`. Returns the status, for `sys.exit`. For the main thread."""
    finish(status, log)
    threading.Thread(target=_end_later, args=(status, log, grace_s), name=LEAVING, daemon=True).start()
    return status


def finish(status: int, log: Log) -> int:
    """A command's work is over. Returns the status, for `sys.exit`, which then ends the process as usual, with two
    exceptions: a signal that arrives now ends it at once, with the same status and without a traceback; and Python's
    own teardown is skipped while threads still run. For the main thread.
    """
    if threading.current_thread() is threading.main_thread():
        for number in stop_signals():
            signal.signal(number, lambda number, frame: _end(status, log))
    atexit.unregister(_end_before_teardown)
    atexit.register(_end_before_teardown, status, log)
    return status


def _end_before_teardown(status: int, log: Log) -> None:
    """Call the functions registered with `atexit`, and end the process without Python's teardown. The teardown would
    end each daemon thread where it next needs the GIL, by unwinding its stack. C++ frames on the stack do not know that
    exception: they call `std::terminate`, and the process aborts (torch does so in the middle of a run).
    """
    atexit.unregister(_end_before_teardown)
    atexit._run_exitfuncs()
    ours = (LEAVING, LOG_THREAD)
    if any(thread.name not in ours and thread is not threading.current_thread() for thread in threading.enumerate()):
        _end(status, log)


def _end_later(status: int, log: Log, grace_s: float) -> None:
    time.sleep(grace_s)
    log.warning("process.left_running", threads=_threads(), children=[child.pid for child in _children()], waited_s=grace_s)
    _end(status, log)


def _end(status: int, log: Log) -> None:
    for child in _children():
        with contextlib.suppress(OSError, ValueError):
            child.terminate()
    flushing = threading.Thread(target=_flush, args=(log,), daemon=True)  # a pipe that nobody reads must not keep the process alive
    try:
        flushing.start()
        flushing.join(FLUSH_S)
    except RuntimeError:  # no thread can be started this late
        _flush(log)
    os._exit(status)


def _flush(log: Log) -> None:
    for stream in (sys.stdout, sys.stderr, log.stream):
        drain(stream, FLUSH_S)


def _threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread())


def _children() -> "list[BaseProcess]":
    """Child processes that the author's code started with `multiprocessing`; Python waits only for those."""
    if "multiprocessing.process" not in sys.modules:
        return []
    from multiprocessing import active_children

    return active_children()
