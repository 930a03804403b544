"""Functions that the benchmarks call."""

import time
from collections.abc import Iterator

import msgspec

from gen_worker import ActionContext, Batch, worker_function


class Input(msgspec.Struct):
    prompt: str


class Output(msgspec.Struct):
    text: str


@worker_function
def echo(ctx: ActionContext, payload: Input) -> Output:
    return Output(payload.prompt)


@worker_function
def quick(ctx: ActionContext, payload: Input) -> Output:
    """`echo`, written only when it is over: see cozy.toml."""
    return Output(payload.prompt)


@worker_function
async def async_echo(ctx: ActionContext, payload: Input) -> Output:
    return Output(payload.prompt)


@worker_function
def stream(ctx: ActionContext, payload: Input) -> Iterator[Output]:
    for number in range(200):
        yield Output(str(number))


@worker_function
def tokens(ctx: ActionContext, payload: Input) -> Iterator[Output]:
    """`stream`, written only when it is over: see cozy.toml."""
    yield from stream(ctx, payload)


@worker_function(batch=Batch(max_size=16, max_wait_ms=5))
def batch(ctx: ActionContext, payloads: list[Input]) -> list[Output]:
    time.sleep(0.02)
    return [Output(payload.prompt) for payload in payloads]


@worker_function
def nap(ctx: ActionContext, payload: Input) -> Output:
    """Keeps its slot until it is cancelled."""
    ctx.done().wait(600)
    return Output(payload.prompt)


@worker_function
def progress(ctx: ActionContext, payload: Input) -> Output:
    """Twenty events of progress in a run that takes no time."""
    for step in range(20):
        ctx.progress(step / 20, "draw")
    return Output(payload.prompt)
