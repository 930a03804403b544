"""Ends a process that an author's function forked, once its code returns there.

The child is a copy of the worker with a single thread. If it continued like the worker, it would wait for a next run
that never comes, keep the worker's sockets open, and block the parent's `os.waitpid` for ever.
"""

import os
import sys
import traceback
from typing import NoReturn

NOTE = "a child process forked by the function returned from it; it has no run to answer: end it with os._exit(0)"


def end_child(exc: BaseException | None) -> NoReturn:
    """End this forked child the way Python ends a program: by the exception; status 1 if the code returned."""
    status = 1
    try:
        if isinstance(exc, SystemExit):
            status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
            if exc.code is not None and not isinstance(exc.code, int):
                print(exc.code, file=sys.stderr)
        elif exc is not None:
            traceback.print_exception(exc)
        else:
            print(NOTE, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status & 0xFF)
