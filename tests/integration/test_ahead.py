"""Loading ahead: while nothing runs, models that usually follow are loaded to the device; runs never wait for this."""

import asyncio
import threading
import time

import pytest
from tests.integration.test_several_devices import MB, SPEC, Machine
from tests.property import residency_functions
from tests.waiting import eventually, until

from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, LoadRequest, PartPlan
from gen_worker.residency.manager import LoadedModels
from gen_worker.residency.reader import ReadCanceledError


class SlowLoader:
    """Models of 40 MB that take a while: each piece looks whether somebody still waits."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.loading: list[str] = []
        self.given_up: list[str] = []
        self.stuck: set[str] = set()

    def accepts(self, request: LoadRequest) -> bool:
        return True

    def plan(self, request: LoadRequest) -> LoadPlan:
        device, name = request.device(), request.path.name

        def load(control: LoadControl) -> tuple[object, int]:
            self.loading.append(name)
            until_s = time.monotonic() + self.seconds
            while time.monotonic() < until_s or name in self.stuck:
                if control.cancel.wait(0.001):
                    self.given_up.append(name)
                    raise ReadCanceledError
            return device.new_slab(40 * MB), 40 * MB

        return LoadPlan((PartPlan(f"{name}|{device.name}", 40 * MB, load),), lambda parts: Loaded(name, 40 * MB, lambda: name))


def machine_of(loader: SlowLoader) -> Machine:
    return Machine(1, loader=loader, looks_ahead=True)


async def visit(machine: Machine, key: str) -> str:
    """A short run, and a moment without any; where its model was."""
    run = await machine.run(key)
    machine.end(run)
    await settled(machine.manager)
    return run[2]


def drop(machine: Machine, key: str) -> None:
    """As an eviction does."""
    assert machine.cache.unload_model(_name(key))
    machine.manager.places[0].residency.forget_dropped()


async def settled(manager: LoadedModels) -> None:
    await eventually(lambda: manager.ahead is None or not manager.ahead.is_busy)


def test_what_follows_is_there_before_it_is_asked_for() -> None:
    async def main() -> None:
        machine = machine_of(SlowLoader(0.02))
        states = [await visit(machine, key) for key in "012" * 6]
        assert states[:3] == ["warm_disk"] * 3
        assert states[-6:] == ["hot_vram"] * 6  # of three, two fit: the third has come back each time before it was wanted
        tally = machine.manager.ahead.tally  # type: ignore[union-attr]
        assert tally.used_bytes / tally.loaded_bytes > 0.8
        assert machine.cache.ledger.used_bytes == machine.devices[0].allocated_bytes <= 100 * MB
        machine.manager.close()

    asyncio.run(main())


def test_a_run_that_wants_another_model_does_not_wait() -> None:
    async def main() -> None:
        loader = SlowLoader(0.02)
        machine = machine_of(loader)
        for key in "012" * 6:
            await visit(machine, key)
        drop(machine, "0")
        loader.stuck = {"0"}
        machine.end(await machine.run("2"))
        before = len(loader.loading)
        await eventually(lambda: "0" in loader.loading[before:])
        other = await machine.run("3")  # the load of 0 would never end
        assert loader.given_up[-1] == "0"
        machine.end(other)
        loader.stuck = set()
        machine.manager.close()

    asyncio.run(main())


def test_a_run_that_wants_what_is_coming_joins_the_load() -> None:
    async def main() -> None:
        loader = SlowLoader(0.01)
        machine = machine_of(loader)
        for key in "012" * 6:
            await visit(machine, key)
        loader.seconds = 0.3
        drop(machine, "0")
        machine.end(await machine.run("2"))
        before = len(loader.loading)
        await eventually(lambda: len(loader.loading) != before)
        run = await machine.run("0")
        assert (loader.loading[before:], loader.given_up, run[1].view()) == (["0"], [], "0")
        await settled(machine.manager)
        tally = machine.manager.ahead.tally  # type: ignore[union-attr]
        used = tally.used_bytes
        machine.end(run)
        assert used >= 40 * MB
        machine.end(await machine.run("0"))
        assert tally.used_bytes == used  # counted when it came
        machine.manager.close()

    asyncio.run(main())


def test_what_was_unloaded_stays_off_until_it_is_wanted_again() -> None:
    async def main() -> None:
        machine = machine_of(SlowLoader(0.01))
        for key in "012" * 6:
            await visit(machine, key)
        machine.manager.unload("hf:demo/m0")
        await visit(machine, "2")
        assert not machine.manager.places[0].is_here(_name("0"))
        assert await visit(machine, "0") == "warm_disk"
        machine.manager.close()

    asyncio.run(main())


def test_it_never_takes_what_is_wanted_more() -> None:
    async def main() -> None:
        machine = machine_of(SlowLoader(0.01))
        for key in "012" * 6:
            await visit(machine, key)
        for place in machine.manager.places:
            for key in "12":
                if place.is_here(_name(key)):
                    for _ in range(5000):
                        machine.cache.get_pipeline(place.cache_id(_name(key)))
        here = set(machine.cache.get_vram_models())
        await visit(machine, "2")
        assert set(machine.cache.get_vram_models()) == here
        machine.manager.close()

    asyncio.run(main())


def test_a_model_whose_files_have_gone_is_left_alone() -> None:
    async def main() -> None:
        loader = SlowLoader(0.01)
        machine = machine_of(loader)
        for key in "012" * 6:
            await visit(machine, key)
        plan = loader.plan

        def broken(request: LoadRequest) -> LoadPlan:
            if request.path.name == "0":
                raise FileNotFoundError("gone")
            return plan(request)

        loader.plan = broken  # type: ignore[method-assign]
        assert await visit(machine, "2") in ("hot_vram", "warm_disk")
        assert await visit(machine, "1") in ("hot_vram", "warm_disk")
        machine.manager.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _no_threads_left() -> object:
    before = threading.active_count()
    yield
    until(lambda: threading.active_count() <= before)


def _name(key: str) -> str:
    payload = residency_functions.In(key)
    assert payload.model == key
    return f"hf:demo/m{key}#{SPEC.injections[0].type.__name__}"
