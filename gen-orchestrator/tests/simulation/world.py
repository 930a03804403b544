"""A small world with a real dispatcher, gateway and sessions in it, and everything around them made up and unreliable.

Real: `Dispatcher`, `Gateway`, `Session`, `Recorder`, `Pool`, the wire's sessions and outbox, the memory store, and for clients that ask
over HTTP what `front` names. Made up, from one seed:
commits that are slow, fail, or happen although they seem to have failed; streams that are late, cut, or silent; workers that crash,
freeze, forget, restart under their old id, or are ended by what they run; leaders that die and are replaced; a wall clock that is set by
an hour; clients that ask again until they are answered, and cancel. After the faults the world gets time to settle; then the laws must
hold.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import msgspec
from front import HttpClient, routes_of
from laws import Watch
from made_up_worker import FUNCTION, Worker
from stand_ins import OWNER, RELEASE, Clock, ServerEnd, SilentStream, Tokens, UnsureWriter

from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.gateway import Gateway
from gen_orchestrator.scheduling.intake import AdmissionError
from gen_orchestrator.scheduling.pool import Pool
from gen_orchestrator.store.base import Leader, StoreError
from gen_orchestrator.store.memory import MemoryStore
from gen_orchestrator.store.ops import AppendEvents, Finish, Lease, Op, Requeue, Result
from gen_worker.log import Log
from gen_worker.transport.grpc_server import RejectError
from gen_worker.transport.memory import MemoryStream

TRUSTED_AFTER_S = 10.0
LOOKS_EVERY_S = 60.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How large and how bad the world is."""

    runs: int = 12
    workers: int = 3
    poison: float = 0.05  # of the runs end each worker that begins them
    faults_s: float = 60.0
    settle_s: float = 900.0
    by_http: bool = False  # clients ask the HTTP front, and not the dispatcher


class Node:
    """One leader's life."""

    def __init__(self, world: "World", leader: Leader) -> None:
        clock = Clock(world)
        self.world = world
        self.writer = UnsureWriter(world, leader.epoch)
        self.pool = Pool()
        log = Log(SilentStream())  # type: ignore[arg-type]
        fitness = self.fitness = Fitness(clock.now_s, log, asyncio.Event())
        parts: Any = (self.writer, self.pool, clock, Random(world.random.random()), log, lambda run: ("", ""), fitness)
        self.dispatcher = Dispatcher(*parts)
        self.gateway = Gateway(Tokens(), self.pool, self.dispatcher, fitness, clock, log, owner_of=lambda _: OWNER)  # type: ignore[arg-type]
        self.routes = routes_of(self, clock)
        self.requests: dict[asyncio.Task[None], None] = {}  # in order: what a world does must not depend on addresses
        orphans = []
        for run in world.store.open_runs():
            open_run = self.dispatcher.restore(run, self.lane(), world.store.events_of(run.id))
            if run.state is RunState.LEASED:
                orphans.append(open_run)
        self.gateway.expect(orphans, TRUSTED_AFTER_S)
        self.sweeping = asyncio.ensure_future(self.gateway.sweep())
        self.streams: dict[MemoryStream, None] = {}  # in order: a set of objects goes by their addresses

    def lane(self) -> Any:
        return self.dispatcher.lanes.lane(RELEASE, FUNCTION, FunctionSettings())

    async def serve(self, stream: MemoryStream, token: str) -> None:
        self.streams[stream] = None
        try:
            await self.gateway.serve(ServerEnd(stream, token, self.world.latency_s))  # type: ignore[arg-type]
        except RejectError:
            pass
        finally:
            self.streams.pop(stream, None)
            await stream.finish()

    async def die(self) -> None:
        self.writer.dead = True
        self.sweeping.cancel()
        for request in list(self.requests):
            request.cancel()
        for stream in list(self.streams):
            await stream.cut()


class World:
    """One seed's world."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int, settings: Settings) -> None:
        self.loop = loop
        self.random = Random(seed)
        self.settings = settings
        self.store = MemoryStore(loop.time)
        self.watch = Watch()
        self.written: list[tuple[float, str, str]] = []  # when, what, of which run: what happened in this world
        self.node: Node | None = None
        self.unsettled = True
        self.workers = [Worker(self, f"w{number}") for number in range(settings.workers)]
        self._poison = {f"r{number}" for number in range(settings.runs) if self.random.random() < settings.poison}
        self._ids = itertools.count()
        self.slow_until_s = 0.0
        self._stall_random, self._stalled_until_s = Random(seed * 7919 + 1), 0.0
        self.wall_clock_off_s = 0.0
        self._clock_random, self._has_bad_clocks = Random(~seed), seed % 4 == 3

    def is_poison(self, run_id: str) -> bool:
        """Whether this run ends every process that begins it."""
        return run_id.partition("-")[0] in self._poison

    def later(self, delay_s: float, call: Callable[..., None], *arguments: object) -> None:
        self.loop.call_later(delay_s, call, *arguments)

    def commit_s(self) -> float:
        if self.loop.time() < self._stalled_until_s:
            return self._stall_random.uniform(0.5, 5.0)
        if self.loop.time() < self.slow_until_s:
            return self.random.uniform(0.1, 1.0)
        return self.random.choice((0.0, 0.001, 0.003))

    def latency_s(self) -> float:
        return self.random.choice((0.001, 0.02)) if self.random.random() < 0.8 else self.random.uniform(0, 0.5)

    def apply(self, epoch: int, ops: list[Op]) -> list[Result]:
        results: list[Result] = []
        for op in ops:
            run_id = getattr(op, "run_id", "")
            self.written.append((self.loop.time(), type(op).__name__, run_id or op.run.id))
            before = self.store.get(run_id)
            results += self.store.apply(epoch, [op])
            if run_id:
                self.watch.saw(before, self.store.get(run_id), op if isinstance(op, Finish) else None)
        if self.unsettled:
            self._strike(ops)
        return results

    def _strike(self, ops: list[Op]) -> None:
        """Faults at the worst moment: a command is about to leave, or something is written and nobody has heard of it."""
        random = self.random
        for op in ops:
            if isinstance(op, Lease) and random.random() < 0.1:
                worker = next(worker for worker in self.workers if worker.worker_id == op.worker_id)
                if random.random() < 0.5:
                    self.later(random.uniform(0, 0.1), lambda worker=worker: self._spawn(worker.cut()))
                else:  # it comes back when its run is somebody else's
                    self.later(random.uniform(0.1, 1.0), worker.freeze, random.uniform(31, 42))
            elif isinstance(op, Requeue) and op.not_before:  # a retry is to wait, and its hour comes again
                self._set_clock(1.0)
            elif isinstance(op, Finish | AppendEvents) and random.random() < 0.01:
                self.later(random.choice((0.0, 0.001, 0.01)), lambda: self._spawn(self._replace_leader()))

    def _set_clock(self, likely: float) -> None:
        """In every fourth world, by a random source of its own: what else happens in a world does not depend on it."""
        if self._has_bad_clocks and self._clock_random.random() < likely:
            self.wall_clock_off_s = self._clock_random.choice((-3600.0, 0.0, 3600.0))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.ensure_future(work)  # noqa: RUF006 - the loop of the world keeps it until it has run

    async def _replace_leader(self) -> None:
        node = self.node
        if node is not None and self.unsettled:
            self.node = None
            await node.die()
            await asyncio.sleep(self.random.uniform(0.1, 3.0))
            if self.node is None:
                await self._lead()

    async def run(self) -> None:
        """Live through the faults, settle, and let the laws judge."""
        await self._lead()
        lives = [asyncio.ensure_future(worker.live()) for worker in self.workers]
        clients = [asyncio.ensure_future(self._client(number)) for number in range(self.settings.runs)]
        until_s = self.loop.time() + self.settings.faults_s
        while self.loop.time() < until_s:
            await asyncio.sleep(self.random.expovariate(1 / 3.0))
            await self._fault()
        self.unsettled = False
        self.slow_until_s = 0.0
        if self.node is None:
            await self._lead()
        for worker in self.workers:
            if worker.frozen_until_s < 1e9:
                worker.frozen_until_s = min(worker.frozen_until_s, self.loop.time())
        done, late = await self._settle(clients)
        for client in done:
            client.result()
        self.watch.judge(self.store, unanswered=len(late))
        for task in (*lives, *late):
            task.cancel()
        assert self.node is not None
        await self.node.die()

    async def _settle(self, clients: list["asyncio.Future[None]"]) -> tuple[set["asyncio.Future[None]"], set["asyncio.Future[None]"]]:
        """Wait for the clients. An operator looks now and then, and lets a release go on that was paused for its crashes."""
        until_s = self.loop.time() + self.settings.settle_s
        while True:
            done, late = await asyncio.wait(clients, timeout=LOOKS_EVERY_S)
            if not late or self.loop.time() >= until_s:
                return done, late
            assert self.node is not None
            if self.node.fitness.resume(RELEASE):
                self.node.dispatcher.pump_release(RELEASE)

    async def _lead(self) -> None:
        leader = self.store.campaign(f"n{next(self._ids)}", "", 1e9)
        if leader is None:
            old = self.store.leader()
            assert old is not None
            self.store.resign(old)
            leader = self.store.campaign(f"n{next(self._ids)}", "", 1e9)
        assert leader is not None
        self.node = Node(self, leader)

    async def _fault(self) -> None:
        random = self.random
        worker = random.choice(self.workers)
        self._set_clock(0.1)
        match random.randrange(8):
            case 7:
                present = [other for other in self.workers if other.frozen_until_s < 1e9]
                if len(present) > 1 and random.random() < 0.3:
                    present[0].frozen_until_s = 1e12  # it never comes back, and nobody is told
            case 0:
                await worker.crash(known=random.random() < 0.5)
            case 1:
                worker.freeze(random.choice((2.0, random.uniform(30, 45), random.uniform(30, 45))))
            case 2 | 3:
                await worker.cut()
            case 4:
                self.slow_until_s = self.loop.time() + random.uniform(0.5, 3.0)
                if self._stall_random.random() < 0.2:  # a disk that hangs, or a table that somebody has locked
                    self._stalled_until_s = self.loop.time() + self._stall_random.uniform(2.0, 12.0)
            case 5:
                await self._replace_leader()
            case _:
                await asyncio.sleep(0)

    async def _client(self, number: int) -> None:
        """Asks with a key until it is answered, sometimes cancels, waits for the end."""
        random = self.random
        key = f"key{number if random.random() < 0.9 else 0}"
        await asyncio.sleep(random.uniform(0, self.settings.faults_s * 0.8))
        if self.settings.by_http:
            await HttpClient(self, number).live()
            return
        run_id = await self._submit(key, number)
        self.watch.answered(key, run_id)
        if random.random() < 0.25:
            await asyncio.sleep(random.choice((0.0, 0.05, 1.0, 5.0)))
            await self._cancel(run_id)
        while not self._is_final(run_id):
            await asyncio.sleep(0.2 if self.unsettled else 2.0)
            self._look(run_id)

    async def _submit(self, key: str, number: int) -> str:
        while True:
            node = self.node
            if node is not None:
                run = Run(
                    id=f"r{number}-{next(self._ids)}", owner=OWNER, endpoint="e", function=FUNCTION, tag="prod", release_id=RELEASE,
                    payload=b"\x80", created_at=self.loop.time() + 1_700_000_000.0, idempotency_key=key,
                )  # fmt: skip
                try:
                    async with asyncio.timeout(5):
                        submitted = await node.dispatcher.submit(run, node.lane())
                    if self.node is node:
                        return submitted.run.id
                except (StoreError, AdmissionError, TimeoutError):
                    pass
            await asyncio.sleep(0.2)

    async def _cancel(self, run_id: str) -> None:
        while not self._is_final(run_id):
            node = self.node
            if node is not None:
                try:
                    async with asyncio.timeout(5):
                        await node.dispatcher.cancel(run_id)
                    if self.node is node and (run := self.store.get(run_id)) is not None:
                        if not run.is_final and run.cancel_requested:
                            self.watch.cancel_won(run_id)
                        return
                except (StoreError, TimeoutError):
                    pass
            await asyncio.sleep(0.2)

    def _is_final(self, run_id: str) -> bool:
        run = self.store.get(run_id)
        return run is not None and run.is_final

    def _look(self, run_id: str) -> None:
        if self.node is not None and (open_run := self.node.dispatcher.open.get(run_id)) is not None:
            self.watch.read(run_id, open_run.feed)
