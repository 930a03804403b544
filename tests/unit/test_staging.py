"""Host memory for bytes in transit is reused, in pieces of one block or of a whole buffer."""

import threading

import pytest

from gen_worker.residency.staging import BLOCK_BYTES, BUFFER_BYTES, Room, StagingRing


class Buffer:
    """No memory at all: a test of who has what needs none."""

    view = memoryview(b"")


class Copy:
    """A copy that arrives when it is told to."""

    def __init__(self) -> None:
        self.arrived = threading.Event()

    def query(self) -> bool:
        return self.arrived.is_set()

    def synchronize(self) -> None:
        assert self.arrived.wait(60)


def room_sizes(ring: StagingRing, *sizes: int) -> list[int]:
    return [ring.take(size).size_bytes for size in sizes]


def test_a_room_is_as_large_as_is_asked_for_within_a_buffer() -> None:
    ring = StagingRing(Buffer, most=4)
    assert room_sizes(ring, 1, BUFFER_BYTES, 10 * BUFFER_BYTES) == [BLOCK_BYTES, BLOCK_BYTES, BUFFER_BYTES], "the second takes what is free"


def test_rooms_never_overlap() -> None:
    ring = StagingRing(Buffer, most=3)
    rooms = [ring.take(size) for size in (BLOCK_BYTES, BUFFER_BYTES, BLOCK_BYTES, BUFFER_BYTES)]
    seen = [(room.number, at) for room in rooms for at in range(room.begin, room.end, BLOCK_BYTES)]
    assert len(seen) == len(set(seen))


def test_room_comes_back_when_its_copy_has_arrived() -> None:
    """With every buffer under way, who asks waits for the oldest copy, and gets its room."""
    ring, copies, rooms = StagingRing(Buffer, most=2), [Copy(), Copy()], []
    for copy in copies:
        room = ring.take(BUFFER_BYTES)
        ring.sent(room, copy)
        rooms.append(room)
    got: list[Room] = []
    waiter = threading.Thread(target=lambda: got.append(ring.take(BUFFER_BYTES)))
    waiter.start()
    copies[0].arrived.set()
    waiter.join(60)
    assert [(room.number, room.size_bytes) for room in got] == [(rooms[0].number, BUFFER_BYTES)]


def test_what_was_given_back_is_taken_by_who_waits() -> None:
    ring = StagingRing(Buffer, most=1)
    room = ring.take(BUFFER_BYTES)
    got: list[Room] = []
    waiter = threading.Thread(target=lambda: got.append(ring.take(1)))
    waiter.start()
    ring.give_back(room)
    waiter.join(60)
    assert len(got) == 1


def test_memory_that_cannot_be_had_leaves_the_ring_as_it_was() -> None:
    failing = True

    def allocate() -> Buffer:
        if failing:
            raise MemoryError("pinned memory")
        return Buffer()

    ring = StagingRing(allocate, most=1)
    with pytest.raises(MemoryError):
        ring.take(1)
    failing = False
    assert ring.take(1).size_bytes == BLOCK_BYTES


def test_prepared_buffers_are_allocated_once() -> None:
    made: list[Buffer] = []

    def allocate() -> Buffer:
        made.append(Buffer())
        return made[-1]

    ring = StagingRing(allocate, most=3)
    ring.prepare()
    ring.prepare()
    rooms = [ring.take(BUFFER_BYTES) for _ in range(3)]
    assert len(made) == 3
    assert len({room.number for room in rooms}) == 3


def test_many_readers_share_few_buffers() -> None:
    ring, taken, lock = StagingRing(Buffer, most=2), set[tuple[int, int]](), threading.Lock()
    errors: list[str] = []

    def read(number: int) -> None:
        for step in range(200):
            room = ring.take(BUFFER_BYTES if (number + step) % 2 else BLOCK_BYTES)
            blocks = {(room.number, at) for at in range(room.begin, room.end, BLOCK_BYTES)}
            with lock:
                if taken & blocks:
                    errors.append(f"{blocks} was taken twice")
                taken.update(blocks)
            with lock:
                taken.difference_update(blocks)
            copy = Copy()
            copy.arrived.set()
            if step % 3:
                ring.sent(room, copy)
            else:
                ring.give_back(room)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert not errors
    assert not any(reader.is_alive() for reader in readers)
