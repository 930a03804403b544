"""Output in pieces: a plain generator, and an async one that counts down."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import msgspec

from gen_worker import ActionContext, Clamp, worker_function


class Text(msgspec.Struct):
    prompt: Annotated[str, msgspec.Meta(description="The text to give back word by word", examples=["a red kite"])]


class Word(msgspec.Struct):
    chunk: str


@worker_function()
def words(ctx: ActionContext, payload: Text) -> Iterator[Word]:
    """Give the prompt back, one word at a time; the pieces join to the text."""
    parts = payload.prompt.split()
    for number, part in enumerate(parts, start=1):
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        ctx.progress(number / len(parts), stage="words")
        yield Word(chunk=f"{part} ")


class Countdown(msgspec.Struct):
    start: Annotated[int, Clamp(1, 60)] = 3
    seconds_between: Annotated[float, Clamp(0, 5)] = 0.2


class Tick(msgspec.Struct):
    left: int


@worker_function
async def countdown(ctx: ActionContext, payload: Countdown) -> AsyncIterator[Tick]:
    """Count down to zero; cancel it to see it stop."""
    for left in range(payload.start, -1, -1):
        yield Tick(left)
        await asyncio.sleep(payload.seconds_between)
