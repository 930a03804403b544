"""ROOT of the command line. It imports nothing at first, so that Ctrl-C while the rest is imported shows no traceback."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> NoReturn:
    """`cozyctl`. Exit status: 0 ok, 1 the run failed, 2 usage, 3 not found, 4 auth, 5 time-out, 130 interrupted (143 by
    SIGTERM, 129 by SIGHUP), 141 the reader of our output went away (`cozyctl run ... | head -1`).
    """
    before = signal.getsignal(signal.SIGINT)
    is_ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if is_ours:
        signal.signal(signal.SIGINT, _end)
    from gen_worker.cli.verbs import perform

    if is_ours:
        signal.signal(signal.SIGINT, before)
    perform(argv)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.stderr.write("\ninterrupted\n" if sys.stderr.isatty() else "interrupted\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)
