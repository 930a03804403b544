"""The way back from other threads to the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Mailbox:
    """Calls from any thread to the loop, in order. Many posts share one wake-up of the loop, which is what costs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # kept: asking for the running loop is a system call on Python 3.11
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._scheduled = False

    def post(self, call: Callable[..., None], *args: Any) -> None:
        """Have `call(*args)` run on the loop; dropped when the loop is closed."""
        self._calls.append((call, args))
        self.wake()

    def put(self, call: Callable[..., None], *args: Any) -> None:
        """The same without a wake-up: for who posts right afterwards."""
        self._calls.append((call, args))

    def catch_up(self) -> None:
        """On the loop: run now what has been put. Its errors are the loop's, not the caller's."""
        if self._calls:
            try:
                self._drain()
            except BaseException as exc:  # noqa: BLE001 - of whoever posted
                self.loop.call_exception_handler({"message": "a call from another thread failed", "exception": exc})

    def wake(self) -> None:
        """Have the loop run what has been put."""
        if not self._scheduled:
            self._scheduled = True
            try:
                self.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop has closed: nobody is left to tell
                self._calls.clear()

    def _drain(self) -> None:
        # Cleared first: a post that comes while we drain schedules one drain too many, never one too few.
        self._scheduled = False
        calls = self._calls
        try:
            while calls:
                call, args = calls.popleft()
                call(*args)
        finally:
            if calls and not self._scheduled:  # one call failed; the others are owed all the same
                self._scheduled = True
                self.loop.call_soon(self._drain)
