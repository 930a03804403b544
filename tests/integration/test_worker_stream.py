"""The scheduler's side of a worker's stream, with a worker's side that the test controls. Real gRPC on 127.0.0.1."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gen_worker.transport.grpc_client import GrpcDialer, GrpcStream, Tls
from gen_worker.transport.grpc_server import GrpcServer, ServerStream
from gen_worker.transport.stream import Ended, Lost, Moved, Refused
from gen_worker.transport.worker_stream import MAX_HELD_PLAIN, Memories, WorkerStream
from gen_worker.wire import codec
from gen_worker.wire import messages as m
from gen_worker.wire.holds import Hold
from gen_worker.wire.scheduler_session import Registered, RunEnded, SchedulerEffect, StaleResult


class Scheduler:
    """Takes everything down. `keep` says of which effects the hold is kept."""

    def __init__(self) -> None:
        self.memories: Memories = {}
        self.streams: list[WorkerStream] = []
        self.effects: list[SchedulerEffect] = []
        self.holds: list[Hold] = []
        self.keep: Callable[[SchedulerEffect], bool] = lambda effect: False
        self.news = asyncio.Event()
        self.extensions = True

    async def serve(self, stream: ServerStream) -> None:
        worker = WorkerStream(stream, self.memories, extensions=self.extensions)
        self.streams.append(worker)
        await worker.run(self.take)

    def take(self, stream: WorkerStream, effect: SchedulerEffect, hold: Hold) -> None:
        self.effects.append(effect)
        if self.keep(effect):
            self.holds.append(hold.take())
        self.news.set()

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not check():
                self.news.clear()
                await self.news.wait()


class Worker:
    """The other end."""

    def __init__(self, stream: GrpcStream) -> None:
        self.stream = stream

    async def say(self, *messages: m.Message) -> None:
        for message in messages:
            await self.stream.send(codec.encode(message))

    async def heard(self) -> m.Message:
        async with asyncio.timeout(60):
            data = await self.stream.receive()
        assert data is not None, self.stream.ended
        return codec.decode(data)

    async def confirmed(self, seq: int) -> None:
        """Wait for the confirmation of exactly so much."""
        while True:
            message = await self.heard()
            if isinstance(message, m.Ack | m.Batch):
                found = message.seq if isinstance(message, m.Ack) else message.ack_seq
                assert found <= seq
                if found == seq:
                    return

    async def ended(self) -> Ended:
        async with asyncio.timeout(60):
            while await self.stream.receive() is not None:
                pass
        return self.stream.ended


@asynccontextmanager
async def serving(scheduler: Scheduler) -> AsyncIterator[Callable[[], "asyncio.Future[Worker]"]]:
    server = GrpcServer(scheduler.serve, "127.0.0.1:0")
    await server.start()
    dialer = GrpcDialer(Tls())
    open_streams = []

    async def dial() -> Worker:
        context = dialer.dial(f"127.0.0.1:{server.port}", "the token", secure=False)
        open_streams.append(context)
        return Worker(await context.__aenter__())

    try:
        yield lambda: asyncio.ensure_future(dial())
    finally:
        for context in open_streams:
            await context.__aexit__(None, None, None)
        await server.stop(0)


def registration(instance_id: str = "one", *active: str) -> m.Registration:
    extensions = m.EXTENSIONS if instance_id else ()
    return m.Registration(m.Resources(cpu_cores=3), False, 1, 0, extensions, instance_id, active)


def batch(first_seq: int, *messages: m.Single) -> m.Batch:
    return m.Batch(messages, first_seq)


async def test_a_run_from_its_command_to_its_one_result() -> None:
    scheduler = Scheduler()
    async with serving(scheduler) as dial:
        worker = await dial()
        await worker.say(registration())
        assert isinstance(await worker.heard(), m.Hello)
        (stream,) = scheduler.streams
        assert (stream.token, stream.resources.cpu_cores, stream.counts_frames) == ("the token", 3, True)
        stream.start(m.RunCommand("r", "f"))
        assert await worker.heard() == m.RunCommand("r", "f")
        stream.interrupt("unknown")
        stream.interrupt("r")
        assert await worker.heard() == m.InterruptRun("r")
        assert stream.run_ids == {"r"}
        await worker.say(batch(1, m.Event("r", "a", b"{}"), m.RunResult("r", True), m.RunResult("r", True)))
        await worker.confirmed(3)
        assert [type(effect) for effect in scheduler.effects] == [Registered, m.Event, RunEnded, StaleResult]
        assert stream.run_ids == frozenset()


async def test_nothing_is_confirmed_before_it_is_done_with() -> None:
    scheduler = Scheduler()
    scheduler.keep = lambda effect: isinstance(effect, m.Event) and effect.event_type == "keep"
    async with serving(scheduler) as dial:
        worker = await dial()
        await worker.say(registration(), batch(1, m.Event("r", "a")), batch(2, m.Event("r", "keep")), batch(3, m.Event("r", "a")))
        await worker.confirmed(1)
        await worker.say(m.Registration(is_heartbeat=True, protocol_major=1))
        await worker.confirmed(1)  # the heartbeat is answered, however much is held
        await worker.say(batch(4, m.Event("r", "keep")))
        await scheduler.until(lambda: len(scheduler.holds) == 2)
        scheduler.holds[0].release()
        await worker.confirmed(3)
        scheduler.holds[1].release()
        await worker.confirmed(4)


async def test_on_the_next_stream_it_goes_on_after_what_was_confirmed() -> None:
    scheduler = Scheduler()
    scheduler.keep = lambda effect: isinstance(effect, m.Event)
    async with serving(scheduler) as dial:
        worker = await dial()
        await worker.say(registration(), batch(1, m.Event("r", "a")), batch(2, m.Event("r", "b")))
        await scheduler.until(lambda: len(scheduler.holds) == 2)
        scheduler.holds[0].release()
        await worker.confirmed(1)
        scheduler.streams[0].close("UNAVAILABLE", "restarting")
        assert isinstance(await worker.ended(), Lost)
        again = await dial()
        await again.say(registration())
        assert await again.heard() == m.Hello(m.EXTENSIONS, 1)
        await again.say(batch(2, m.Event("r", "b"), m.Event("r", "c")))
        await scheduler.until(lambda: len(scheduler.holds) == 3)
        for hold in scheduler.holds[1:]:
            hold.release()  # one of them of the stream that is gone
        await again.confirmed(3)
        assert [effect.event_type for effect in scheduler.effects if isinstance(effect, m.Event)] == ["a", "b", "c"]


async def test_commands_that_were_lost_are_sent_again_and_adopted_runs_are_not() -> None:
    scheduler = Scheduler()
    async with serving(scheduler) as dial:
        worker = await dial()
        await worker.say(registration())
        await worker.heard()
        stream = scheduler.streams[0]
        stream.start(m.RunCommand("lost", "f"))
        stream.start(m.RunCommand("has", "f"))
        stream.adopt(m.RunCommand("adopted", "f"))
        stream.close()
        assert await worker.ended() == Lost("OK", by_peer=True, clean=True)
        again = await dial()
        await again.say(registration("one", "has", "adopted"))
        await again.heard()
        assert await again.heard() == m.RunCommand("lost", "f")
        await again.say(batch(1, m.RunResult("adopted", True)))
        await again.confirmed(1)
        assert isinstance(scheduler.effects[-1], RunEnded)


async def test_of_a_plain_worker_no_more_is_read_than_is_done_with() -> None:
    scheduler = Scheduler()
    scheduler.extensions = False
    scheduler.keep = lambda effect: isinstance(effect, m.Event)
    async with serving(scheduler) as dial:
        worker = await dial()
        await worker.say(registration(""), *[m.Event("r", str(number)) for number in range(2 * MAX_HELD_PLAIN)])
        await scheduler.until(lambda: len(scheduler.holds) > MAX_HELD_PLAIN)
        for _ in range(100):
            await asyncio.sleep(0)  # as often as it could have read on
        assert len(scheduler.holds) == MAX_HELD_PLAIN + 1
        while len(scheduler.holds) < 2 * MAX_HELD_PLAIN:
            count = len(scheduler.holds)
            for hold in scheduler.holds[:count]:
                if hold.left:
                    hold.release()
            await scheduler.until(lambda count=count: len(scheduler.holds) > count)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("first", "ended"),
    [
        (m.Registration(protocol_major=2), Refused("unsupported_worker_protocol:2.0 supported=1:0-9999")),
        (m.Event("r", "a"), Lost("INVALID_ARGUMENT: a stream opens with a registration, not with Event", by_peer=True)),
    ],
)
async def test_who_breaks_the_protocol_is_told_why(first: m.Message, ended: Ended) -> None:
    scheduler = Scheduler()
    async with serving(scheduler) as dial:
        worker = await dial()
        await worker.say(first)
        assert await worker.ended() == ended
        assert scheduler.effects == []


@pytest.mark.parametrize(("leader", "ended"), [("host:1", Moved("host:1")), ("", Lost("FAILED_PRECONDITION: not_leader:", by_peer=True))])
async def test_a_worker_is_sent_to_the_leader(leader: str, ended: Ended) -> None:
    scheduler = Scheduler()
    async with serving(scheduler) as dial:
        worker = await dial()
        await worker.say(registration())
        await worker.heard()
        scheduler.streams[0].redirect(leader)
        assert await worker.ended() == ended


async def test_what_is_owed_is_sent_before_the_end() -> None:
    scheduler = Scheduler()
    async with serving(scheduler) as dial:
        worker = await dial()
        await worker.say(registration(), batch(1, m.Event("r", "a")))
        await scheduler.until(lambda: len(scheduler.effects) == 2)
        await scheduler.streams[0].finish()
        scheduler.streams[0].close()
        await worker.confirmed(1)
        assert isinstance(await worker.ended(), Lost)
