"""Functions that the benchmarks call."""

from collections.abc import Iterator

import msgspec

from gen_worker import ActionContext, worker_function


class Input(msgspec.Struct):
    prompt: str


class Output(msgspec.Struct):
    text: str


@worker_function
def echo(ctx: ActionContext, payload: Input) -> Output:
    return Output(payload.prompt)


@worker_function
def stream(ctx: ActionContext, payload: Input) -> Iterator[Output]:
    for number in range(200):
        yield Output(str(number))
