"""Copies by CUDA's driver: which calls it gets, in which order, and what becomes of its errors. A stand-in for the driver moves the bytes."""

# ruff: noqa: N802  (its names are CUDA's)

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from gen_worker.residency.cuda_copies import DriverCopies, Events, driver_of
from gen_worker.residency.staging import BLOCK_BYTES, StagingRing

CONTEXT, STREAM, NOT_READY = 77, 5, 600


class Driver:
    """Like NVIDIA's, for one context: a copy has arrived when `arrive` is called, and events know of it."""

    def __init__(self, errors: dict[str, int] | None = None) -> None:
        self.calls: list[str] = []
        self._errors = errors or {}
        self._queued: list[Callable[[], None]] = []
        self._done: dict[int, bool] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*args: Any) -> int:
            self.calls.append(name)
            return self._errors.get(name) or getattr(self, f"_{name}")(*args) or 0

        return call

    def arrive(self) -> None:
        for work in self._queued:
            work()
        self._queued = []

    def _cuStreamGetCtx(self, stream: Any, context: Any) -> None:
        assert stream.value == STREAM
        context._obj.value = CONTEXT

    def _cuCtxSetCurrent(self, context: Any) -> None:
        assert context.value == CONTEXT

    def _cuMemcpyHtoDAsync_v2(self, target: int, source: int, size: int, stream: Any) -> None:
        def move() -> None:
            ctypes.memmove(target, source, size)

        self._queued.append(move)

    def _cuEventCreate(self, event: Any, flags: int) -> None:
        event._obj.value = 1000 + len(self._done)
        self._done[event._obj.value] = True

    def _cuEventRecord(self, event: Any, stream: Any) -> None:
        self._done[event.value] = False
        self._queued.append(lambda: self._done.update({event.value: True}))

    def _cuEventQuery(self, event: Any) -> int:
        return 0 if self._done[event.value] else NOT_READY

    def _cuEventSynchronize(self, event: Any) -> None:
        self.arrive()


class Memory:
    """Host memory by its address."""

    tensor = None

    def __init__(self, data: bytes) -> None:
        self.buffer = ctypes.create_string_buffer(data, len(data))
        self.view = memoryview(self.buffer)
        self.address = ctypes.addressof(self.buffer)


def test_bytes_go_where_they_belong() -> None:
    driver, source, target = Driver(), Memory(b"0123456789"), Memory(b"." * 10)
    copies = DriverCopies(driver, target.address, STREAM)
    event = copies.copy(source, 2, 5, 3)
    assert not event.query()
    assert target.buffer.raw == b"." * 10
    driver.arrive()
    assert event.query()
    assert target.buffer.raw == b".....234.."
    copies.copy(source, 8, 0, 2).synchronize()
    assert target.buffer.raw == b"89...234.."


def test_a_copy_is_few_calls() -> None:
    """Each one is a moment in which a function that runs beside it may stand still."""
    driver, memory = Driver(), Memory(b"1234")
    copies = DriverCopies(driver, memory.address, STREAM)
    event = copies.copy(memory, 0, 0, 4)
    driver.arrive()
    driver.calls.clear()
    assert copies.copy(memory, 0, 0, 4, event) is event
    assert driver.calls == ["cuCtxSetCurrent", "cuMemcpyHtoDAsync_v2", "cuEventRecord"]


def test_events_of_a_ring_are_used_again() -> None:
    driver, events, target = Driver(), Events(), Memory(b".")
    ring = StagingRing(lambda: Memory(b"x"), most=1, on_arrival=events.give_back)
    copies = DriverCopies(driver, target.address, STREAM)
    for _ in range(10):
        room = ring.take(BLOCK_BYTES)
        ring.sent(room, copies.copy(room.buffer, room.begin and 0, 0, 1, events.take()))
        driver.arrive()
    assert driver.calls.count("cuEventCreate") == 1


@pytest.mark.parametrize("call", ["cuStreamGetCtx", "cuCtxSetCurrent", "cuMemcpyHtoDAsync_v2", "cuEventCreate", "cuEventRecord"])
def test_an_error_names_its_call(call: str) -> None:
    memory = Memory(b"1234")
    with pytest.raises(RuntimeError, match=rf"{call.removesuffix('_v2')} failed with error 700"):
        DriverCopies(Driver({call: 700}), memory.address, STREAM).copy(memory, 0, 0, 4)


def test_an_error_of_a_copy_is_heard_when_it_is_asked_for() -> None:
    memory = Memory(b"1234")
    event = DriverCopies(Driver({"cuEventQuery": 700}), memory.address, STREAM).copy(memory, 0, 0, 4)
    with pytest.raises(RuntimeError, match="cuEventQuery failed with error 700"):
        event.query()


def test_a_library_without_its_calls_is_no_driver() -> None:
    """`None` is this program itself, which has none of them."""
    with pytest.raises(AttributeError, match="cu"):
        driver_of(None)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no-such-driver"):
        driver_of("no-such-driver.so")
