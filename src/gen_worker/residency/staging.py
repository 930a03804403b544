"""Host memory that bytes pass through on their way from a file to a device."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

STAGING_BYTES = 16 << 20
MOST = 16  # buffers of a device, 256 MiB in all


class Event(Protocol):
    """When a copy has arrived. torch.cuda.Event is one."""

    def query(self) -> bool: ...

    def synchronize(self) -> Any: ...


class StagingRing:
    """Buffers that go round: filled by a reader, sent to the device, filled again.

    They stay when a load has ended, for pinning memory costs more than filling it. Safe from any thread; a thread has one buffer at a time,
    so that somebody can always go on.
    """

    def __init__(self, allocate: Callable[[], Any], most: int = MOST) -> None:
        self._allocate = allocate
        self._most = most
        self._made = 0
        self._free: list[Any] = []
        self._under_way: deque[tuple[Event, Any]] = deque()
        self._changed = threading.Condition()

    def take(self) -> Any:
        """A buffer to fill; `send` it or give it back. Waits until a copy has arrived where there is none left."""
        with self._changed:
            while True:
                if self._under_way and self._under_way[0][0].query():
                    return self._under_way.popleft()[1]
                if self._free:
                    return self._free.pop()
                if self._made < self._most:
                    self._made += 1
                    break
                if self._under_way:
                    event, buffer = self._under_way.popleft()
                    self._changed.release()
                    try:
                        event.synchronize()
                    finally:
                        self._changed.acquire()
                    return buffer
                self._changed.wait()
        try:
            return self._allocate()
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise

    def sent(self, buffer: Any, event: Event) -> None:
        """It is on its way until the event."""
        with self._changed:
            self._under_way.append((event, buffer))
            self._changed.notify()

    def give_back(self, buffer: Any) -> None:
        """It was not sent."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def prepare(self, count: int) -> None:
        """Allocate buffers ahead of the first load."""
        taken = [self.take() for _ in range(min(count, self._most))]
        for buffer in taken:
            self.give_back(buffer)
