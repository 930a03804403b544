"""Messages and registrations of a worker arrive in the order in which they were made, however slow the stream is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gen_worker.log import Log
from gen_worker.runtime.connection import Connection
from gen_worker.runtime.connection_parts import ConnectionPolicy
from gen_worker.runtime.identity import Identity
from gen_worker.runtime.seeds import Backoff, Seeds
from gen_worker.transport.stream import Ended, Lost
from gen_worker.wire import codec
from gen_worker.wire.messages import BATCH, Batch, Event, Hello, Message, Registration, Resources
from gen_worker.wire.outbox import Outbox


class SlowStream:
    """Takes one message each time the test lets it."""

    ended: Ended = Lost("over")

    def __init__(self, greeting: Message) -> None:
        self.taken: asyncio.Queue[list[str]] = asyncio.Queue()
        self.turns = asyncio.Semaphore(1)
        self.begun: asyncio.Queue[None] = asyncio.Queue()
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        self._heard.put_nowait(codec.encode(greeting))

    async def send(self, data: bytes) -> None:
        self.begun.put_nowait(None)
        await self.turns.acquire()
        message = codec.decode(data)
        for single in message.messages if isinstance(message, Batch) else (message,):
            if isinstance(single, Registration):
                self.taken.put_nowait(["lists", *single.resources.vram_models])
            elif isinstance(single, Event):
                self.taken.put_nowait([single.event_type])

    async def receive(self) -> bytes | None:
        return await self._heard.get()

    async def close_sending(self) -> None: ...

    def is_secure(self, address: str) -> bool:
        return False

    @asynccontextmanager
    async def dial(self, address: str, token: str, *, secure: bool) -> AsyncIterator["SlowStream"]:
        yield self


class Deaf:
    def connecting(self, address: str) -> None: ...
    def connect_failed(self, address: str, detail: str) -> None: ...
    def registered(self, address: str) -> None: ...
    def lost(self, address: str, detail: str) -> None: ...
    def incompatible(self, address: str, detail: str) -> None: ...


@pytest.mark.parametrize("greeting", [Hello(extensions=(BATCH,)), Event("", "hello", b"")], ids=["batches", "plain"])
def test_a_list_follows_all_that_was_said_before_it_and_nothing_that_was_said_later(greeting: Message) -> None:
    """Also where events come while another message is on its way, and more of them than one message holds."""

    async def scenario() -> list[list[str]]:
        models: list[str] = []
        stream = SlowStream(greeting)

        def register(is_heartbeat: bool) -> Registration:
            return Registration(resources=Resources(vram_models=tuple(models)), is_heartbeat=is_heartbeat)

        connection = Connection(
            stream,
            Seeds(["here:1"]),
            Identity("token"),
            Outbox(),
            ConnectionPolicy(Backoff(), heartbeat_s=3600),
            register,
            lambda _: None,
            Deaf(),
            Log(),
        )
        holding = asyncio.create_task(connection.hold())
        assert await stream.taken.get() == ["lists"]
        await stream.begun.get()
        connection.say_event(Event("", "first"))
        await stream.begun.get()  # "first" is on its way
        connection.say_event(Event("", "started"))
        connection.say_event(Event("", "large", b"x" * (300 << 10)))  # more than goes with others
        connection.say_event(Event("", "ready"))
        models.append("a")
        connection.refresh()
        stream.turns.release()
        seen = [await stream.taken.get()]
        await stream.begun.get()  # "started" is, and the list has been made
        models.clear()
        connection.say_event(Event("", "removed"))
        connection.refresh()
        for _ in range(20):
            stream.turns.release()
        seen += [await stream.taken.get() for _ in range(6)]
        holding.cancel()
        return seen

    said = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert said == [["first"], ["started"], ["large"], ["ready"], ["lists", "a"], ["removed"], ["lists"]]
