"""An answer that another thread writes to the socket, past the loop: with one caller at a time, waking the loop first
would cost more than everything else.

Laws. The loop grants this right only while no part of an earlier answer is unsent and while this exchange alone may
write. The loop writes nothing itself before it has withdrawn the right (`take_back`). The descriptor belongs to the
transport, which closes it after `connection_lost`. That method first withdraws the right, under the lock that a write
holds, so nobody ever writes to a number that has become another connection's. A write never waits for the client: bytes
that the socket does not take at once are sent by the loop.
"""

import os
import threading
from collections.abc import Callable


class DirectAnswer:
    """The right to write one complete answer. Call `write` once, from any thread; the rest belongs to the loop."""

    def __init__(self, descriptor: int, render: Callable[[int, list[tuple[bytes, bytes]], bytes], bytes]) -> None:
        self._descriptor = descriptor
        self._render = render
        self._lock = threading.Lock()
        self._open = True
        self._rest: bytes | None = None

    def write(self, status: int, fields: list[tuple[bytes, bytes]], body: bytes, before: Callable[[], None]) -> None:
        """Call `before`, then write. Nothing is written if the right was withdrawn. The loop is told by `before`, and
        waits for the end of this call when it looks.
        """
        data = self._render(status, fields, body)
        with self._lock:
            before()
            if not self._open:
                return
            try:
                count = os.write(self._descriptor, data)
            except BlockingIOError:
                count = 0
            except OSError:  # the client is gone; the loop notices by itself
                count = len(data)
            self._rest = data[count:]

    def take_back(self) -> bytes | None:
        """Withdraw the right: nothing is written from now on. Returns the rest of the answer for the loop to write,
        possibly empty; None when nothing was written.
        """
        with self._lock:
            self._open = False
            return self._rest
