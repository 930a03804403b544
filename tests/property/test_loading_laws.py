"""Laws of loading: the manager's loads and leases agree with its devices, in any order of events."""

import asyncio
import io
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.property import residency_functions
from tests.waiting import until

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import WorkerError
from gen_worker.log import Log
from gen_worker.project.discovery import read_specs
from gen_worker.refs import ModelSpec
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.device import DeviceFullError
from gen_worker.residency.devices import DeviceSet
from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, LoadRequest, PartPlan
from gen_worker.residency.manager import LoadedModels
from gen_worker.residency.place import Lease
from gen_worker.residency.reader import ReadCanceledError
from gen_worker.residency.seat import Seat
from gen_worker.sources.keyspace import Keyspace
from gen_worker.sources.source import OverrideSource
from gen_worker.testing.fakes import FakeDevice


class _Gate:
    def __init__(self) -> None:
        self.event = threading.Event()
        self.outcome = "ok"


class _GatedLoader:
    """Models of two parts, one of them shared by all; each load waits until the test lets it end."""

    def __init__(self) -> None:
        self.gates: dict[str, _Gate] = {}
        self.loading: Counter[str] = Counter()
        self.most_at_once = 0
        self.lock = threading.Lock()

    def accepts(self, request: LoadRequest) -> bool:
        return True

    def plan(self, request: LoadRequest) -> LoadPlan:
        number = int(request.path.name)
        device: Any = request.device()
        parts = (self._part("shared", 10, device), self._part(f"own{number}", 15 + 5 * number, device))
        return LoadPlan(parts, lambda loaded: Loaded(dict(loaded), 0, lambda: dict(loaded)))

    def _part(self, what: str, size: int, device: FakeDevice) -> PartPlan:
        name = f"{what} on {device.name}"

        def load(control: LoadControl) -> tuple[Any, int]:
            gate = _Gate()
            with self.lock:
                self.gates[name] = gate
                self.loading[name] += 1
                self.most_at_once = max(self.most_at_once, self.loading[name])
            try:
                while not gate.event.wait(0.001):
                    if control.cancel.is_set():
                        raise ReadCanceledError
                if gate.outcome == "broken":
                    raise ValueError("a broken file")
                if gate.outcome == "full":
                    raise DeviceFullError(size)
                return device.new_slab(size), size
            finally:
                with self.lock:
                    self.loading[name] -= 1
                    if self.gates.get(name) is gate:
                        del self.gates[name]

        return PartPlan(name, size, load)


class ResidencyMachine(RuleBasedStateMachine):
    """Runs that come, give up and end, over loads that succeed, break and run out of memory, on devices of 60 bytes.

    Loads have real threads, so what there is at a step depends on time. What is drawn must not: each rule draws a number and picks by it.
    """

    count = 1

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.devices = [FakeDevice(200, name=f"gpu:{number}") for number in range(self.count)]
        self.loader = _GatedLoader()
        self.cache = ModelCache(max_vram_gb=60e-9)
        for _ in self.devices[1:]:
            self.cache.add_ledger(60e-9)
        spec: FunctionSpec = read_specs([residency_functions])[0]
        self.spec, self.injection = spec, spec.injections[0]
        keys = {str(n): ModelSpec(f"hf:demo/m{n}") for n in range(5)}
        paths = {str(n): Path(f"/models/{n}") for n in range(5)}
        self.manager = self.loop.run_until_complete(self._manager({spec.name: keys}, paths))
        self.waiting: list[asyncio.Task[Any]] = []
        self.leases: list[tuple[Seat, Lease]] = []

    async def _manager(self, keys: Any, paths: Any) -> LoadedModels:
        devices = DeviceSet(lambda: self.devices)
        return LoadedModels(Keyspace(keys), OverrideSource(paths), self.cache, devices, Log(io.StringIO()), [self.loader])

    def settle(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0.01))  # waits: nothing; loads go on in threads, and the laws hold at any moment
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if not task.cancelled() and task.exception() is None:
                self.leases.append(task.result())
            elif not task.cancelled():
                assert isinstance(task.exception(), WorkerError), task.exception()

    @rule(number=st.integers(0, 4))
    def run_comes(self, number: int) -> None:
        payload = residency_functions.In(str(number))
        self.waiting.append(self.loop.create_task(self._run(payload)))
        self.settle()

    async def _run(self, payload: Any) -> tuple[Seat, Lease]:
        seat = self.manager.seat(self.spec, payload)
        try:
            return seat, (await self.manager.acquire(self.spec, self.injection, payload, lambda event: None, {}, seat))[0]
        except BaseException:
            seat.release()
            raise

    def _end(self, number: int) -> None:
        for held in self.leases.pop(number):
            held.release()

    @rule(pick=st.integers(0, 59))
    def run_gives_up(self, pick: int) -> None:
        if self.waiting:
            self.waiting[pick % len(self.waiting)].cancel()
            self.settle()

    @rule(pick=st.integers(0, 59), outcome=st.sampled_from(["ok", "ok", "ok", "broken", "full"]))
    def load_ends(self, pick: int, outcome: str) -> None:
        with self.loader.lock:
            names = sorted(self.loader.gates)
            if not names:
                return
            gate = self.loader.gates[names[pick % len(names)]]
        gate.outcome = outcome
        gate.event.set()
        self.settle()

    @rule(pick=st.integers(0, 59))
    def run_ends(self, pick: int) -> None:
        if self.leases:
            self._end(pick % len(self.leases))
            self.settle()

    @rule(number=st.integers(0, 4))
    def unload(self, number: int) -> None:
        try:
            self.manager.unload(f"hf:demo/m{number}")
        except WorkerError:
            assert self.leases

    @invariant()
    def books_and_device_agree(self) -> None:
        assert all(ledger.used_bytes <= 60 for ledger in self.cache.ledgers)
        assert self.loader.most_at_once <= 1
        assert all(device.allocated_bytes <= 200 for device in self.devices)
        for seat, lease in self.leases:
            assert len(parts := lease.view()) == 2  # its parts are here, both on its run's device
            assert all(name.endswith(f"gpu:{seat.place.number}") for name in parts)
        assert sum(place.runs for place in self.manager.places) == len(self.leases) + len(self.waiting)

    def _all_unloaded(self) -> bool:
        """Loads that nobody waits for any more end in their own time, and may keep what they have until then."""
        self.settle()
        try:
            for number in range(5):
                self.manager.unload(f"hf:demo/m{number}")
        except WorkerError:
            return False
        return not any(self.loader.loading.values())

    def teardown(self) -> None:
        for task in self.waiting:
            task.cancel()
        for _ in range(200):
            self.settle()
            with self.loader.lock:
                for gate in self.loader.gates.values():
                    gate.event.set()
            if not self.waiting and not self.loader.gates:
                break
        assert not self.waiting, "a waiter never ended"
        while self.leases:
            self._end(-1)
        self.settle()
        until(self._all_unloaded)
        # Parts that no model holds any more: loads whose waiters had all gone, and the shared one.
        for ledger, place in zip(self.cache.ledgers, self.manager.places, strict=True):
            ledger.evict(60)
            place.residency.forget_dropped()
            assert ledger.used_bytes == place.runs == 0
        self.manager.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.devices[0].collect()
        assert all(device.allocated_bytes == 0 for device in self.devices)


class TwoDevicesMachine(ResidencyMachine):
    count = 2


_OFTEN = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
TestResidency = ResidencyMachine.TestCase
TestResidency.settings = _OFTEN
TestTwoDevices = TwoDevicesMachine.TestCase
TestTwoDevices.settings = settings(_OFTEN, max_examples=10)
