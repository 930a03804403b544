"""What a leader knows about keys with budgets, with a real dispatcher: clocks that jump, changed budgets, callers that leave."""

import asyncio
import io
import time
from random import Random

import msgspec
import pytest
from scheduler_on_a_port import in_a_loop

from gen_orchestrator.domain.budgets import Budgets
from gen_orchestrator.domain.receipts import Usage
from gen_orchestrator.domain.runs import Ending, Run, RunState
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.pool import Pool
from gen_orchestrator.scheduling.spending import ExhaustedError, Spending
from gen_orchestrator.store.memory import MemoryStore
from gen_orchestrator.store.ops import Accept, Finish
from gen_orchestrator.store.writer import Writer
from gen_worker.log import Log

DAY_S = 86400.0
NOON = 20_000 * DAY_S + DAY_S / 2
KEY = "key:a"


class Clock:
    """Both scales, moved by hand."""

    def __init__(self) -> None:
        self.mono_s, self.wall_s = 1000.0, NOON

    def now_s(self) -> float:
        return self.mono_s

    def unix_s(self) -> float:
        return self.wall_s

    def passes(self, seconds: float) -> None:
        self.mono_s += seconds
        self.wall_s += seconds


class Leader:
    """One leadership over a store that others have led before."""

    def __init__(self, store: MemoryStore, budgets: Budgets, clock: Clock) -> None:
        leader = store.campaign("n", "", 1e9)
        assert leader is not None
        self.budgets: Budgets | None = budgets
        self.clock = clock
        self.store = store
        self.epoch = leader.epoch
        log = Log(io.StringIO(), as_json=True)
        self.writer = Writer(store, leader.epoch, lambda: None)
        fitness = Fitness(clock.now_s, log, asyncio.Event())
        self.dispatcher = Dispatcher(
            self.writer, Pool(), clock, Random(1), log, lambda run: ("", ""), fitness, on_over=lambda over: self.spending.ended(over.run)
        )
        self.spending = Spending(lambda _: self.budgets, store, self.dispatcher, clock)
        self._lane = self.dispatcher.lanes.lane("rel", "f", FunctionSettings())
        self._count = 0

    def run(self, run_id: str = "") -> Run:
        self._count += 1
        return Run(
            id=run_id or f"{self.epoch}-{self._count}",
            owner="ann",
            endpoint="e",
            function="f",
            tag="prod",
            release_id="rel",
            payload=b"\x80",
            created_at=self.clock.wall_s,
            invoker_id=KEY,
        )

    async def submit(self, run_id: str = "") -> str:
        """The run's id, or the budget that refused it."""
        try:
            return (await self.spending.submit(self.run(run_id), self._lane)).run.id
        except ExhaustedError as exc:
            return exc.exhausted.budget

    async def accepted(self, tries: int) -> int:
        found = await asyncio.gather(*(self.submit() for _ in range(tries)))
        return sum("-" in each for each in found)

    def used_before(self, run_id: str, at: float, gpu_ms: int) -> None:
        """A run that ended then."""
        ending = Ending(state=RunState.SUCCEEDED, at=at, used=Usage(gpu_ms=gpu_ms))
        self.store.apply(self.epoch, [Accept(msgspec.structs.replace(self.run(run_id), created_at=at)), Finish(run_id, 0, ending)])


@in_a_loop
async def test_a_wall_clock_that_jumps_frees_no_rate() -> None:
    clock = Clock()
    leader = Leader(MemoryStore(time.time), Budgets(rate="5/m"), clock)
    assert await leader.accepted(64) == 5
    for jump_s in (-DAY_S, 3 * DAY_S, -10.0, 59.0):
        clock.wall_s += jump_s
        assert await leader.accepted(3) == 0, jump_s
    clock.passes(59.9)
    assert await leader.accepted(3) == 0
    clock.passes(0.2)
    assert await leader.accepted(64) == 5
    await leader.writer.close()


@pytest.mark.parametrize(("jump_s", "freed"), [(0.0, 0), (30.0, 0), (-3600.0, 0), (61.0, 5)])
@in_a_loop
async def test_the_next_leader_knows_the_rate(jump_s: float, freed: int) -> None:
    """By the wall clock, which is all that it has: runs of the future, before the clock was put back, are as of now."""
    store, clock = MemoryStore(time.time), Clock()
    first = Leader(store, Budgets(rate="5/m"), clock)
    assert await first.accepted(9) == 5
    await first.writer.close()
    clock.wall_s += jump_s
    second = Leader(store, Budgets(rate="5/m"), clock)
    for run in store.open_runs():
        second.dispatcher.restore(run, second._lane)
    assert await second.accepted(64) == freed
    clock.passes(60.1)
    assert await second.accepted(64) == 5
    await second.writer.close()


@in_a_loop
async def test_gpu_seconds_are_those_of_the_day_that_the_clock_says() -> None:
    clock = Clock()
    leader = Leader(MemoryStore(time.time), Budgets(gpu_seconds="1/d"), clock)
    leader.used_before("today", NOON - 3600, 700)
    assert "-" in await leader.submit()
    leader.spending.ended(msgspec.structs.replace(leader.run(), finished_at=clock.wall_s, gpu_ms=300))
    assert await leader.submit() == "gpu_seconds"
    clock.wall_s += DAY_S
    assert "-" in await leader.submit(), "a new day"
    leader.used_before("yesterday", NOON - DAY_S, 1000)
    clock.wall_s -= 2 * DAY_S
    assert await leader.submit() == "gpu_seconds", "put back to a day that was used up"
    for far_s, expected in ((-1e12, "gpu_seconds"), (1e13, "-")):  # far before, all that ended counts
        clock.wall_s = far_s
        assert expected in await asyncio.wait_for(leader.submit(), 60), far_s
    await leader.writer.close()


@in_a_loop
async def test_a_budget_counts_what_was_before_it_and_goes_with_it() -> None:
    clock = Clock()
    leader = Leader(MemoryStore(time.time), Budgets(concurrency=2), clock)
    leader.budgets = None
    assert await leader.accepted(5) == 5
    leader.budgets = Budgets(concurrency=6, rate="100/h")
    assert await leader.accepted(64) == 1
    leader.budgets = Budgets(rate="8/m")
    assert await leader.accepted(64) == 2
    leader.budgets = Budgets(rate="8/m", concurrency=1)
    assert await leader.submit() == "concurrency"
    leader.budgets = None
    assert await leader.accepted(3) == 3
    await leader.writer.close()


@in_a_loop
async def test_a_caller_that_leaves_uses_what_was_accepted() -> None:
    leader = Leader(MemoryStore(time.time), Budgets(rate="2/h"), Clock())
    assert "-" in await leader.submit("a-1")
    leaving = asyncio.ensure_future(leader.submit("a-2"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert await leader.submit() == "rate"
    assert await leader.submit("a-1") == "a-1", "it is there"
    await leader.writer.close()
