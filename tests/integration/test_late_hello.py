"""A scheduler on a busy machine, whose hello comes after the worker has taken it for a plain one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.conftest import WorkerProcess

from gen_worker.transport.grpc_server import GrpcServer, ServerStream
from gen_worker.wire import codec
from gen_worker.wire import messages as m

CODE = """
import msgspec
from gen_worker import ActionContext, worker_function

class Input(msgspec.Struct):
    text: str

class Output(msgspec.Struct):
    text: str

@worker_function
def echo(ctx: ActionContext, payload: Input) -> Output:
    return Output(payload.text)
"""
RUNS = 8


async def test_a_late_hello_ends_the_time_of_one_message_at_a_time(
    project: Callable[..., Path], start_worker: Callable[..., WorkerProcess]
) -> None:
    """Runs cost ten times as much message by message: a worker that stayed so would be slow for the life of its stream."""
    heard: asyncio.Future[list[m.Message]] = asyncio.get_running_loop().create_future()

    async def serve(stream: ServerStream) -> None:
        async def receive() -> m.Message:
            data = await stream.receive()
            assert data is not None
            return codec.decode(data)

        try:
            assert isinstance(await receive(), m.Registration)
            while not isinstance(await receive(), m.Event):  # it has not heard a hello in time, and goes on without
                pass
            commands = tuple([m.RunCommand(f"r{number}", "echo", b"\x81\xa4text\xa1x") for number in range(RUNS)])
            await stream.send(codec.encode(m.Hello((*m.EXTENSIONS, m.FEW_EVENTS), 0)))
            await stream.send(codec.encode(m.Batch(commands, 0, 0)))
            found: list[m.Message] = []
            while len(results_in(found)) < RUNS:
                found.append(await receive())
            heard.set_result(found)
        except BaseException as exc:
            heard.set_exception(exc)
            raise

    server = GrpcServer(serve, "127.0.0.1:0")
    await server.start()
    try:
        start_worker(project(CODE), f"127.0.0.1:{server.port}")
        async with asyncio.timeout(60):
            found = await heard
    finally:
        await server.stop()
    assert {result.run_id for result in results_in(found) if result.success} == {f"r{number}" for number in range(RUNS)}
    alone = [message for message in found if isinstance(message, m.RunResult) or (isinstance(message, m.Event) and message.run_id)]
    assert alone == [], "of runs nothing comes alone"


def results_in(found: list[m.Message]) -> list[m.RunResult]:
    singles = [single for message in found for single in (message.messages if isinstance(message, m.Batch) else (message,))]
    return [single for single in singles if isinstance(single, m.RunResult)]
