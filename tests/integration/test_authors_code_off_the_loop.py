"""Author's code that blocks before the function begins: in a payload type, in a loader, in the text of an error. Other requests are
still served."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import WorkerProcess

from gen_worker.testing.loopback import LoopbackScheduler
from gen_worker.wire.messages import InterruptRun, LoadModel, LoadModelResult

CODE = """
import dataclasses
import enum
import threading
from gen_worker.errors import *

def wait_for_ever():
    threading.Event().wait()

class In(msgspec.Struct):
    text: str = ""

class Out(msgspec.Struct):
    text: str

class Waits(msgspec.Struct):
    text: str = ""
    def __post_init__(self):
        if self.text == "wait":
            wait_for_ever()
        if self.text == "exit":
            raise SystemExit(3)
        if self.text == "value":
            raise ValueError("no such text")

@dataclasses.dataclass
class Made:
    n: int = dataclasses.field(default_factory=wait_for_ever)

class HoldsMade(msgspec.Struct):
    made: list[Made] = []

class Word(str, enum.Enum):
    A = "a"
    @classmethod
    def _missing_(cls, value):
        wait_for_ever()

class HoldsWord(msgspec.Struct):
    words: dict[str, Word] = {}

class UnreadableError(Exception):
    def __str__(self):
        wait_for_ever()
    __repr__ = __str__

class MuteError(ValidationError):
    def __str__(self):
        raise SystemExit("no text")

class Toy:
    @classmethod
    def from_pretrained(cls, path):
        kind = (Path(path) / "kind").read_text()
        if kind == "unreadable":
            raise UnreadableError()
        if kind == "argument":
            raise FatalError(UnreadableError())
        if kind == "mute":
            raise MuteError("x")
        if kind == "refused":
            raise ValidationError("not this one")
        if kind == "memory":
            raise type("OutOfMemoryError", (UnreadableError,), {"__str__": lambda self: "no room at all"})()
        return cls()

@worker_function()
def echo(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.text)

@worker_function()
def waits(ctx: ActionContext, payload: Waits) -> Out:
    return Out(payload.text)

@worker_function()
def made(ctx: ActionContext, payload: HoldsMade) -> Out:
    return Out("")

@worker_function()
def word(ctx: ActionContext, payload: HoldsWord) -> Out:
    return Out("")

@worker_function()
def loads(ctx: ActionContext, toy: Annotated[Toy, ModelRef(ModelRefSource.PAYLOAD, "text")], payload: In) -> Out:
    return Out("")
"""
KINDS = ("unreadable", "argument", "mute", "refused", "memory")
COZY = "[models]\n" + "".join(f'{kind} = "cozy:o/{kind}"\n' for kind in KINDS)


@asynccontextmanager
async def served(
    start_worker: Callable[..., WorkerProcess], project: Callable[..., Path], tmp_path: Path
) -> AsyncIterator[LoopbackScheduler]:
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "kind").write_text(kind)
    overrides = ",".join(f"{kind}={tmp_path / kind}" for kind in KINDS)
    async with LoopbackScheduler() as scheduler:
        env = {"COZY_MODEL_OVERRIDES": overrides, "WORKER_DEVICE": "cpu", "WORKER_HEARTBEAT_S": "0.2"}
        worker = start_worker(project(CODE, COZY), scheduler.address, **env)
        await scheduler.worker()
        yield scheduler
        worker.process.terminate()
        assert await worker.ended(30) == 0


async def serves_on(scheduler: LoopbackScheduler) -> None:
    before = len(scheduler.workers[0].registrations)
    assert await scheduler.call("echo", {"text": "next"}) == {"text": "next"}
    await scheduler.until(lambda: len(scheduler.workers[0].registrations) >= before + 2)


@pytest.mark.parametrize(("function", "payload"), [("waits", {"text": "wait"}), ("made", {"made": [{}]}), ("word", {"words": {"x": "b"}})])
async def test_a_payload_type_that_waits(
    start_worker: Callable[..., WorkerProcess], project: Callable[..., Path], tmp_path: Path, function: str, payload: Any
) -> None:
    async with served(start_worker, project, tmp_path) as scheduler:
        runs = [await scheduler.start_run(function, payload) for _ in range(6)]  # more than there are threads for large payloads
        timed = await scheduler.start_run(function, payload, timeout_ms=300)
        await serves_on(scheduler)
        assert await scheduler.call("waits", {"text": "ok"}) == {"text": "ok"}, "of the same type, too"
        assert (await timed.result()).code == "timeout"
        for run in runs:
            scheduler.workers[0].send(InterruptRun(run.run_id))
        assert {result.error_type for result in await asyncio.gather(*[run.result() for run in runs])} == {"canceled"}


async def test_a_payload_type_that_raises(start_worker: Callable[..., WorkerProcess], project: Callable[..., Path], tmp_path: Path) -> None:
    async with served(start_worker, project, tmp_path) as scheduler:
        refused = await (await scheduler.start_run("waits", {"text": "value"})).result()
        assert (refused.error_type, refused.safe_message) == ("validation", "payload: no such text.")
        assert (await (await scheduler.start_run("waits", {"text": "exit"})).result()).error_type == "internal"
        await serves_on(scheduler)


async def test_a_loader_whose_error_cannot_be_read(
    start_worker: Callable[..., WorkerProcess], project: Callable[..., Path], tmp_path: Path
) -> None:
    async with served(start_worker, project, tmp_path) as scheduler:
        waiting = await scheduler.start_run("loads", {"text": "unreadable"}, timeout_ms=300)
        await serves_on(scheduler)
        assert (await waiting.result()).code == "timeout"
        found = {kind: await (await scheduler.start_run("loads", {"text": kind})).result() for kind in ("mute", "refused", "memory")}
        assert [result.error_type for result in found.values()] == ["validation", "validation", "resource"]
        assert found["mute"].error_message == "MuteError: (its text cannot be read: SystemExit)"
        assert found["refused"].safe_message == "not this one"
        assert found["memory"].error_message.endswith("not enough memory to load cozy:o/memory:latest: no room at all")
        scheduler.workers[0].send(LoadModel("mute"))
        await scheduler.until(lambda: bool(scheduler.answers))
        (answer,) = scheduler.answers
        assert answer == LoadModelResult("cozy:o/mute:latest", False, "(its text cannot be read: SystemExit)")
        await serves_on(scheduler)


async def test_an_error_of_ours_with_a_text_of_the_authors(
    start_worker: Callable[..., WorkerProcess], project: Callable[..., Path], tmp_path: Path
) -> None:
    async with served(start_worker, project, tmp_path) as scheduler:
        waiting = await scheduler.start_run("loads", {"text": "argument"}, timeout_ms=300)
        await serves_on(scheduler)
        assert (await waiting.result()).code == "timeout"
