"""Calls other people's code in one of our threads: whatever it raises ends this one call, and no loop, pool or process."""

import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TypeVar

from gen_worker.errors import FatalError
from gen_worker.outcome import told
from gen_worker.texts import class_name

T = TypeVar("T")


def contained(work: Callable[[], T]) -> T:
    """Call `work`. Returns its result, or raises an exception that is safe to read: one of ours, or a `ToldError` with
    plain values.

    A future that carries SystemExit or KeyboardInterrupt raises it again in the event loop, which ends the process. A
    future with StopIteration never wakes its waiter on Python 3.11, and CancelledError looks as if the waiter itself
    had been cancelled. So only exceptions that are safe in a pool's thread leave this function. The text of the
    original is read here, because its `__str__` may block. Its frames are cleared, because they hold what a failed load
    had allocated.
    """
    try:
        return work()
    except (StopIteration, CancelledError) as exc:
        failed: Exception = RuntimeError(f"{class_name(exc)} was raised outside of an iteration or a task")
    except Exception as exc:
        failed = told(exc)
        if failed is exc:
            raise
        traceback.clear_frames(exc.__traceback__)
    except BaseException as exc:  # noqa: BLE001 - raised below, as an ordinary one
        failed = FatalError(f"{class_name(exc)} was raised; a model's code must not end the process that serves it")
    raise failed  # outside the handler, so that the original is not attached
