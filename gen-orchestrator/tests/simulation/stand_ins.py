"""The surroundings of the real parts in the simulation: a clock, a store that is slow and unreliable, tokens, one end of a stream."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from gen_orchestrator.auth.worker_tokens import TokenError, WorkerClaims
from gen_orchestrator.store.base import DeposedError, StoreError, StoreUnavailableError
from gen_orchestrator.store.line import Entry, Line, OnTrouble, OnWritten
from gen_orchestrator.store.ops import Op, Result
from gen_worker.transport.memory import MemoryStream

if TYPE_CHECKING:
    from world import World

RELEASE = "rel"
OWNER = "ann"


class Clock:
    """The loop's time, for both scales. Somebody sets the clock on the wall now and then, and no two nodes agree on it."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def now_s(self) -> float:
        return self._world.loop.time()

    def unix_s(self) -> float:
        return self._world.loop.time() + 1_700_000_000.0 + self._world.wall_clock_off_s


class SilentStream:
    """Where log lines go."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing is kept."""


class UnsureWriter:
    """As `Writer`, with a commit that takes a while, fails, or happens although it is said to have failed."""

    def __init__(self, world: "World", epoch: int) -> None:
        self._world = world
        self._epoch = epoch
        self._line = Line()
        self._writing = False
        self.dead = False
        self._since_s = 0.0

    def trouble(self, after_s: float) -> StoreError | None:
        stalled_s = self._world.loop.time() - self._since_s if self._since_s else 0.0
        return StoreUnavailableError(f"nothing was written for {stalled_s} s") if stalled_s > after_s else None

    @property
    def waiting(self) -> int:
        return len(self._line)

    def put(self, op: Op, on_written: OnWritten | None = None, on_trouble: OnTrouble | None = None, *, optional: bool = False) -> None:
        self._line.put(op, on_written, on_trouble, optional=optional)
        if not self._writing:
            self._writing = True
            self._world.later(self._world.commit_s(), self._commit)

    def _commit(self) -> None:
        if self.dead:
            return
        batch = self._line.take(1000)
        self._since_s = self._since_s or self._world.loop.time()
        world = self._world
        fails = world.unsettled and world.random.random() < 0.05
        results: list[Result] | StoreError
        if fails and world.random.random() < 0.5:
            results = StoreUnavailableError("not written", unknown=world.random.random() < 0.5)
        else:
            try:
                results = world.apply(self._epoch, [entry.op for entry in batch])
            except DeposedError as exc:
                results = exc
            else:
                if fails:
                    results = StoreUnavailableError("written, but nobody heard of it", unknown=True)
        world.later(world.commit_s(), self._tell, batch, results)

    def _tell(self, batch: list[Entry], results: list[Result] | StoreError) -> None:
        if self.dead:
            return
        calls = self._line.settle(batch, results)
        if not isinstance(results, StoreError) or not len(self._line):
            self._since_s = 0.0
        for call in calls:
            call()
        if len(self._line):
            self._world.later(0.5 if isinstance(results, StoreError) else self._world.commit_s(), self._commit)
        else:
            self._writing = False


class Tokens:
    """Every worker's id is its token."""

    def verify(self, token: str) -> WorkerClaims:
        if not token:
            raise TokenError("no token")
        return WorkerClaims(token, OWNER, RELEASE, exp=1 << 40)


class ServerEnd:
    """The scheduler's end of a stream, with what `Session` and `Gateway` use of `ServerStream`."""

    def __init__(self, stream: MemoryStream, token: str, latency_s: Callable[[], float]) -> None:
        self._stream = stream
        self._latency_s = latency_s
        self.token = token
        self.peer = token

    async def receive(self) -> bytes | None:
        return await self._stream.receive()

    async def send(self, data: bytes) -> None:
        await asyncio.sleep(self._latency_s())
        await self._stream.send(data)

    def end(self, code: str = "OK", details: str = "") -> None:
        asyncio.ensure_future(self._stream.finish())  # noqa: RUF006 - the loop of the world keeps it until it has run
