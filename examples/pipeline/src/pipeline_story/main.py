"""Functions that call functions: `story` calls `line` for each topic, and `telling` streams the lines."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from gen_worker import ActionContext, ValidationError, worker_function


class Topic(msgspec.Struct):
    topic: Annotated[str, msgspec.Meta(description="What the line is about", examples=["a red kite"])]


class Line(msgspec.Struct):
    text: str


class Plot(msgspec.Struct):
    topics: Annotated[list[str], msgspec.Meta(min_length=1, max_length=20, description="One line each")]


class Story(msgspec.Struct):
    text: str
    skipped: list[str]


@worker_function()
def line(ctx: ActionContext, payload: Topic) -> Line:
    """Write one line. A real project would run a model here. A function of its own has its own limits, workers and retries."""
    if not payload.topic.strip():
        raise ValidationError("topic is empty; expected a few words")
    return Line(f"Once there was {payload.topic}.")


@worker_function()
async def story(ctx: ActionContext, payload: Plot) -> Story:
    """Write all lines at once, and leave out those that cannot be written."""
    calls = [ctx.invoke("line", Topic(topic), output=Line) for topic in payload.topics]
    found = await asyncio.gather(*calls, return_exceptions=True)
    written = [each.text for each in found if isinstance(each, Line)]
    skipped = [str(each) for each in found if isinstance(each, ValidationError)]
    return Story(" ".join(written), skipped)


@worker_function()
async def telling(ctx: ActionContext, payload: Plot) -> AsyncIterator[Line]:
    """Stream the lines, each as soon as it is written."""
    for topic in payload.topics:
        yield await ctx.invoke("line", Topic(topic), output=Line)
