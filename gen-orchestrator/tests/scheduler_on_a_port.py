"""A scheduler on its own port, for tests that talk to it like workers."""

import asyncio
import functools
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from gen_orchestrator.auth.worker_tokens import WorkerTokens
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.gateway import Gateway
from gen_orchestrator.scheduling.pool import Pool
from gen_orchestrator.store.memory import MemoryStore
from gen_orchestrator.store.writer import Writer
from gen_worker.clock import SystemClock
from gen_worker.log import Log
from gen_worker.transport.grpc_client import GrpcDialer, Tls
from gen_worker.transport.grpc_server import GrpcServer
from gen_worker.wire import codec
from gen_worker.wire.messages import EXTENSIONS, Registration, Resources


class Scheduler:
    """A gateway on a port of its own, over a store in memory."""

    def __init__(self, tokens: WorkerTokens) -> None:
        clock, self.said, self.pool = SystemClock(), io.StringIO(), Pool()
        log = Log(self.said, as_json=True)
        store = MemoryStore(time.time)
        leader = store.campaign("n", "", 1e9)
        assert leader is not None
        fitness = Fitness(clock.now_s, log, asyncio.Event())
        self.dispatcher = Dispatcher(
            Writer(store, leader.epoch, lambda: None), self.pool, clock, Random(1), log, lambda run: ("", ""), fitness
        )
        owners = {"rel": "ann", "other": "bob"}
        self.gateway = Gateway(tokens, self.pool, self.dispatcher, fitness, clock, log, owner_of=owners.get)
        self.server = GrpcServer(self.gateway.serve, "127.0.0.1:0")

    async def __aenter__(self) -> "Scheduler":
        await self.server.start()
        self.gateway.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gateway.stop("")
        await self.server.stop(0)

    @asynccontextmanager
    async def joined(self, token: str, registration: Registration) -> AsyncIterator[Any]:
        """A stream that has said its registration."""
        async with GrpcDialer(Tls(use=False)).dial(f"127.0.0.1:{self.server.port}", token, secure=False) as stream:
            await stream.send(codec.encode(registration))
            yield stream

    async def refusal(self, token: str, registration: Registration | None = None) -> str:
        """What the worker is told when its stream is ended."""
        async with self.joined(token, registration or hello()) as stream:
            while await stream.receive() is not None:
                pass
            return repr(stream.ended)


def in_a_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """A test that waits for things, as pytest calls it."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def hello(**resources: Any) -> Registration:
    return Registration(Resources(**resources), protocol_major=1, extensions=EXTENSIONS, instance_id="i1")
