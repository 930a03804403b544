"""Thousands of simulated worlds full of faults, each from a seed: the laws hold in all of them, and a planted bug breaks a law within a
hundred worlds."""

import asyncio
import os
from typing import Any

import pytest
from front import in_world
from laws import BrokenLawError
from planted import PLANTED
from virtual_loop import VirtualLoop
from world import Settings, World

WORLDS = int(os.environ.get("SIMULATION_WORLDS", "2000"))
FIRST_SEED = int(os.environ.get("SIMULATION_FIRST_SEED", "0"))
SETTINGS = Settings()
BY_HTTP = Settings(by_http=True)
BUSY_BY_HTTP = Settings(by_http=True, runs=150)  # a reader comes back to a new leader while its run still says something
CROWDED = Settings(runs=200)  # what shows only when a leader dies within a few milliseconds of one of many commits
NEEDS = {
    "messages are acknowledged before they are written": CROWDED,
    "the front forgets the key of a request": BY_HTTP,
    "a stream begins anew for a reader who resumes": BY_HTTP,
    "a stream leaves out what only the store has": BUSY_BY_HTTP,
}


def live(seed: int, settings: Settings = SETTINGS) -> World:
    """One world; `BrokenLawError` names the law, and the seed brings it back."""
    loop = VirtualLoop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    asyncio.set_event_loop(loop)
    try:
        world = World(loop, seed, settings)
        with in_world(world):
            loop.run_until_complete(world.run())
        if failures:
            raise AssertionError(failures[0]["message"]) from failures[0].get("exception")
        return world
    finally:
        loop.set_exception_handler(lambda *_: None)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()


def hold(worlds: int, settings: Settings) -> None:
    """The laws, in so many worlds. A failure names its world."""
    for seed in range(FIRST_SEED, FIRST_SEED + worlds):
        try:
            live(seed, settings)
        except (BrokenLawError, AssertionError) as exc:
            raise AssertionError(f"seed {seed}: {exc}; again with: SIMULATION_FIRST_SEED={seed} SIMULATION_WORLDS=1") from exc


@pytest.mark.timeout(600)
def test_the_laws_hold() -> None:
    hold(WORLDS, SETTINGS)


def test_the_laws_hold_in_a_crowd() -> None:
    hold(min(20, WORLDS), CROWDED)


def test_the_laws_hold_for_what_callers_are_told_over_http() -> None:
    hold(max(1, WORLDS // 10), BY_HTTP)


@pytest.mark.parametrize("settings", [SETTINGS, BY_HTTP])
def test_a_seed_brings_its_world_back(settings: Settings) -> None:
    seeds = range(FIRST_SEED, FIRST_SEED + 60)  # one order of tasks that depends on addresses shows in one of twenty
    first = [live(seed, settings).written for seed in seeds]
    assert all(first)
    assert [live(seed, settings).written for seed in seeds] == first


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_within_a_hundred_worlds(name: str) -> None:
    with PLANTED[name]():
        for seed in range(100):
            try:
                live(seed, NEEDS.get(name, SETTINGS))
            except (BrokenLawError, AssertionError):
                return
    pytest.fail(f"no law noticed in 100 worlds that {name}")
