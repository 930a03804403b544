"""Ways to choose a worker. The time estimate counts its own assignments between heartbeats."""

import hashlib
import random
from collections.abc import Sequence

from residency.world import Request, Simulation, Worker


class RandomRouter:
    def __init__(self, simulation: Simulation, dice: random.Random) -> None:
        self._workers, self._dice = simulation.workers, dice

    def choose(self, request: Request, now_s: float) -> int:
        return self._dice.randrange(len(self._workers))


class LeastLoaded:
    """Fewest seconds of work ahead."""

    def __init__(self, simulation: Simulation, dice: random.Random) -> None:
        self._workers = simulation.workers

    def choose(self, request: Request, now_s: float) -> int:
        return min(range(len(self._workers)), key=lambda n: (_rest_s(self._workers[n], now_s), _rank(request, n)))


class Affinity:
    """Whoever has the model, however busy; else the least loaded."""

    def __init__(self, simulation: Simulation, dice: random.Random) -> None:
        self._workers = simulation.workers

    def choose(self, request: Request, now_s: float) -> int:
        holders = [n for n, worker in enumerate(self._workers) if _has(worker, request)]
        return min(holders or range(len(self._workers)), key=lambda n: (_rest_s(self._workers[n], now_s), _rank(request, n)))


class _Picture:
    """A worker as its last heartbeat described it, and what was given to it since."""

    def __init__(self) -> None:
        self.at_s = float("-inf")
        self.free_s = 0.0
        self.link_s = 0.0
        self.models: set[str] = set()
        self.host: set[str] = set()


class TimeEstimate:
    """Least `max(queue, link backlog + load) + run`, plus `harm` x what the evictions would cost others. Ties by rendezvous hash."""

    def __init__(self, simulation: Simulation, dice: random.Random, *, heartbeat_s: float = 0.0, harm: float = 0.0) -> None:
        self._simulation = simulation
        self._heartbeat_s = heartbeat_s
        self._harm = harm
        self._pictures = [_Picture() for _ in simulation.workers]
        for picture in self._pictures:  # not all at once
            picture.at_s = dice.uniform(-heartbeat_s, 0) if heartbeat_s else float("-inf")

    def choose(self, request: Request, now_s: float) -> int:
        for picture, worker in zip(self._pictures, self._simulation.workers, strict=True):
            if now_s - picture.at_s >= self._heartbeat_s:
                self._refresh(picture, worker, now_s)
        best = min(range(len(self._pictures)), key=lambda n: (self._cost(n, request, now_s), _rank(request, n)))
        self._count(self._pictures[best], request, now_s)
        return best

    def _refresh(self, picture: _Picture, worker: Worker, now_s: float) -> None:
        picture.at_s = now_s
        picture.free_s = now_s + _rest_s(worker, now_s)
        waiting = [r.model for r in worker.queue if not worker.is_resident(r.model) and r.model is not worker.loading]
        picture.link_s = max(now_s, worker.loading_until_s if worker.loading else 0.0)
        picture.link_s += sum(worker.load_s(model) for model in {m.name: m for m in waiting}.values())
        names = self._simulation.models
        picture.models = {name for name in names if worker.vram.size_of(name)} | {r.model.name for r in worker.queue}
        picture.host = {name for name in names if worker.host.are_resident((name,))}

    def _ready_s(self, number: int, request: Request, now_s: float) -> float:
        picture, world = self._pictures[number], self._simulation.world
        if request.model.name in picture.models:
            return 0.0
        rate = world.pcie_bytes_s if request.model.name in picture.host else world.disk_bytes_s
        return max(now_s, picture.link_s) + world.fixed_s + request.model.size_bytes / rate

    def _cost(self, number: int, request: Request, now_s: float) -> float:
        picture = self._pictures[number]
        start_s = max(now_s, picture.free_s, self._ready_s(number, request, now_s))
        harm_s = 0.0
        if self._harm and request.model.name not in picture.models:
            worker = self._simulation.workers[number]
            for name in worker.vram.plan(request.model.size_bytes) or ():
                victim = self._simulation.models[name]
                elsewhere = any(name in other.models for at, other in enumerate(self._pictures) if at != number)
                harm_s += worker.reload_s(victim) * (0.3 if elsewhere else 1.0)
        return start_s + request.guess_s + self._harm * harm_s

    def _count(self, picture: _Picture, request: Request, now_s: float) -> None:
        number = self._pictures.index(picture)
        ready_s = self._ready_s(number, request, now_s)
        picture.link_s = max(picture.link_s, ready_s)
        picture.free_s = max(now_s, picture.free_s, ready_s) + request.guess_s
        picture.models.add(request.model.name)


def _rest_s(worker: Worker, now_s: float) -> float:
    running = max(0.0, worker.running_until_s - now_s) if worker.running else 0.0
    return running + sum(request.guess_s for request in worker.queue)


def _has(worker: Worker, request: Request) -> bool:
    return worker.is_resident(request.model) or any(r.model is request.model for r in worker.queue)


def _rank(request: Request, number: int) -> bytes:
    return hashlib.blake2b(f"{request.model.name}|{number}".encode(), digest_size=8).digest()


ROUTERS: Sequence[str] = ("random", "least loaded", "affinity", "eta")
