"""What becomes of a process that an author's function has forked, once its code is at an end there.

The child is a copy of the worker with one thread. Were it to go on as we do, it would wait for the next run, which never comes, hold the
sockets of the worker open, and let the parent's `os.waitpid` wait for ever.
"""

import os
import sys
import traceback
from typing import NoReturn

NOTE = "a child that the function has forked came back from the function; there is no run for it to answer: end it by os._exit(0)"


def end_child(exc: BaseException | None) -> NoReturn:
    """End this forked child as Python ends a program: by what was raised; status 1 for one that returned."""
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
