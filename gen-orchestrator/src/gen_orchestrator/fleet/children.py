"""Workers as child processes: their output goes to files, and a callback reports when one has ended."""

import asyncio
from pathlib import Path

from gen_orchestrator.fleet.base import OnExit
from gen_orchestrator.fleet.log_files import LogFiles, keep_bounded
from gen_orchestrator.fleet.reaper import Reaper


class Children:
    """Child processes by worker id. Each worker's output goes to a file in `logs`, which keeps a limited number of bytes."""

    def __init__(self, logs: Path, max_log_bytes: int) -> None:
        self._logs = LogFiles(logs, max_log_bytes)
        self._bounding: asyncio.Task[None] | None = None
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._reaper = Reaper()

    async def stop(self, worker_id: str, grace_s: float) -> None:
        raise NotImplementedError

    def log_of(self, worker_id: str) -> bytes:
        return self._logs.tail(worker_id)

    def log_from(self, worker_id: str, offset: int, most: int) -> bytes | None:
        return self._logs.read(worker_id, offset, most)

    def log_begin(self, worker_id: str) -> int:
        return self._logs.begin(worker_id)

    def log_end(self, worker_id: str) -> int:
        return self._logs.end(worker_id)

    async def close(self, grace_s: float) -> None:
        """Stop all."""
        await asyncio.gather(*(self.stop(worker_id, grace_s) for worker_id in list(self._children)))
        await self._reaper.close()
        if self._bounding is not None:
            self._bounding.cancel()

    def _log_file(self, worker_id: str) -> Path:
        """The log file of a worker that is about to start. The first call starts a task that limits the files."""
        if self._bounding is None:
            self._bounding = asyncio.create_task(keep_bounded(self._logs, self._children), name="worker-logs")
        path = self._logs.path(worker_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    async def _keep(self, worker_id: str, child: asyncio.subprocess.Process, on_exit: OnExit, *, stays: bool) -> None:
        """Watch a new child. `stays`: it outlives this process for a while."""
        self._children[worker_id] = child
        await self._reaper.add(worker_id, child.pid, stays=stays)
        self._waiting[worker_id] = asyncio.create_task(self._wait(worker_id, child, on_exit), name=f"child-{worker_id}")

    async def _wait(self, worker_id: str, child: asyncio.subprocess.Process, on_exit: OnExit) -> None:
        status = await child.wait()
        await self._reaper.ended(worker_id, child.pid)
        await self._clear_up(worker_id)
        self._children.pop(worker_id, None)
        self._waiting.pop(worker_id, None)
        on_exit(worker_id, status)

    async def _clear_up(self, worker_id: str) -> None:
        """Its process has ended, and so has everything that it started."""
