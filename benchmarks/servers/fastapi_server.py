"""FastAPI with a sync function (a thread hop), an async one and an async stream. argv: port."""

import sys

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Input(BaseModel):
    prompt: str


class Output(BaseModel):
    text: str


app = FastAPI()


@app.post("/run")
def run(payload: Input) -> Output:
    return Output(text=payload.prompt)


@app.post("/run-async")
async def run_async(payload: Input) -> Output:
    return Output(text=payload.prompt)


@app.post("/stream")
async def stream(payload: Input):
    async def items():
        for number in range(200):
            yield b"data: " + Output(text=str(number)).model_dump_json().encode() + b"\n\n"

    return StreamingResponse(items(), media_type="text/event-stream")


uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, http="httptools", loop="uvloop")
