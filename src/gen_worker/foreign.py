"""Code that others wrote, called in a thread of ours: whatever it raises ends this one call, and no loop, pool or process."""

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TypeVar

from gen_worker.errors import FatalError

T = TypeVar("T")


def contained(work: Callable[[], T]) -> T:
    """Call `work`; its result, or an ordinary exception.

    A future that carries SystemExit or KeyboardInterrupt raises it again in the event loop, which ends the process. One that carries
    StopIteration never wakes its waiter on Python 3.11, and CancelledError looks as if the waiter itself had been cancelled. The exceptions
    that may be raised in the thread of a pool are therefore those that leave this function.
    """
    try:
        return work()
    except (StopIteration, CancelledError) as exc:
        raise RuntimeError(f"{type(exc).__name__} was raised outside of an iteration or a task") from exc
    except Exception:
        raise
    except BaseException as exc:
        raise FatalError(f"{type(exc).__name__} was raised; a model's code must not end the process that serves it") from exc
