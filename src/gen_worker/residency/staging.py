"""Host memory that bytes pass through on their way from a file to a device.

A ring has a few large buffers of BLOCKS blocks each. A reader takes adjacent blocks of one buffer, fills them in one
read and sends them in one copy. The number of blocks decides how often it asks for the interpreter's lock. While
functions run or a module is being built, a reader takes a whole buffer. While the load has the interpreter to itself,
it takes one block, so that all readers end at about the same time.

    free --take--> a reader's --sent--> in flight --its event--> free
                              --give_back--> free
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from gen_worker.residency.cuda_copies import Event

BLOCK_BYTES = 16 << 20
BLOCKS = 2  # blocks in a buffer
BUFFER_BYTES = BLOCKS * BLOCK_BYTES
MOST = 8  # buffers for each device, 256 MiB in all


class Room(msgspec.Struct, frozen=True, eq=False):
    """Adjacent blocks of a buffer: its bytes `[begin, end)`."""

    number: int  # of its buffer
    buffer: Any
    begin: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin

    @property
    def view(self) -> memoryview:
        return memoryview(self.buffer.view)[self.begin : self.end]


class StagingRing:
    """Buffers used in turn. They outlive a load, because pinning memory costs more than filling it.

    Safe from any thread. A thread holds one room at a time, so someone can always go on.
    """

    def __init__(self, allocate: Callable[[], Any], most: int = MOST, on_arrival: Callable[[Event], None] = lambda event: None) -> None:
        """`allocate` makes a buffer of BUFFER_BYTES with a `view` of its bytes; it may block. `on_arrival` gets each event
        whose copy has arrived, so that it can be used again."""
        self._allocate = allocate
        self._on_arrival = on_arrival
        self._most = most
        self._made = 0
        self._buffers: list[Any] = []
        self._free: list[list[bool]] = []  # whether each block is free, by buffer and block
        self._under_way: deque[tuple[Event, Room]] = deque()
        self._changed = threading.Condition()

    def take(self, size_bytes: int) -> Room:
        """Room to fill: as much of `size_bytes` as is free in adjacent blocks, at least one block. Pass it to `sent` or
        `give_back`.

        When nothing is free, waits until a copy has arrived.
        """
        blocks = min(BLOCKS, max(1, -(-size_bytes // BLOCK_BYTES)))
        with self._changed:
            while True:
                while self._under_way and self._under_way[0][0].query():
                    self._arrived(*self._under_way.popleft())
                if (room := self._find(blocks)) is not None:
                    return room
                if self._made < self._most:
                    self._made += 1
                    self._add_buffer()
                elif self._under_way:
                    event, room = self._under_way.popleft()
                    self._changed.release()
                    try:
                        event.synchronize()
                    finally:
                        self._changed.acquire()
                        self._arrived(event, room)
                else:
                    self._changed.wait()

    def sent(self, room: Room, event: Event) -> None:
        """The room is being copied, until the event says that the copy has arrived."""
        with self._changed:
            self._under_way.append((event, room))
            self._changed.notify()

    def give_back(self, room: Room) -> None:
        """The room was not sent; free it."""
        with self._changed:
            self._free_again(room)

    def prepare(self) -> None:
        """Allocate all buffers before the first load: pinning memory stalls the device's other work."""
        with self._changed:
            while self._made < self._most:
                self._made += 1
                self._add_buffer()

    def _add_buffer(self) -> None:
        """Called with the lock held; releases it while the memory is allocated."""
        self._changed.release()
        try:
            buffer = self._allocate()
        except BaseException:
            self._changed.acquire()
            self._made -= 1
            self._changed.notify()
            raise
        self._changed.acquire()
        self._buffers.append(buffer)
        self._free.append([True] * BLOCKS)
        self._changed.notify_all()

    def _arrived(self, event: Event, room: Room) -> None:
        self._free_again(room)
        self._on_arrival(event)

    def _find(self, blocks: int) -> Room | None:
        """The longest run of free blocks, at most `blocks` long."""
        best = (0, 0, 0)  # blocks, buffer, first block
        for number, free in enumerate(self._free):
            length = 0
            for block, is_free in enumerate(free):
                length = length + 1 if is_free else 0
                if min(length, blocks) > best[0]:
                    best = (length, number, block + 1 - length)
        count, number, first = best
        if not count:
            return None
        self._free[number][first : first + count] = [False] * count
        return Room(number, self._buffers[number], first * BLOCK_BYTES, (first + count) * BLOCK_BYTES)

    def _free_again(self, room: Room) -> None:
        first, end = room.begin // BLOCK_BYTES, room.end // BLOCK_BYTES
        self._free[room.number][first:end] = [True] * (end - first)
        self._changed.notify()
