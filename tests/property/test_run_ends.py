"""Whatever breaks, and wherever: a run reports exactly one outcome, gives back everything it held, and the executor serves the next one."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from tests.run_bench import DATA_URI, Bench, Engine, Heard, In, Out, WithFile, action, batched, bench, session_of
from tests.waiting import eventually

from gen_worker import ActionContext, ModelRef, ModelRefSource, RealtimeSocket
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import ValidationError
from gen_worker.execution import run as run_module
from gen_worker.execution import run_ending
from gen_worker.execution.handler_socket import HandlerSocket

MODEL = ModelRef(ModelRefSource.PAYLOAD, "model")
ENTERED = threading.Event()


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def plain(ctx: ActionContext, payload: In) -> Out:
    ctx.progress(0.5)
    return Out(payload.text)


def quiet(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.text)


def quiet_with_model(ctx: ActionContext, payload: WithFile, engine: Annotated[Engine, MODEL]) -> Out:
    return Out(payload.text)


async def async_quiet(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.text)


def everything(ctx: ActionContext, payload: WithFile, engine: Annotated[Engine, MODEL]) -> Out:
    ctx.emit("custom.tick", {"n": 1})
    ctx.save_bytes("out.txt", payload.image.read_bytes())
    return Out(payload.text)


async def asynchronous(ctx: ActionContext, payload: In) -> Out:
    ctx.progress(0.5)
    await asyncio.sleep(0)
    return Out(payload.text)


def stream(ctx: ActionContext, payload: In) -> Iterator[Out]:
    for n in range(payload.count):
        yield Out(str(n))


async def async_stream(ctx: ActionContext, payload: In) -> AsyncIterator[Out]:
    for n in range(payload.count):
        yield Out(str(n))


def batch(ctx: ActionContext, payloads: list[In]) -> list[Out]:
    return [Out(payload.text) for payload in payloads]


async def async_batch(ctx: ActionContext, payloads: list[In]) -> list[Out]:
    return [Out(payload.text) for payload in payloads]


def slow_batch(ctx: ActionContext, payloads: list[In]) -> list[Out]:
    raise AssertionError("its runs have left before a batch is full")


def failing(ctx: ActionContext, payload: WithFile, engine: Annotated[Engine, MODEL]) -> Out:
    raise MuteError from ValidationError("\ud800")


def short_of_memory(ctx: ActionContext, payload: WithFile, engine: Annotated[Engine, MODEL]) -> Out:
    raise MemoryError


def waiting(ctx: ActionContext, payload: WithFile, engine: Annotated[Engine, MODEL]) -> Out:
    ENTERED.set()
    ctx.done().wait(60)
    return Out("went on")


async def async_waiting(ctx: ActionContext, payload: WithFile, engine: Annotated[Engine, MODEL]) -> Out:
    ENTERED.set()
    await asyncio.sleep(10)  # waits: the function is slow; its run does not wait for it
    return Out("went on")


async def talking(ctx: ActionContext, sock: RealtimeSocket, engine: Annotated[Engine, ModelRef(ModelRefSource.FIXED, "0")]) -> None:
    ctx.progress(0.5)
    async for data in sock.iter_bytes():
        await sock.send_bytes(data)


async def short_of_memory_while_talking(
    ctx: ActionContext, sock: RealtimeSocket, engine: Annotated[Engine, ModelRef(ModelRefSource.FIXED, "0")]
) -> None:
    raise MemoryError


PLAIN, FILE = In(text="x"), {"image": {"ref": DATA_URI}}
SCENARIOS: dict[str, tuple[FunctionSpec, Any, dict[str, Any]]] = {
    "plain": (action(plain), PLAIN, {}),
    "everything": (action(everything), FILE, {}),
    "async": (action(asynchronous), PLAIN, {}),
    "stream": (action(stream), PLAIN, {}),
    "async stream": (action(async_stream), PLAIN, {}),
    "batch": (batched(batch), PLAIN, {}),
    "async batch": (batched(async_batch), PLAIN, {}),
    "failing": (action(failing), FILE, {}),
    "out of memory": (action(short_of_memory), FILE, {}),
    "bad payload": (action(plain), {"text": 5}, {}),
    "canceled": (action(waiting), FILE, {}),
    "async, canceled": (action(async_waiting), FILE, {}),
    "timed out in a queue": (batched(slow_batch, 60_000), PLAIN, {"timeout_ms": 5}),
    "timed out": (action(waiting), FILE, {"timeout_ms": 20}),
    "early": (action(quiet), PLAIN, {}),
    "early, with a file and a model": (action(quiet_with_model), FILE, {}),
    "early, async": (action(async_quiet), PLAIN, {}),
    "early, but it has said something": (action(plain), PLAIN, {}),
    "early, canceled": (action(waiting), FILE, {}),
    "session, canceled": (session_of(talking), {}, {}),
    "session, timed out": (session_of(talking), {}, {"timeout_ms": 20}),
    "session out of memory": (session_of(short_of_memory_while_talking), {}, {}),
}
FAULTS: list[Callable[[], BaseException]] = [RuntimeError, MuteError, SystemExit, lambda: ValidationError("\udcff"), asyncio.CancelledError]
# What these give out is only held by a run if they return.
GIVING = {"models.acquire", "models.seat", "inputs.of_run", "seat.begin_work", "lease.view"}
RETURNING = {"lease.release", "seat.release", "run_inputs.close", "work"}  # the next round needs it back
WRAPPED = {"models.seat": "seat", "models.acquire": "lease", "inputs.of_run": "run_inputs", "seat.begin_work": "work"}
NOT_STEPS = {"token.cancel", "token.reason", "log.bind"}  # the test cancels, and `reason` is a value


class Sabotage:
    """Counts the steps in which a run calls on others, and breaks one: before it does anything, or after it has done all."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.given: list[str] = []  # what a run holds
        self.break_at = -1
        self.afterwards = False
        self.fault: Callable[[], BaseException] = RuntimeError
        self.broken = ""
        self.told = asyncio.Event()

    def wrap(self, name: str, part: Any) -> Any:
        return _Wrapped(self, name, part)

    def step(self, name: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if name in NOT_STEPS:
            return call(*args, **kwargs)
        number = len(self.steps)
        self.steps.append(name)
        self.told.set()
        breaks = number == self.break_at
        if breaks:
            self.broken = name
        if breaks and name not in RETURNING and (not self.afterwards or name in GIVING):
            for work in args:
                if inspect.iscoroutine(work):
                    work.close()  # nobody will await it
            raise self.fault()
        if inspect.iscoroutinefunction(call):
            return self._awaited(name, lambda: call(*args, **kwargs), breaks)
        result = call(*args, **kwargs)
        if breaks:
            raise self.fault()
        return self._given(name, result)

    async def _awaited(self, name: str, call: Callable[[], Any], breaks: bool) -> Any:
        result = await call()
        if breaks:
            raise self.fault()
        return self._given(name, result)

    def _given(self, name: str, result: Any) -> Any:
        kind = WRAPPED.get(name)
        if kind is None:
            return result
        self.given.append(kind)
        if isinstance(result, tuple):
            return (self.wrap(kind, result[0]), *result[1:])
        if callable(result):
            return lambda: self.step(kind, result, (), {})
        return self.wrap(kind, result)

    def count(self, name: str) -> int:
        return self.steps.count(name)


class _Wrapped:
    def __init__(self, sabotage: Sabotage, name: str, part: Any) -> None:
        self.__dict__.update(_sabotage=sabotage, _name=name, _part=part)

    def __getattr__(self, attribute: str) -> Any:
        name, part = f"{self._name}.{attribute}", self._part
        value = inspect.getattr_static(type(part), attribute, None)
        if callable(getattr(part, attribute)):
            return lambda *args, **kwargs: self._sabotage.step(name, getattr(part, attribute), args, kwargs)
        return (
            self._sabotage.step(name, lambda: getattr(part, attribute), (), {}) if isinstance(value, property) else getattr(part, attribute)
        )

    def __setattr__(self, attribute: str, value: Any) -> None:
        setattr(self._part, attribute, value)


def sabotaged(made: Bench, sabotage: Sabotage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the parts that an executor makes for itself, and the functions that a run calls."""
    parts = made.executor._parts
    names = ("clock", "threads", "tenant", "stuck", "batchers", "desk")
    made.executor._parts = msgspec.structs.replace(
        parts,
        **{name: sabotage.wrap(name, getattr(parts, name)) for name in names},
        background=lambda work, name: sabotage.step("background", parts.background, (work, name), {}),
    )
    called = [(run_module, name) for name in ("utc_now", "EventPipe", "OutputWriter", "ActionContext", "holds_assets")]
    for module, name in [*called, (run_ending, "utc_now"), (run_ending, "run_metrics")]:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, _name=name, _real=real, **kwargs: sabotage.step(_name, _real, args, kwargs))


async def attempt(made: Bench, sabotage: Sabotage, scenario: str) -> Heard:
    """One run, until its outcome and its release have been said, or tried to be said."""
    spec, payload, options = SCENARIOS[scenario]
    ENTERED.clear()
    made.answers_early = "early" in scenario
    if spec.kind == "websocket":
        socket = HandlerSocket(_Listener(), made.executor.mailbox)
        socket.frame_in(b"hello")
        options = {**options, "socket": socket}
    heard = made.start(spec, payload, **options)
    async with asyncio.timeout(60):
        while not (sabotage.count("hooks.ended") and sabotage.count("hooks.released")):
            if "canceled" in scenario and ENTERED.is_set():
                heard.token.cancel()
            sabotage.told.clear()
            try:
                async with asyncio.timeout(0.005):
                    await sabotage.told.wait()
            except TimeoutError:
                continue
    return heard


@pytest.mark.parametrize("afterwards", [False, True], ids=["before", "afterwards"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_run_ends_once_whatever_breaks(scenario: str, afterwards: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        sabotage = Sabotage()
        async with bench(tmp_path, sabotage.wrap) as made:
            sabotaged(made, sabotage, monkeypatch)
            await attempt(made, sabotage, scenario)
            steps = list(sabotage.steps)
            assert len(steps) >= 10
            for number in range(len(steps)):
                where = f"{scenario}, step {number} of {steps}"
                sabotage.steps.clear()
                sabotage.given.clear()
                sabotage.break_at, sabotage.afterwards, sabotage.broken = number, afterwards, ""
                sabotage.fault = FAULTS[number % len(FAULTS)]
                try:
                    heard = await attempt(made, sabotage, scenario)
                except TimeoutError:
                    pytest.fail(f"{where}: hangs after {sabotage.broken}; {made.logged.getvalue()[-3000:]}")
                sabotage.break_at = -1
                said = sabotage.steps
                where = f"{where}: {sabotage.broken} broke; then {said}"
                assert said.count("hooks.ended") == 1, where
                assert said.count("hooks.released") == 1, where
                assert said.index("hooks.released") > said.index("hooks.ended"), where
                assert heard.late == 0, where
                for held in ("lease.release", "seat.release", "run_inputs.close", "work"):
                    assert said.count(held) == sabotage.given.count(held.partition(".")[0]), where
                await eventually(lambda: not (made.pins or made.left_files()))  # a fetch in a thread, which the run did not wait for
                if heard.early and heard.outcomes:  # what was told first counts, in the record, too
                    assert heard.early[0][0] == heard.outcome, where
                assert len(heard.early) < 2, where
                assert len(heard.outcomes) == (sabotage.broken != "hooks.ended" or afterwards), where
            # The executor as it was: a run of each kind, by the same id.
            for kind in ("plain", "everything", "async", "stream", "batch"):
                spec, payload, _ = SCENARIOS[kind]
                heard = await made.run(spec, payload)
                assert heard.outcome.success, (kind, heard.outcome, made.logged.getvalue()[-2000:])

    asyncio.run(main())


class _Listener:
    """The client of a session: it is there until the handler has heard it once."""

    largest_bytes = 1000

    def send(self, data: bytes, *, is_text: bool, taken: Callable[[], None]) -> None:
        taken()
        ENTERED.set()

    def took(self, size_bytes: int) -> None:
        """Nothing to count."""


class Hostile:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise SystemExit(name)

    def __call__(self, *args: object) -> Any:
        raise SystemExit(5)


def spoil(ctx: ActionContext) -> None:
    for name in ("cancel", "is_canceled", "emit", "_emitter", "_done", "upload_s", "run_id", "timeout_ms", "_outputs"):
        setattr(ctx, name, Hostile())


def spoiling(ctx: ActionContext, payload: In) -> Out:
    spoil(ctx)
    return Out("x")


def spoiling_and_waiting(ctx: ActionContext, payload: In) -> Out:
    spoil(ctx)
    threading.Event().wait(0.1)
    return Out("x")


async def spoiling_and_sleeping(ctx: ActionContext, payload: In) -> Out:
    spoil(ctx)
    await asyncio.sleep(60)  # waits: the function is slow; its run does not wait for it
    return Out("x")


def spoiling_batch(ctx: ActionContext, payloads: list[In]) -> list[Out]:
    for item in ctx.items:
        spoil(item)
    threading.Event().wait(0.1)
    return [Out("x") for _ in payloads]


@pytest.mark.parametrize(
    "spec",
    [action(spoiling), action(spoiling_and_waiting), action(spoiling_and_sleeping), batched(spoiling_batch)],
    ids=lambda spec: spec.name,
)
def test_a_context_that_its_function_has_spoiled_keeps_no_run_from_ending(spec: FunctionSpec, tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as made:
            for timeout_ms in (0, 20) if spec.name != "spoiling-and-sleeping" else (20,):
                heard = await made.run(spec, PLAIN, timeout_ms=timeout_ms)
                assert len(heard.outcomes) == heard.releases == 1
                assert heard.outcome.success or heard.outcome.code == "timeout"
            assert (await made.run(action(plain), PLAIN)).outcome.success

    asyncio.run(main())
