"""Events of one run share wake-ups of the loop; none is lost, and none comes after the run's end."""

import asyncio
import threading
from typing import Any

from tests.waiting import eventually

from gen_worker.events import RunEvent
from gen_worker.execution.event_pipe import MANY_WAITING_EVENTS, EventPipe
from gen_worker.execution.mailbox import Mailbox


class Sink:
    ready = True

    def __init__(self) -> None:
        self.batches: list[list[RunEvent]] = []

    def emit_all(self, batch: list[RunEvent]) -> None:
        self.batches.append(batch)

    def on_ready(self, callback: Any) -> None:
        callback()


def pipe_to(sink: Sink) -> EventPipe:
    loop = asyncio.get_running_loop()
    return EventPipe(sink, Mailbox(loop).post, loop.call_later, lambda exc: None)


async def test_events_that_follow_each_other_share_a_delivery() -> None:
    sink = Sink()
    pipe = pipe_to(sink)
    pipe.put_event("task.progress", b"0")
    await eventually(lambda: sink.batches)
    for number in range(1, 21):
        pipe.put_event("task.progress", b"%d" % number)
    await eventually(lambda: sum(map(len, sink.batches)) == 21)
    assert [len(batch) for batch in sink.batches] == [1, 20]
    assert [bytes(event.payload) for batch in sink.batches for event in batch] == [b"%d" % number for number in range(21)]
    pipe.close()


async def test_a_delta_takes_waiting_events_with_it_and_the_end_flushes_them() -> None:
    sink = Sink()
    pipe = pipe_to(sink)
    pipe.put_event("task.progress", b"0")
    await eventually(lambda: sink.batches)
    pipe.put_event("task.progress", b"1")
    pipe.put_delta(b"{}")
    await eventually(lambda: len(sink.batches) > 1)
    assert [event.event_type for event in sink.batches[1]] == ["task.progress", "output.delta"]
    pipe.put_event("task.progress", b"2")
    pipe.flush()
    assert bytes(sink.batches[-1][-1].payload) == b"2"
    pipe.close()


async def test_a_flood_does_not_wait() -> None:
    sink = Sink()
    pipe = pipe_to(sink)
    thread = threading.Thread(target=lambda: [pipe.put_event("task.log", b"{}") for _ in range(MANY_WAITING_EVENTS)])
    pipe.put_event("task.log", b"{}")
    await eventually(lambda: sink.batches)
    thread.start()
    await asyncio.to_thread(thread.join)
    await eventually(lambda: sum(map(len, sink.batches)) == 1 + MANY_WAITING_EVENTS)
    assert pipe.dropped == 0
    pipe.close()
