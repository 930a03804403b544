"""Type-checked, not run: the authoring API as a user writes it."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import msgspec

from gen_worker import (
    ActionContext,
    Asset,
    Batch,
    Clamp,
    ModelRef,
    ModelRefSource,
    RealtimeSocket,
    ResourceRequirements,
    worker_function,
    worker_websocket,
)


class Input(msgspec.Struct):
    prompt: str
    steps: Annotated[int, Clamp(1, 50, cast="int")] = 20
    image: Asset | None = None


class Output(msgspec.Struct):
    text: str


class Model:
    @classmethod
    def from_pretrained(cls, path: str) -> "Model":
        return cls()


@worker_function()
def with_parentheses(ctx: ActionContext, payload: Input) -> Output:
    asset: Asset = ctx.save_bytes(f"runs/{ctx.run_id}/outputs/x.txt", b"x")
    return Output(asset.ref)


@worker_function
def without(ctx: ActionContext, payload: Input, model: Annotated[Model, ModelRef(ModelRefSource.FIXED, "base")]) -> Iterator[Output]:
    ctx.progress(0.5, stage="half")
    yield Output(payload.prompt)


@worker_function(ResourceRequirements(max_concurrency=2))
async def streaming(ctx: ActionContext, payload: Input) -> AsyncIterator[Output]:
    yield with_parentheses(ctx, payload)


@worker_websocket()
async def talk(ctx: ActionContext, socket: RealtimeSocket) -> None:
    async for frame in socket.iter_bytes():
        await socket.send_bytes(frame)


remaining: float | None = ActionContext("run").time_remaining_s()


@worker_function(batch=Batch(max_size=4))
def batched(ctx: ActionContext, payloads: list[Input]) -> list[Output | Exception]:
    for item in ctx.items:
        item.progress(1.0)
    return [Output(payload.prompt) for payload in payloads]


@worker_function
async def calls(ctx: ActionContext, payload: Input) -> Output:
    other: Output = await ctx.invoke("other", payload, output=Output)
    untyped: dict[str, str] = await ctx.invoke("owner/endpoint/other:prod", {"prompt": "x"})
    items: list[Output] = [item async for item in ctx.stream("other", payload, output=Output)]
    return other if untyped else items[0]


@worker_function
def calls_from_a_thread(ctx: ActionContext, payload: Input) -> Output:
    for item in ctx.stream_sync("other", payload, output=Output):
        ctx.log(item.text)
    return ctx.invoke_sync("other", payload, output=Output)
