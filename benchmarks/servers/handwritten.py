"""The yardstick: a hand-written Starlette handler with msgspec and a thread hop, on uvicorn. argv: port [executor|threadpool]."""

import asyncio
import sys

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


class Input(msgspec.Struct):
    prompt: str


class Output(msgspec.Struct):
    text: str


decode = msgspec.json.Decoder(Input).decode
encode = msgspec.json.Encoder().encode


def echo(payload: Input) -> Output:
    return Output(payload.prompt)


async def by_executor(request):
    payload = decode(await request.body())
    output = await asyncio.get_running_loop().run_in_executor(None, echo, payload)
    return Response(encode(output), media_type="application/json")


async def by_threadpool(request):
    payload = decode(await request.body())
    output = await run_in_threadpool(echo, payload)
    return Response(encode(output), media_type="application/json")


async def stream(request):
    await request.body()

    async def items():
        for number in range(200):
            yield b"data: %b\n\n" % encode(Output(str(number)))

    return StreamingResponse(items(), media_type="text/event-stream")


hop = by_executor if sys.argv[2:] == ["executor"] else by_threadpool
app = Starlette(routes=[Route("/run", hop, methods=["POST"]), Route("/stream", stream, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, http="httptools", loop="uvloop")
