"""Websocket handlers over the stream: every frame, in order; closing, limits, drain, lost streams."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from tests.conftest import WorkerProcess
from tests.wire_project import CODE

from gen_worker.execution.handler_socket import OUTBOUND_FRAMES
from gen_worker.testing.loopback import LoopbackRealtime, LoopbackScheduler
from gen_worker.wire.messages import CloseRealtime, InterruptRun, OpenRealtime, RealtimeCredit, RealtimeFrame
from gen_worker.wire.realtime import GRANT_BYTES, WINDOW_FRAMES

Start = Callable[..., WorkerProcess]


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    return project(CODE)


@asynccontextmanager
async def served(
    start_worker: Start, folder: Path, *, extensions: bool = True, **env: str
) -> AsyncIterator[tuple[LoopbackScheduler, WorkerProcess]]:
    async with LoopbackScheduler(extensions=extensions) as scheduler:
        worker = start_worker(folder, scheduler.address, **env)
        await scheduler.worker()
        yield scheduler, worker


async def end_of(session: LoopbackRealtime) -> str:
    """Why the worker ended the session."""
    while await session.receive() is not None:
        pass
    return session.reason or ""


@pytest.mark.parametrize("extensions", [True, False], ids=["extended", "plain"])
async def test_frames_come_back_as_they_went(start_worker: Start, folder: Path, extensions: bool) -> None:
    async with served(start_worker, folder, extensions=extensions) as (scheduler, _):
        session = await scheduler.open_realtime("mirror", session_id="s1")
        await session.send(b"\x00binary")
        frame = await session.receive()
        assert frame == RealtimeFrame("s1", b"\x00binary", False)
        await session.send(b"json", is_text=True)
        frame = await session.receive()
        assert frame == RealtimeFrame("s1", b'{"a":"s1","b":1}', True)
        assert await session.close() == "completed"


@pytest.mark.parametrize("extensions", [True, False], ids=["extended", "plain"])
async def test_no_frame_is_lost_or_reordered(start_worker: Start, folder: Path, extensions: bool) -> None:
    count = 20_000 if extensions else 900
    async with served(start_worker, folder, extensions=extensions) as (scheduler, _):
        sessions = [await scheduler.open_realtime("mirror") for _ in range(3)]

        async def send(session: LoopbackRealtime) -> None:
            for number in range(count):
                await session.send(str(number).encode())

        sending = [asyncio.create_task(send(session)) for session in sessions]
        for session in sessions:
            for number in range(count):
                frame = await session.receive()
                assert frame is not None
                assert frame.data == str(number).encode()
        await asyncio.gather(*sending)
        assert [await session.close() for session in sessions] == ["completed"] * 3


async def test_frames_that_come_before_the_handler_reads_wait_for_it(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        session = await scheduler.open_realtime("sleepy")
        for number in range(2000):
            await session.send(str(number).encode())
        assert await session.close() == "completed", "the handler has seen all of them, in order"


async def test_without_flow_control_a_flood_ends_the_session_with_a_reason(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder, extensions=False) as (scheduler, _):
        session = await scheduler.open_realtime("sleepy")
        for number in range(3000):
            scheduler.workers[0].send(RealtimeFrame(session.session_id, str(number).encode()))
        assert await end_of(session) == "slow_consumer"
        assert await scheduler.call("echo", {"prompt": "others are not held up"}) == {"text": "others are not held up"}


async def test_a_handler_that_floods_is_held_up_by_the_reader(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        session = await scheduler.open_realtime("flood")
        await session.send(b"30000")
        for number in range(30_000):
            frame = await session.receive()
            assert frame is not None
            assert frame.data == str(number).encode()
        assert await end_of(session) == "completed"


async def test_a_client_that_does_not_read_holds_up_only_its_own_session(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        unread, read = await scheduler.open_realtime("flood"), await scheduler.open_realtime("flood")
        await unread.send(b"30000")
        await scheduler.until(lambda: unread.frames.qsize() == OUTBOUND_FRAMES)
        await read.send(b"3000")
        for number in range(3000):
            frame = await read.receive()
            assert frame is not None
            assert frame.data == str(number).encode()
        assert unread.frames.qsize() == OUTBOUND_FRAMES
        unread.worker.send(RealtimeCredit(unread.session_id, -1))
        unread.worker.send(RealtimeCredit("another", 1))
        assert await end_of(unread) == "completed"


async def test_large_frames_are_granted_by_their_bytes(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        session = await scheduler.open_realtime("mirror")
        await scheduler.until(lambda: session.credit == WINDOW_FRAMES)
        await session.send(bytes(GRANT_BYTES))
        assert await session.receive() is not None
        await scheduler.until(lambda: session.credit == WINDOW_FRAMES)


async def test_a_session_is_cancelled_as_a_run_is_and_its_end_says_why(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        heard: list[CloseRealtime] = []

        def listen(message: object) -> None:
            heard.extend(each for each in getattr(message, "messages", (message,)) if isinstance(each, CloseRealtime))

        scheduler.on_message = listen
        session = await scheduler.open_realtime("stubborn")
        await handler_runs(scheduler)
        session.worker.send(InterruptRun(session.session_id))
        assert await end_of(session) == "error:CanceledError"
        session = await scheduler.open_realtime("mirror")
        await session.send(b"fail")
        await end_of(session)
        assert [(each.error_type, each.code) for each in heard] == [("canceled", "canceled"), ("validation", "validation")]
        assert heard[1].safe_message


async def test_how_sessions_end(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder, WORKER_MAX_WS_FRAME_BYTES="100") as (scheduler, worker):
        assert await end_of(await scheduler.open_realtime("nothing")) == "unknown_function"
        assert await end_of(await scheduler.open_realtime("echo")) == "unknown_function", "a task function takes no frames"
        for data, reason in ((b"close", "closed"), (b"fail", "error:ValueError"), (b"x" * 101, "frame_too_large")):
            session = await scheduler.open_realtime("mirror")
            await session.send(data)
            assert await end_of(session) == reason
        assert await end_of(await scheduler.open_realtime("stubborn", timeout_ms=200)) == "error:DeadlineError"
        for command in (OpenRealtime("", "mirror"), OpenRealtime("s", "")):
            scheduler.workers[0].send(command)
        assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}
        assert worker.logged("realtime.handler_failed")


async def test_a_handler_that_is_stuck_is_reported_and_one_that_waits_for_its_client_is_not(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder, WORKER_WARN_INFERENCE_S="0.4") as (scheduler, worker):
        idle, busy = await scheduler.open_realtime("at-work"), await scheduler.open_realtime("at-work")
        for session in (idle, busy):
            await session.send(b"0")
            assert await session.receive() is not None
        for _ in range(2):  # each time anew
            await busy.send(b"1.2")
            assert await busy.receive() is not None
        reported = worker.logged("task.inference.stuck")
        assert [line["run_id"] for line in reported] == [busy.session_id] * 2
        assert "in at_work" in reported[0]["stacks"][0]
        assert [await session.close() for session in (idle, busy)] == ["completed"] * 2


async def test_a_frame_that_cannot_travel_fails_where_it_is_sent(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder, WORKER_MAX_MESSAGE_BYTES="65536") as (scheduler, worker):
        session = await scheduler.open_realtime("bulky")
        await session.send(b"40000")
        frame = await session.receive()
        assert frame is not None
        assert len(frame.data) == 40_000
        await session.send(b"60000")
        assert await end_of(session) == "error:ValueError"
        assert "a frame of 60000 bytes; at most" in worker.logged("realtime.handler_failed")[0]["error"]


async def test_limits_hold_for_sessions(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder, WORKER_MAX_CONCURRENCY="1") as (scheduler, _):
        session = await scheduler.open_realtime("mirror")
        await session.send(b"x")
        assert await session.receive() is not None
        assert await end_of(await scheduler.open_realtime("mirror")) == "max_concurrency_reached"
        run = await scheduler.start_run("echo", {})
        assert (await run.result()).safe_message == "worker busy"
        assert await session.close() == "completed"
        assert await scheduler.call("echo", {"prompt": "free"}) == {"text": "free"}


async def handler_runs(scheduler: LoopbackScheduler) -> None:
    """The session opened last has its handler: the worker takes messages in order, and has answered a later one."""
    assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}


async def test_a_lost_stream_ends_its_sessions(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, worker):
        session = await scheduler.open_realtime("stubborn")
        await handler_runs(scheduler)
        await scheduler.end_streams()
        assert session.reason == "connection_lost"
        await scheduler.worker()
        await scheduler.call("echo", {"prompt": "x"})
        assert len(scheduler.workers) == 1
        run = await scheduler.start_run("echo", {"prompt": "x"})
        await run.result()
        assert worker.process.poll() is None


async def test_drain_closes_sessions(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, worker):
        session = await scheduler.open_realtime("stubborn")
        await handler_runs(scheduler)
        worker.process.send_signal(signal.SIGTERM)
        assert await end_of(session) == "worker_draining"
        assert await worker.ended() == 0


async def test_sessions_of_a_worker_do_not_mix_with_its_runs(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        session = await scheduler.open_realtime("mirror", session_id="same")
        run = await scheduler.start_run("echo", {"prompt": "run"}, run_id="same")
        assert await run.output() == {"text": "run"}
        await session.send(b"frame")
        frame = await session.receive()
        assert frame is not None
        assert frame.data == b"frame"
        assert msgspec.msgpack.decode((await run.result()).output) == {"text": "run"}
        assert await session.close() == "completed"
