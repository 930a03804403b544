"""An answer that another thread writes to the socket, past the loop: for one caller at a time, waking the loop first costs more than all
the rest.

Laws. The loop gives this right away only while nothing of an earlier answer is unsent and while this exchange alone may write; it writes
nothing itself before it has taken the right back (`take_back`). The descriptor belongs to the transport, which closes it after
`connection_lost`: that takes the right back first, under the lock that a write holds, so nobody ever writes to a number that has become
another connection's. A write never waits for the client: what the socket does not take at once, the loop sends.
"""

import os
import threading
from collections.abc import Callable


class DirectAnswer:
    """The right to write one whole answer. `write` is for one call from any thread, the rest for the loop."""

    def __init__(self, descriptor: int, render: Callable[[int, list[tuple[bytes, bytes]], bytes], bytes]) -> None:
        self._descriptor = descriptor
        self._render = render
        self._lock = threading.Lock()
        self._open = True
        self._rest: bytes | None = None

    def write(self, status: int, fields: list[tuple[bytes, bytes]], body: bytes, before: Callable[[], None]) -> None:
        """Call `before`, then write. Nothing is written when the right has been taken back; the loop, which is told by `before`, waits for
        the end of this when it looks.
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
            except OSError:  # the client is gone, which the loop hears by itself
                count = len(data)
            self._rest = data[count:]

    def take_back(self) -> bytes | None:
        """Nothing is written from now on. What is left of the answer for the loop to write, maybe nothing; None when none was written."""
        with self._lock:
            self._open = False
            return self._rest
