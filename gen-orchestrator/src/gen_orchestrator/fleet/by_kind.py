"""Two fleets as one: a worker of an image runs in a container, any other as a process."""

import asyncio

from gen_orchestrator.fleet.base import Fleet, OnExit, WorkerSpec


class ByKind:
    """A worker's log is in the fleet that ran it, even after its end."""

    def __init__(self, processes: Fleet, containers: Fleet) -> None:
        self._processes = processes
        self._containers = containers

    async def start(self, spec: WorkerSpec, on_exit: OnExit) -> None:
        await (self._containers if spec.image else self._processes).start(spec, on_exit)

    async def stop(self, worker_id: str, grace_s: float) -> None:
        await asyncio.gather(self._processes.stop(worker_id, grace_s), self._containers.stop(worker_id, grace_s))

    def log_of(self, worker_id: str) -> bytes:
        return self._processes.log_of(worker_id) or self._containers.log_of(worker_id)

    def log_from(self, worker_id: str, offset: int, most: int) -> bytes | None:
        found = self._processes.log_from(worker_id, offset, most)
        return self._containers.log_from(worker_id, offset, most) if found is None else found

    def log_begin(self, worker_id: str) -> int:
        return self._processes.log_begin(worker_id) or self._containers.log_begin(worker_id)

    def log_end(self, worker_id: str) -> int:
        return self._processes.log_end(worker_id) or self._containers.log_end(worker_id)

    async def close(self, grace_s: float) -> None:
        await asyncio.gather(self._processes.close(grace_s), self._containers.close(grace_s))
