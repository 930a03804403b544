"""A simulated worker around a real outbox and a real session: it computes, answers, crashes, freezes and comes back."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from gen_worker.transport.memory import MemoryStream, memory_pair
from gen_worker.transport.stream import StreamOverError
from gen_worker.wire import codec
from gen_worker.wire.messages import EXTENSIONS, ActiveRun, Event, InterruptRun, Registration, Resources, RunCommand, RunResult
from gen_worker.wire.outbox import Outbox
from gen_worker.wire.worker_session import WorkerSession

if TYPE_CHECKING:
    from world import World

FUNCTION = "work"
LOOKS_S = 0.05  # a worker sends each so many seconds, where there is something to send


class Worker:
    """A worker by its id; `instance` changes when its process does."""

    def __init__(self, world: "World", worker_id: str) -> None:
        self.world = world
        self.worker_id = worker_id
        self.instance = 0
        self.frozen_until_s = 0.0
        self.stream: MemoryStream | None = None
        self._news = asyncio.Event()  # there may be something to send
        self._begin()

    def _begin(self) -> None:
        self.instance += 1
        self.outbox = Outbox()
        self.active: dict[tuple[str, int], int] = {}  # run and attempt -> its execution
        self.interrupted: set[str] = set()

    async def live(self) -> None:
        """Connect, and connect again, for ever."""
        while True:
            await self.thaw()
            await asyncio.sleep(self.world.random.uniform(0.01, 1.0))
            node = self.world.node
            if node is None:
                continue
            mine, theirs = memory_pair(256)
            self.stream = mine
            serving = asyncio.ensure_future(node.serve(theirs, self.worker_id))
            beating = asyncio.ensure_future(self._beat(mine))
            try:
                await self._talk(mine)
            finally:
                beating.cancel()
                await mine.cut()
                await asyncio.wait([serving])

    async def crash(self, *, known: bool) -> None:
        """Lose everything; a new process begins under the same id."""
        self._begin()
        if self.stream is not None:
            await self.stream.cut()
        if known and self.world.node is not None:
            self.world.node.gateway.process_ended(self.worker_id)

    def freeze(self, seconds: float) -> None:
        """Do nothing for a while, as a stopped process."""
        self.frozen_until_s = max(self.frozen_until_s, self.world.loop.time() + seconds)

    async def cut(self) -> None:
        """Break its stream."""
        if self.stream is not None:
            await self.stream.cut()

    async def thaw(self) -> None:
        while (left_s := self.frozen_until_s - self.world.loop.time()) > 0:
            await asyncio.sleep(left_s)

    def _registration(self, *, is_heartbeat: bool) -> Registration:
        has = dict(sorted({*self.active, *self.outbox.unconfirmed_attempts}))  # of several attempts of a run, the last
        return Registration(
            resources=Resources(available_functions=(FUNCTION,), max_concurrency=2),
            is_heartbeat=is_heartbeat,
            protocol_major=1,
            extensions=EXTENSIONS,
            instance_id=f"{self.worker_id}#{self.instance}",
            active_run_ids=tuple(has),
            active_runs=tuple(ActiveRun(run_id, attempt) for run_id, attempt in has.items()),
        )

    async def _talk(self, stream: MemoryStream) -> None:
        session = WorkerSession(self.outbox)
        instance = self.instance
        try:
            await stream.send(codec.encode(self._registration(is_heartbeat=False)))
            sending = asyncio.ensure_future(self._send(stream, session))
            try:
                while (data := await stream.receive()) is not None:
                    await self.thaw()
                    await asyncio.sleep(self.world.latency_s())
                    if instance != self.instance:
                        return
                    for effect in session.receive(codec.decode(data), self.world.loop.time()):
                        self._apply(effect)
                    self._news.set()
            finally:
                sending.cancel()
        except StreamOverError:
            return

    async def _send(self, stream: MemoryStream, session: WorkerSession) -> None:
        try:
            while True:
                await self.thaw()
                while (out := session.outgoing(1 << 16)) is not None:
                    await asyncio.sleep(self.world.latency_s())
                    await stream.send(codec.encode(out[0]))
                    session.sent(out[1], self.world.loop.time())
                looked_s = self.world.loop.time()
                await self._news.wait()
                self._news.clear()
                await asyncio.sleep(LOOKS_S - (self.world.loop.time() - looked_s) % LOOKS_S)
        except StreamOverError:
            return

    async def _beat(self, stream: MemoryStream) -> None:
        try:
            while True:
                await asyncio.sleep(10)
                await self.thaw()
                await stream.send(codec.encode(self._registration(is_heartbeat=True)))
        except StreamOverError:
            return

    def _apply(self, effect: object) -> None:
        if isinstance(effect, RunCommand):
            run_id, attempt = effect.run_id, effect.attempt
            if (run_id, attempt) in self.active or self.outbox.holds_result_of(run_id, attempt):
                return  # a duplicate: the first one's result stands
            # An earlier attempt of it that is still active goes on as a zombie: worse than what our workers do.
            execution = self.active[run_id, attempt] = self.world.watch.began(run_id, self.worker_id, self.instance, attempt)
            asyncio.ensure_future(self._run(run_id, attempt, execution, self.instance))  # noqa: RUF006
        elif isinstance(effect, InterruptRun):
            self.interrupted.add(effect.run_id)

    async def _run(self, run_id: str, attempt: int, execution: int, instance: int) -> None:
        random = self.world.random
        if self.world.is_poison(run_id):
            await asyncio.sleep(random.choice((0.0, 0.05, 1.0)))
            if instance == self.instance:
                await self.crash(known=random.random() < 0.7)
            return
        self._say(Event(run_id, "task.started", b"{}", attempt))
        for number in range(random.randint(0, 3)):
            await asyncio.sleep(random.choice((0.01, 0.5, 4.0, 12.0, 12.0)))
            await self.thaw()
            if instance != self.instance or (run_id in self.interrupted and random.random() < 0.8):
                break
            self._say(Event(run_id, "output.delta", msgspec.json.encode([execution, number]), attempt))
        await asyncio.sleep(random.choice((0.0, 0.1, 2.0)))
        await self.thaw()
        if instance != self.instance:
            return
        self.active.pop((run_id, attempt), None)
        if run_id in self.interrupted and random.random() < 0.8:
            self._say(RunResult(run_id, False, error_type="canceled", safe_message="canceled", attempt=attempt))
        elif random.random() < 0.1:
            self._say(RunResult(run_id, False, error_type="retryable", retryable=True, safe_message="later", attempt=attempt))
        else:
            self._say(RunResult(run_id, True, msgspec.msgpack.encode({"execution": execution}), attempt=attempt))
        self.interrupted.discard(run_id)

    def _say(self, message: Event | RunResult) -> None:
        if isinstance(message, Event) and message.event_type == "task.started":
            self.outbox.put_event(message)
        else:
            self.outbox.put(message)
        self._news.set()
