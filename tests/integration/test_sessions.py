"""A realtime session is a run like others: models, deadlines, memory relief, stuck warnings, one end, a slot until its code has ended."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from tests.run_bench import Bench, Engine, bench, session_of
from tests.waiting import eventually

from gen_worker import ActionContext, ModelRef, ModelRefSource, RealtimeSocket
from gen_worker.events import RunEvent
from gen_worker.execution import realtime
from gen_worker.execution.handler_socket import INBOUND_FRAMES, OUTBOUND_FRAMES
from gen_worker.execution.realtime import Session
from gen_worker.execution.request import RunRequest
from gen_worker.outcome import Outcome

GO_ON = threading.Event()
MODEL = ModelRef(ModelRefSource.FIXED, "0")


class Client:
    """Takes frames as soon as `takes` is set."""

    largest_bytes = 1000

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.events: list[RunEvent] = []
        self.reasons: list[str] = []
        self.outcomes: list[Outcome] = []
        self.releases = 0
        self.took_frames = 0
        self.takes = True
        self._untaken: list[Callable[[], None]] = []
        self._news = asyncio.Event()

    def send(self, data: bytes, *, is_text: bool, taken: Callable[[], None]) -> None:
        assert not self.reasons, "no frame comes after the end"
        self.frames.append(data)
        self._news.set()
        if self.takes:
            taken()
        else:
            self._untaken.append(taken)

    def take(self) -> None:
        for taken in self._untaken:
            taken()
        self._untaken.clear()

    def took(self, size_bytes: int) -> None:
        self.took_frames += 1
        self._news.set()

    def emit(self, event: RunEvent) -> None:
        self.events.append(event)
        self._news.set()

    def ended(self, reason: str, outcome: Outcome) -> None:
        self.reasons.append(reason)
        self.outcomes.append(outcome)
        self._news.set()

    def released(self) -> None:
        assert self.reasons
        self.releases += 1
        self._news.set()

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not check():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def session(made: Bench, function: Any, *, max_frame_bytes: int = 0, **options: Any) -> AsyncIterator[tuple[Session, Client]]:
    client = Client()
    opened = Session(session_of(function), client, made.executor, max_frame_bytes=max_frame_bytes)
    opened.start(RunRequest("s", b"", **options), made.outputs)
    try:
        yield opened, client
    finally:
        opened.end("the test is over")
        await client.until(lambda: client.releases == 1)
        assert len(client.reasons) == 1
        assert made.pins == 0


async def mirror(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        await sock.send_bytes(data)


async def with_model(ctx: ActionContext, sock: RealtimeSocket, engine: Annotated[Engine, MODEL]) -> None:
    async for _ in sock.iter_bytes():
        await sock.send_json({"engine": type(engine).__name__, "run": ctx.run_id, "owner": ctx.owner})


async def greedy(ctx: ActionContext, sock: RealtimeSocket, engine: Annotated[Engine, MODEL]) -> None:
    raise MemoryError


async def failing(ctx: ActionContext, sock: RealtimeSocket) -> None:
    raise ZeroDivisionError


async def deaf(ctx: ActionContext, sock: RealtimeSocket) -> None:
    await asyncio.Event().wait()


async def told(ctx: ActionContext, sock: RealtimeSocket) -> None:
    """Goes on after its client has left, and looks at its context."""
    async for data in sock.iter_bytes():
        assert data
    ctx.emit("custom.left", {"canceled": ctx.is_canceled()})
    await sock.send_bytes(b"nobody hears this")
    raise asyncio.CancelledError


async def eager(ctx: ActionContext, sock: RealtimeSocket) -> None:
    n = 0
    while not ctx.is_canceled():
        await sock.send_bytes(str(n).encode())
        n += 1


async def both_ways(ctx: ActionContext, sock: RealtimeSocket) -> None:
    """Two tasks of one handler use its socket at once."""

    async def tick() -> None:
        for n in range(500):
            await sock.send_bytes(b"tick %d" % n)

    ticking = asyncio.create_task(tick())
    async for data in sock.iter_bytes():
        await sock.send_bytes(data)
    await ticking


async def wrong_types(ctx: ActionContext, sock: RealtimeSocket) -> None:
    await sock.send_bytes("text")  # type: ignore[arg-type]


async def too_large(ctx: ActionContext, sock: RealtimeSocket) -> None:
    await sock.send_bytes(bytes(1000))
    await sock.send_bytes(bytes(1001))


async def swallowing(ctx: ActionContext, sock: RealtimeSocket) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.to_thread(GO_ON.wait, 20)


async def test_frames_and_models(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, session(made, with_model, owner="me") as (opened, client):
        opened.frame(b"before the model is there")
        await client.until(lambda: bool(client.frames))
        assert client.frames == [b'{"engine":"str","owner":"me","run":"s"}']
        assert made.pins == 1
        kinds = [event.event_type for event in client.events]
        assert "task.model_resolve.completed" in kinds
        assert not [kind for kind in kinds if kind.startswith(("metrics.", "output.", "task.inference", "task.started"))]
        opened.leave()
        await client.until(lambda: bool(client.reasons))
        assert client.reasons == ["completed"]


@pytest.mark.parametrize(
    ("refs", "reason"), [(("hf:demo/m1",), "completed"), (("hf:other/one",), "error:FatalError"), ((), "error:FatalError")], ids=str
)
async def test_models_that_a_scheduler_names(tmp_path: Path, refs: tuple[str, ...], reason: str) -> None:
    async with bench(tmp_path) as made, session(made, with_model, injected=refs) as (opened, client):
        opened.leave()
        await client.until(lambda: bool(client.reasons))
        assert client.reasons == [reason], client.outcomes


async def test_a_session_out_of_memory_makes_room_for_the_next(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        async with session(made, greedy) as (_, client):
            await client.until(lambda: bool(client.reasons))
            assert client.reasons == ["error:MemoryError"]
        await eventually(lambda: not made.machine.cache.get_vram_models())


async def test_how_sessions_end(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        for function, options, reason, error_type in (
            (failing, {}, "error:ZeroDivisionError", "internal"),
            (deaf, {"timeout_ms": 20}, "error:DeadlineError", "fatal"),
            (wrong_types, {}, "error:TypeError", "internal"),
            (too_large, {}, "error:ValueError", "validation"),
        ):
            async with session(made, function, **options) as (_, client):
                await client.until(lambda client=client: bool(client.reasons))
                assert client.reasons == [reason]
                assert client.outcomes[0].error_type == error_type
        assert "send_bytes takes bytes, got str" in made.logged.getvalue()
        assert "raise ZeroDivisionError" in made.logged.getvalue(), "the traceback is in the log"
        async with session(made, deaf) as (opened, client):
            opened.end("worker_draining")
            assert client.reasons == ["worker_draining"], "said at once"
            opened.end("connection_lost")
            opened.leave()
        async with session(made, mirror, max_frame_bytes=3) as (opened, client):
            opened.frame(b"abc")
            await client.until(lambda client=client: client.frames == [b"abc"])
            opened.frame(b"abcd")
            assert client.reasons == ["frame_too_large"]


async def test_a_client_that_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as made:
        async with session(made, told) as (opened, client):
            opened.frame(b"one")
            opened.leave()
            await client.until(lambda: bool(client.reasons))
            assert client.reasons == ["completed"], "that it was cancelled is no failure: nobody is there"
            assert client.frames == []
            assert [bytes(event.payload)[:16] for event in client.events] == [b'{"canceled":true']
        monkeypatch.setattr(realtime, "CLOSE_GRACE_S", 0.01)
        async with session(made, deaf) as (opened, client):
            opened.leave()
            await client.until(lambda: bool(client.reasons))
            assert client.reasons == ["completed"]


async def test_a_slot_is_free_when_the_code_has_ended(tmp_path: Path) -> None:
    async with bench(tmp_path) as made, session(made, swallowing) as (opened, client):
        made.executor.mailbox.post(lambda: None)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), made.executor.tenant.loop))
        opened.end("worker_draining")
        assert (client.reasons, client.releases) == (["worker_draining"], 0)
        GO_ON.set()


async def test_both_sides_are_held_up(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        async with session(made, eager) as (opened, client):
            client.takes = False
            await client.until(lambda: len(client.frames) == OUTBOUND_FRAMES)
            for _ in range(3):
                before = len(client.frames)
                client.take()
                await client.until(lambda before=before: len(client.frames) == before + OUTBOUND_FRAMES)
            assert client.frames == [str(n).encode() for n in range(len(client.frames))]
            client.take()
            client.takes = True
        async with session(made, deaf) as (opened, client):
            for n in range(INBOUND_FRAMES):
                opened.frame(str(n).encode())
            assert not opened.offer(b"no room")
            opened.frame(b"one too many")
            assert client.reasons == ["slow_consumer"]
        async with session(made, both_ways) as (opened, client):
            for n in range(200):
                opened.frame(b"tock %d" % n)
            await client.until(lambda: len(client.frames) == 700)
            for word, count in (b"tick", 500), (b"tock", 200):
                assert [frame for frame in client.frames if frame.startswith(word)] == [b"%s %d" % (word, n) for n in range(count)]
            assert client.took_frames == 200
            opened.leave()
            await client.until(lambda: bool(client.reasons))
