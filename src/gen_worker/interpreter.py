"""Tunes Python for a process that serves: when its threads take turns, and when its garbage collector runs.

**Turns.** A thread that needs Python's lock may ask for it after the switch interval. With Python's 5 ms, the event
loop of a worker got the lock only after all functions of a batch had returned: 64 results left in one message, and the
orchestrator waited for them. With turns of 1 ms the first results are on their way while the others are computed (64
clients: 4,440 durable runs/s instead of 3,980). The dev runner and the orchestrator gain nothing from it.

While a model loads, turns are as long as Python's. A load has many threads that often need the lock for a moment, and
each time a running function would stand still.

**Garbage.** Each collection stops everything while it walks the objects. A run leaves no reference cycle behind (a test
checks that), so the collector only finds the authors' own. Objects that were imported and built before the first run
stay for good, so they are frozen: the collector skips them. Before both changes, it took a quarter of the processor
time of an echo run (32 of 123 us).
"""

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Number of net new objects that starts a collection of the youngest. Python's default of 700 is reached with every forty kept runs.
YOUNG_OBJECTS = 10_000
SWITCH_S = 0.001


class _Turns:
    """The switch interval of this process. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._long_s = sys.getswitchinterval()
        self._short_s = self._long_s
        self._asked = 0

    def shorten(self) -> None:
        """From now on turns are short, except where `long` asks otherwise."""
        with self._lock:
            self._short_s = SWITCH_S
            self._set()

    @contextmanager
    def long(self) -> Iterator[None]:
        """Until the block ends, turns are as long as Python makes them."""
        self._ask(1)
        try:
            yield
        finally:
            self._ask(-1)

    def _ask(self, more: int) -> None:
        with self._lock:
            self._asked += more
            self._set()

    def _set(self) -> None:
        sys.setswitchinterval(self._long_s if self._asked else self._short_s)


TURNS = _Turns()


def settle_interpreter() -> None:
    """Call once, after everything was imported and built and before the first run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def settle_what_was_imported() -> None:
    """Call after libraries were imported later, from any thread. It walks nothing, so existing garbage is frozen, too."""
    gc.freeze()
