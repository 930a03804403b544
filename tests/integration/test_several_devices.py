"""Several devices in one worker: each run is sent to one of them, with all its models."""

import asyncio
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.property import residency_functions

from gen_worker.errors import ResourceError
from gen_worker.events import RunEvent
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.executor import Executor
from gen_worker.execution.request import RunRequest
from gen_worker.files.inputs import InputFiles
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.log import Log
from gen_worker.project.discovery import read_specs
from gen_worker.refs import ModelSpec
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.devices import CONTEXT_BYTES, DeviceSet, model_cache, pick_devices
from gen_worker.residency.loaders.base import LoadControl, Loaded, Loader, LoadPlan, LoadRequest, PartPlan
from gen_worker.residency.manager import LoadedModels
from gen_worker.residency.place import Lease, form_name
from gen_worker.residency.seat import Seat
from gen_worker.settings import DeviceSettings, RunLimits
from gen_worker.sources.keyspace import Keyspace
from gen_worker.sources.source import OverrideSource
from gen_worker.testing.fakes import FakeDevice

MB = 10**6
SPEC = read_specs([residency_functions])[0]


class SlabLoader:
    """Models of 40 MB, each one part, which holds a real slab of its device."""

    def accepts(self, request: LoadRequest) -> bool:
        return True

    def plan(self, request: LoadRequest) -> LoadPlan:
        device = request.device()

        def load(control: LoadControl) -> tuple[Any, int]:
            return device.new_slab(40 * MB), 40 * MB

        part = PartPlan(f"{request.path.name}|{device.name}", 40 * MB, load)
        return LoadPlan((part,), lambda parts: Loaded(device.name, 40 * MB, lambda: device.name))


class Machine:
    """A manager over fake devices of 100 MB."""

    def __init__(self, devices: int, *, loader: Loader | None = None, looks_ahead: bool = False, measured: Path | None = None) -> None:
        self.devices = [FakeDevice(100 * MB, name=f"gpu:{number}") for number in range(devices)]
        self.cache = ModelCache(max_vram_gb=0.1)
        for _ in range(devices - 1):
            self.cache.add_ledger(0.1)
        keys = {str(n): ModelSpec(f"hf:demo/m{n}") for n in range(6)}
        paths = {str(n): Path(f"/models/{n}") for n in range(6)}
        self.found = DeviceSet(lambda: self.devices)
        self.manager = LoadedModels(
            Keyspace({SPEC.name: keys}),
            OverrideSource(paths),
            self.cache,
            self.found,
            Log(io.StringIO()),
            [loader or SlabLoader()],
            margin_bytes=CONTEXT_BYTES,
            looks_ahead=looks_ahead,
            measured=measured,
        )

    async def run(self, key: str) -> tuple[Seat, Lease, str]:
        """A run that has its model and goes on."""
        payload = residency_functions.In(key)
        seat = self.manager.seat(SPEC, payload)
        lease, use = await self.manager.acquire(SPEC, SPEC.injections[0], payload, lambda event: None, {}, seat)
        return seat, lease, use.cache_state

    def end(self, run: tuple[Seat, Lease, str]) -> None:
        run[0].release()
        run[1].release()


class Sink:
    ready = True

    def emit(self, event: RunEvent) -> None: ...

    def emit_all(self, all_events: list[RunEvent]) -> None: ...

    def on_ready(self, callback: Callable[[], None]) -> None:
        callback()


def test_models_spread_and_runs_follow_them() -> None:
    async def main() -> None:
        machine = Machine(2)
        first = await machine.run("0")  # nobody knows yet how many devices there are
        assert (first[0].place.number, first[0].device_name, machine.found.count) == (0, None, 2)
        machine.end(first)
        places = {}
        for key in ("1", "2", "3"):
            run = await machine.run(key)
            places[key] = run[0].place.number
            assert run[1].view() == run[0].device_name == f"gpu:{places[key]}"
            machine.end(run)
        assert sorted([0, *places.values()]) == [0, 0, 1, 1]  # two of 40 MB fit on each
        for key, place in places.items():
            run = await machine.run(key)
            assert (run[0].place.number, run[2]) == (place, "hot_vram")
            machine.end(run)
        assert [device.allocated_bytes for device in machine.devices] == [80 * MB, 80 * MB]
        stats = machine.cache.get_stats()
        assert (stats.vram_used_gb, stats.vram_total_gb, len(stats.vram_models)) == pytest.approx((0.16, 0.2, 4))
        machine.manager.close()

    asyncio.run(main())


def test_what_came_to_a_device_counts_for_the_run_that_brought_it() -> None:
    async def main() -> None:
        machine = Machine(1)
        both = await asyncio.gather(machine.run("0"), machine.run("0"))
        assert sorted(run[1].loaded_bytes for run in both) == [0, 40 * MB], "once, however many waited for it"
        again = await machine.run("0")
        assert (again[2], again[1].loaded_bytes) == ("hot_vram", 0)
        for run in (*both, again):
            machine.end(run)
        machine.manager.close()

    asyncio.run(main())


def test_a_model_that_many_want_is_on_both_and_each_run_keeps_its_own() -> None:
    async def main() -> None:
        machine = Machine(2)
        machine.end(await machine.run("0"))
        machine.manager.note_run(SPEC.name, 60.0)
        runs = [await machine.run("0") for _ in range(6)]
        by_place = [sum(run[0].place.number == number for run in runs) for number in range(2)]
        assert by_place == [3, 3]
        with pytest.raises(ResourceError, match="model_in_use"):
            machine.manager.unload("hf:demo/m0")
        # Room on one device never takes from the other, and what runs use stays.
        other = await machine.run("1")
        third = await machine.run("2")
        assert {other[0].place.number, third[0].place.number} == {0, 1}
        assert all(run[1].view() == f"gpu:{run[0].place.number}" for run in runs)
        for run in (*runs, other, third):
            machine.end(run)
        for key in range(3):
            assert machine.manager.unload(f"hf:demo/m{key}")
        assert [ledger.used_bytes for ledger in machine.cache.ledgers] == [0, 0]
        assert machine.cache.get_vram_models() == []
        assert [place.runs for place in machine.manager.places] == [0, 0]
        machine.manager.close()

    asyncio.run(main())


def test_a_tokenizer_that_stayed_does_not_stand_for_its_model() -> None:
    async def main() -> None:
        machine = Machine(2)
        machine.end(await machine.run("0"))
        place, form = machine.manager.places[0], form_name("hf:demo/m0", SPEC.injections[0].type)
        tokenizer = LoadRequest(str, Path("/models/0"), place.device, (), model_id="hf:demo/m0")
        (await place.lease(form_name("hf:demo/m0", str), tokenizer, [SlabLoader()], None)).release()
        assert place.offer([form]).missing_s == 0
        assert machine.cache.unload_model(form)
        place.residency.forget_dropped()
        assert place.offer([form]).missing_s > 0
        assert place.offer([form_name("hf:demo/m0", str)]).missing_s == 0
        machine.manager.close()

    asyncio.run(main())


def test_what_another_process_holds_is_not_ours() -> None:
    async def main() -> None:
        machine = Machine(1)
        machine.end(await machine.run("0"))
        machine.devices[0].taken_bytes = 50 * MB
        machine.end(await machine.run("1"))  # 40 of the 50 that are left: the other has to go
        assert machine.devices[0].allocated_bytes == machine.cache.ledger.used_bytes == 40 * MB
        assert len(machine.cache.get_vram_models()) == 1
        assert machine.manager.places[0].residency.ooms == 0  # it was known beforehand
        machine.devices[0].taken_bytes = 0
        machine.end(await machine.run("0"))
        assert len(machine.cache.get_vram_models()) == 2
        machine.manager.close()

    asyncio.run(main())


def test_the_context_says_where_a_runs_models_are(tmp_path: Path) -> None:
    pytest.importorskip("torch")

    async def main() -> None:
        machine = Machine(2)
        for number, device in enumerate(machine.devices):
            device.name = f"cpu:{number}"  # names that torch knows
        inputs = InputFiles(tmp_path, None, max_bytes=0, retries=0)
        executor = Executor(machine.manager, inputs, RunLimits(), Log(io.StringIO()))
        spec = msgspec.structs.replace(SPEC, function=lambda ctx, payload, engine: residency_functions.In(f"{engine} {ctx.device}"))
        seen = []
        for key in ("0", "1", "2", "1"):
            request = RunRequest("r", msgspec.json.encode({"model": key}))
            outcome = await executor.run(spec, request, Sink(), CancelToken(), LocalOutputs(tmp_path))
            seen.append(msgspec.json.decode(outcome.output)["model"])
        assert seen[1:] == ["cpu:1 cpu:1", "cpu:0 cpu:0", "cpu:1 cpu:1"]  # before the first one, nobody knew of two devices
        assert [place.runs for place in machine.manager.places] == [0, 0]
        executor.close()
        machine.manager.close()

    asyncio.run(main())


def test_books_of_each_gpu() -> None:
    assert [ledger.capacity_bytes for ledger in model_cache(DeviceSettings.from_env({}), [24 * 10**9, 80 * 10**9]).ledgers] == [
        20_500_000_000,
        76_500_000_000,
    ]
    assert [
        ledger.capacity_bytes for ledger in model_cache(DeviceSettings.from_env({"WORKER_DEVICE": "cuda:1"}), [1, 24 * 10**9]).ledgers
    ] == [20_500_000_000]
    assert [
        ledger.capacity_bytes for ledger in model_cache(DeviceSettings.from_env({"WORKER_MAX_VRAM_GB": "8"}), [10**10] * 3).ledgers
    ] == [8 * 10**9] * 3
    assert len(model_cache(DeviceSettings.from_env({})).ledgers) == 1


def test_devices_that_are_named() -> None:
    assert pick_devices(DeviceSettings.from_env({"WORKER_DEVICE": "cuda:1, cuda:3"})) == ("cuda:1", "cuda:3")
    assert pick_devices(DeviceSettings.from_env({"WORKER_TORCH_DEVICE": "cpu", "WORKER_DEVICE": "cuda"})) == ("cpu",)


def test_the_devices_are_looked_for_once() -> None:
    looked = threading.Semaphore(1)

    def find() -> list[FakeDevice]:
        assert looked.acquire(blocking=False)
        return [FakeDevice(1, name="a"), FakeDevice(1, name="b")]

    found = DeviceSet(find)
    assert (found.count, found.used(0)) == (1, None)
    threads = [threading.Thread(target=found.get, args=(number % 2,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found.count, found.get(1).name) == (2, "b")
