"""Calling functions as a user would, checked by mypy: `output=` types the result."""

from typing import Any, assert_type

import msgspec

from gen_worker.client import AsyncClient, AsyncRunHandle, AsyncSession, Client, RunError, RunHandle, RunStream, Session, SessionEnd
from gen_worker.types import Asset


class Output(msgspec.Struct):
    text: str


class Delta(msgspec.Struct):
    chunk: str


client = Client("http://127.0.0.1:1", key="cz_1")
assert_type(client.run("a/b/c", {"prompt": "x"}, output=Output), Output)
assert_type(client.run("a/b/c", output=list[Delta], timeout_s=5), list[Delta])
assert_type(client.run("a/b/c"), Any)
assert_type(client.submit("a/b/c", output=Output, priority="high"), RunHandle[Output])
assert_type(client.submit("a/b/c", output=Output).result(wait_s=1), Output)
assert_type(client.handle("id", output=Output).status().error is None, bool)
assert_type(client.stream("a/b/c", output=Delta), RunStream[Delta])
assert_type([item.chunk for item in client.stream("a/b/c", output=Delta)], list[str])
assert_type(client.files.upload("cat.png"), Asset)
assert_type(client.session("a/b/c", timeout_s=5), Session)
assert_type(list(client.session("a/b/c")), list[str | bytes])
assert_type(client.session("a/b/c").receive_json(Output), Output)
assert_type(client.session("a/b/c").ended, SessionEnd | None)
client.session("a/b/c", timeout=5)  # type: ignore[call-arg]
client.run("a/b/c", timeout="5")  # type: ignore[call-overload]


async def later() -> None:
    async with AsyncClient() as found:
        assert_type(await found.run("a/b/c", output=Output), Output)
        handle = await found.submit("a/b/c", output=Output)
        assert_type(handle, AsyncRunHandle[Output])
        assert_type([event.name async for event in handle.events()], list[str])
        assert_type([item.chunk async for item in found.stream("a/b/c", output=Delta)], list[str])
        async with found.session("a/b/c") as session:
            assert_type(session, AsyncSession)
            assert_type([message async for message in session], list[str | bytes])
            assert_type(await session.receive_json(Output), Output)
        try:
            await handle.result()
        except RunError as error:
            assert_type(error.run.status, str)
