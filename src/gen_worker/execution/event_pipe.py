"""Carries the events and deltas of one run from its thread to the sink: in order, in batches, with back-pressure for deltas."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from gen_worker.events import OUTPUT_DELTA, RunEvent
from gen_worker.execution.request import RunSink

MAX_UNTAKEN_DELTAS = 256  # enough that the hand-over between threads costs less than the deltas themselves
MAX_UNTAKEN_BYTES = 1 << 20
MAX_WAITING_EVENTS = 4096
MAX_WAITING_EVENT_BYTES = 8 << 20
MANY_WAITING_EVENTS = 256
MANY_WAITING_BYTES = 1 << 20
MAX_EVENT_BYTES = 1 << 20  # limit for one event's payload: below the 4 MiB that many schedulers accept in a message
FIRST_DELTA_PAUSE_S = 120e-6
EVENT_REST_S = 0.05  # pause between two deliveries of events: each wakes the loop, which takes the interpreter from the function


class EventPipe:
    """Belongs to one run. One producer (the author's thread or task) puts items; the loop passes on everything that is
    there at once.

    Deltas wait for room: with 256 of them or 1 MiB not yet taken by the sink, the producer pauses. Other events never
    wait; above 4,096 of them or 8 MiB they are dropped and counted, so that a flood takes no memory. After `close`
    nothing is accepted, because an author's thread may outlive its run. Each side writes only its own counters.

    A delta, and an event after a pause, is delivered at once. Events that follow within 50 ms are delivered together:
    after that time, when there are many, with the next delta, or by `flush`. So the loop is woken a few times for a run
    with many events, not once for each.

    `on_broken` is called on the loop when the sink raises: a stream that lost a delta must not continue.
    """

    def __init__(
        self,
        sink: RunSink,
        post: Callable[..., None],
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        on_broken: Callable[[BaseException], None],
    ) -> None:
        self._sink = sink
        self._post = post
        self._later = later
        self._rest: asyncio.TimerHandle | None = None
        self._on_broken = on_broken
        self._items: deque[RunEvent] = deque()
        self._posted = False
        self._sent = self._sent_bytes = 0
        self._taken = self._taken_bytes = 0
        self._held = self._held_bytes = 0
        self._put_bytes = self._handed_bytes = 0  # bytes of events, so that a flood is bounded in bytes, too
        self._closed = False
        self._room: threading.Event | None = None
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self.dropped = 0

    def put_event(self, event_type: str, payload: bytes) -> None:
        """From any thread: add an author's event. `ValueError` when its payload is too large to send."""
        if self._closed:
            return
        checked_event(payload)
        waiting_bytes = self._put_bytes - self._handed_bytes
        if len(self._items) >= MAX_WAITING_EVENTS or waiting_bytes + len(payload) > MAX_WAITING_EVENT_BYTES:
            self.dropped += 1
            return
        self._put_bytes += len(payload)
        self._items.append(RunEvent(event_type, msgspec.Raw(payload)))
        # During a pause `_rested` will look after it has cleared this flag; but a flood must not wait until events are dropped.
        if self._rest is None or len(self._items) >= MANY_WAITING_EVENTS or waiting_bytes + len(payload) > MANY_WAITING_BYTES:
            self._post_once()

    def put_delta(self, delta: bytes) -> bool:
        """From the producing thread: wait for room, then add the delta. False when the run is over."""
        while self._is_full() and not self._closed:
            if self._room is None:
                self._room = threading.Event()
            self._room.clear()
            if self._is_full() and not self._closed:
                self._room.wait()
        put = self._put_delta(delta)
        if self._sent == 1 and self._room is None:
            # A busy generator would keep the interpreter until it has to wait; the first delta should be on its way before that.
            time.sleep(FIRST_DELTA_PAUSE_S)
        return put

    async def put_delta_async(self, delta: bytes) -> bool:
        """Like `put_delta`, for an async producer."""
        while self._is_full() and not self._closed:
            event = asyncio.Event()
            self._waiter = (asyncio.get_running_loop(), event)
            if self._is_full() and not self._closed:
                await event.wait()
            self._waiter = None
        return self._put_delta(delta)

    @property
    def untouched(self) -> bool:
        """Whether nothing was put so far."""
        return not self._put_bytes and not self._sent and not self.dropped

    @property
    def closed(self) -> bool:
        """Whether the run is over."""
        return self._closed

    def close(self) -> None:
        """On the loop: the run is over; accept nothing more."""
        self._closed = True
        self._items.clear()
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.cancel()
        self._wake_producer()

    def flush(self) -> None:
        """On the loop: pass on what is there."""
        if self._items:
            self._deliver()

    def _put_delta(self, delta: bytes) -> bool:
        if self._closed:
            return False
        self._sent += 1
        self._sent_bytes += len(delta)
        self._items.append(RunEvent(OUTPUT_DELTA, msgspec.Raw(delta)))
        self._post_once()
        return True

    def _post_once(self) -> None:
        if not self._posted:
            self._posted = True
            self._post(self._deliver)

    def _deliver(self) -> None:
        # Clear the flag first: an item added meanwhile then schedules one delivery too many, never one too few.
        self._posted = False
        items = self._items
        if self._closed:
            items.clear()
            return
        batch = [items.popleft() for _ in range(len(items))]
        if self._rest is None and batch and batch[-1].event_type != OUTPUT_DELTA:
            self._rest = self._later(EVENT_REST_S, self._rested)
        try:
            self._hand_over(batch)
        except BaseException as exc:  # noqa: BLE001 - whatever the sink raises, the run ends by it
            self._on_broken(exc)

    def _rested(self) -> None:
        self._rest = None
        self.flush()

    def _hand_over(self, batch: list[RunEvent]) -> None:
        deltas = [_size(item) for item in batch if item.event_type == OUTPUT_DELTA]
        if len(deltas) < len(batch):
            self._handed_bytes += sum([_size(item) for item in batch if item.event_type != OUTPUT_DELTA])
        self._sink.emit_all(batch)
        self._held += len(deltas)
        self._held_bytes += sum(deltas)
        if not deltas:
            return
        if self._sink.ready:
            self._take()
        else:
            self._sink.on_ready(self._take)

    def _take(self) -> None:
        self._taken += self._held
        self._taken_bytes += self._held_bytes
        self._held = self._held_bytes = 0
        self._wake_producer()

    def _wake_producer(self) -> None:
        if self._room is not None:
            self._room.set()
        waiter = self._waiter
        if waiter is not None:
            with contextlib.suppress(RuntimeError):  # the author has closed the loop that the producer waited on
                waiter[0].call_soon_threadsafe(waiter[1].set)

    def _is_full(self) -> bool:
        return self._sent - self._taken >= MAX_UNTAKEN_DELTAS or self._sent_bytes - self._taken_bytes >= MAX_UNTAKEN_BYTES


def checked_event(payload: bytes) -> bytes:
    """The payload of an author's event; `ValueError` when it is too large to send."""
    if len(payload) > MAX_EVENT_BYTES:
        raise ValueError(f"the event's payload has {len(payload)} bytes of JSON; at most {MAX_EVENT_BYTES} are sent. Save a file instead")
    return payload


def _size(item: RunEvent) -> int:
    payload: Any = item.payload
    return len(memoryview(payload))
