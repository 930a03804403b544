"""Workers, models and requests of the residency simulation. Time is virtual; everything follows from the seed."""

import heapq
import itertools
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from gen_worker.residency.eviction import Candidate, EvictionPolicy
from gen_worker.residency.ledger import DoesNotFitError, Ledger, Part

GB = 10**9


class Model(msgspec.Struct, frozen=True):
    name: str
    size_bytes: int
    run_s: float


class Request(msgspec.Struct, frozen=True):
    """`guess_s` is what a router believes of `run_s`."""

    number: int
    at_s: float
    model: Model
    run_s: float
    guess_s: float


class World(msgspec.Struct, frozen=True, kw_only=True):
    """The machines, after the table in the design: one GPU a worker, host memory under it, a disk that holds every model."""

    workers: int = 8
    vram_bytes: int = round(76.5 * GB)
    host_bytes: int = 96 * GB
    pcie_bytes_s: float = 45e9
    disk_bytes_s: float = 6e9
    fixed_s: float = 0.1


def make_models(count: int, total_bytes: int, dice: random.Random) -> list[Model]:
    """Sizes from 2 to 30 GB that add up to the total; larger models take longer to run."""
    raw = [dice.lognormvariate(0, 0.7) for _ in range(count)]
    scale = total_bytes / sum(raw)
    models = []
    for number, share in enumerate(raw):
        size = min(30e9, max(2e9, share * scale))
        models.append(Model(f"m{number}", round(size), 1.5 + 2.5 * size / 12.9e9))
    dice.shuffle(models)
    return models


def make_requests(
    models: Sequence[Model],
    count: int,
    world: World,
    dice: random.Random,
    *,
    load: float,
    zipf: float,
    hot: float = 0.0,
    error: float = 0.0,
) -> list[Request]:
    """Poisson arrivals, Zipf popularity; `hot` is the share of one model; `error` the log-normal spread of what routers believe."""
    weights = [1 / (rank + 1) ** zipf for rank in range(len(models))]
    if hot:
        rest = sum(weights[1:])
        weights = [hot, *(weight / rest * (1 - hot) for weight in weights[1:])]
    mean_s = sum(w * m.run_s for w, m in zip(weights, models, strict=True)) / sum(weights)
    rate, at_s, requests = load * world.workers / mean_s, 0.0, []
    for number, model in enumerate(dice.choices(models, weights, k=count)):
        at_s += dice.expovariate(rate)
        run_s = model.run_s * dice.lognormvariate(-0.045, 0.3)
        requests.append(Request(number, at_s, model, run_s, run_s * dice.lognormvariate(-error * error / 2, error)))
    return requests


class Router(Protocol):
    """Chooses a worker."""

    def choose(self, request: Request, now_s: float) -> int: ...


class Done(msgspec.Struct, frozen=True):
    """How a request went, in seconds: all of it, and what of it was waiting for the model alone."""

    latency_s: float
    model_wait_s: float
    hit: bool


class Worker:
    """One GPU: a queue in order of arrival, one load at a time beside the running job."""

    def __init__(self, world: World, policy: EvictionPolicy, clock: "Simulation", *, free_loads: bool) -> None:
        self._world = world
        self._free = free_loads
        self._clock = clock
        self.vram = Ledger(lambda: world.vram_bytes, policy, clock.now)
        self.host = Ledger(lambda: world.host_bytes, policy, clock.now)
        self.queue: list[Request] = []
        self.running: Request | None = None
        self.running_until_s = 0.0
        self.loading: Model | None = None
        self.loading_until_s = 0.0
        self.gpu_idle_since_s = 0.0
        self.loads = 0

    def is_resident(self, model: Model) -> bool:
        return self._free or self.vram.are_resident((model.name,))

    def load_s(self, model: Model) -> float:
        on_host = self.host.are_resident((model.name,))
        return self._world.fixed_s + model.size_bytes / (self._world.pcie_bytes_s if on_host else self._world.disk_bytes_s)

    def reload_s(self, model: Model) -> float:
        """What losing it from the device costs: it may stay on the host."""
        return self._world.fixed_s + model.size_bytes / (self._world.pcie_bytes_s if model.size_bytes < self._world.host_bytes else 6e9)

    def begin_load(self, model: Model, ahead: Sequence[Model]) -> bool:
        """Reserve and start; False when what runs and waits ahead holds the room."""
        held = [name for name in {m.name for m in ahead} if self.vram.are_resident((name,))]
        self.vram.pin(held)
        try:
            _, gone = self.vram.reserve([Part(model.name, model.size_bytes, self.reload_s(model))])
        except DoesNotFitError:
            return False
        finally:
            self.vram.unpin(held)
        seconds = self.load_s(model)
        for name in gone:
            self._keep_on_host(name)
        self._keep_on_host(model.name, model)
        self.loading, self.loading_until_s = model, self._clock.now() + seconds
        self.loads += 1
        return True

    def _keep_on_host(self, name: str, model: Model | None = None) -> None:
        model = model or self._clock.models[name]
        if self.host.are_resident((name,)):
            return
        try:
            self.host.reserve([Part(name, model.size_bytes, self._world.fixed_s + model.size_bytes / self._world.disk_bytes_s)])
        except DoesNotFitError:
            return
        self.host.commit(name)
        self.host.unpin((name,))


class Simulation:
    """Runs requests through a router; `done` has one entry a request, in order."""

    def __init__(self, world: World, models: Sequence[Model], policy: EvictionPolicy, *, free_loads: bool = False) -> None:
        self.world = world
        self.models = {model.name: model for model in models}
        self._now_s = 0.0
        self.workers = [Worker(world, policy, self, free_loads=free_loads) for _ in range(world.workers)]
        self.done: dict[int, Done] = {}
        self._hits: dict[int, bool] = {}
        self._free_s: dict[int, float] = {}
        self._order = itertools.count()

    def now(self) -> float:
        return self._now_s

    def run(self, requests: Sequence[Request], router: Router) -> list[Done]:
        """Everything to its end."""
        events: list[tuple[float, int, str, int, Request | None]] = []
        for request in requests:
            heapq.heappush(events, (request.at_s, next(self._order), "arrival", -1, request))
        while events:
            self._now_s, _, kind, number, request = heapq.heappop(events)
            if kind == "arrival" and request is not None:
                number = router.choose(request, self._now_s)
                worker = self.workers[number]
                self._hits[request.number] = worker.is_resident(request.model)
                worker.queue.append(request)
            elif kind == "loaded":
                self._loaded(self.workers[number])
            elif kind == "ended":
                self._ended(self.workers[number])
            self._go_on(self.workers[number], number, events)
        return [self.done[request.number] for request in requests]

    def _loaded(self, worker: Worker) -> None:
        assert worker.loading is not None
        worker.vram.commit(worker.loading.name)
        worker.vram.unpin((worker.loading.name,))
        worker.loading = None

    def _ended(self, worker: Worker) -> None:
        request = worker.running
        assert request is not None
        worker.vram.unpin((request.model.name,))
        worker.running, worker.gpu_idle_since_s = None, self._now_s
        free_s = self._free_s.pop(request.number)
        started_s = self._now_s - request.run_s
        wait_s = max(0.0, started_s - max(free_s, request.at_s))
        self.done[request.number] = Done(self._now_s - request.at_s, wait_s, self._hits.pop(request.number))

    def _go_on(self, worker: Worker, number: int, events: list[tuple[float, int, str, int, Request | None]]) -> None:
        if worker.running is None and worker.queue and worker.is_resident(worker.queue[0].model):
            request = worker.queue.pop(0)
            worker.vram.pin((request.model.name,))
            worker.vram.used((request.model.name,))
            worker.host.used((request.model.name,))
            worker.running, worker.running_until_s = request, self._now_s + request.run_s
            self._free_s[request.number] = worker.gpu_idle_since_s
            heapq.heappush(events, (worker.running_until_s, next(self._order), "ended", number, None))
        if worker.loading is None:
            ahead = [worker.running.model] if worker.running else []
            for request in worker.queue:
                if not worker.is_resident(request.model):
                    if worker.begin_load(request.model, ahead):
                        heapq.heappush(events, (worker.loading_until_s, next(self._order), "loaded", number, None))
                    return
                ahead.append(request.model)


class Belady:
    """Drops what is needed again last, by the whole future; greedy, and not to be had outside a simulation."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.clock: Callable[[], float] = lambda: 0.0
        self._times: dict[str, list[float]] = {}
        for request in requests:
            self._times.setdefault(request.model.name, []).append(request.at_s)

    def choose(self, candidates: Sequence[Candidate], need_bytes: int) -> tuple[str, ...] | None:
        now_s = self.clock()

        def next_use(candidate: Candidate) -> float:
            times = self._times.get(candidate.name, [])
            at = bisect_right(times, now_s)
            return times[at] if at < len(times) else math.inf

        chosen: list[str] = []
        for candidate in sorted(candidates, key=next_use, reverse=True):
            if need_bytes <= 0:
                break
            chosen.append(candidate.name)
            need_bytes -= candidate.size_bytes
        return tuple(chosen) if need_bytes <= 0 else None
