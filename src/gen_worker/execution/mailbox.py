"""Passes calls from other threads to the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Mailbox:
    """Calls from any thread to the loop, in order. Many posts share one wake-up of the loop, because a wake-up is expensive."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # kept, because asking for the running loop is a system call on Python 3.11
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._scheduled = False

    def post(self, call: Callable[..., None], *args: Any) -> None:
        """Run `call(*args)` on the loop; dropped when the loop is closed."""
        self._calls.append((call, args))
        if not self._scheduled:
            self._scheduled = True
            try:
                self.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                self._calls.clear()

    def put(self, call: Callable[..., None], *args: Any) -> None:
        """Like `post`, without a wake-up: for callers that post right afterwards."""
        self._calls.append((call, args))

    def catch_up(self) -> None:
        """On the loop: run everything that was put. Errors go to the loop, not to the caller."""
        if self._calls:
            try:
                self._drain()
            except BaseException as exc:  # noqa: BLE001 - of whoever posted
                self.loop.call_exception_handler({"message": "a call from another thread failed", "exception": exc})

    def _drain(self) -> None:
        # Clear the flag first: a post that comes while we drain then schedules one drain too many, never one too few.
        self._scheduled = False
        calls = self._calls
        try:
            while calls:
                call, args = calls.popleft()
                call(*args)
        finally:
            if calls and not self._scheduled:  # one call failed; the others still have to run
                self._scheduled = True
                self.loop.call_soon(self._drain)
