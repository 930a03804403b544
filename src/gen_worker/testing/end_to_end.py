"""Tests a function in its real environment: a real worker process and a real scheduler on 127.0.0.1, behind a plain
Python object.

    with EndToEnd(Path("my-worker")) as endpoint:
        assert endpoint.run("generate", {"prompt": "world"}) == {"text": "Hello, world!"}
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from gen_worker.scratch import scratch_folder
from gen_worker.testing.file_server import FileServer
from gen_worker.testing.loopback import LoopbackRun, LoopbackScheduler, RunFailedError

T = TypeVar("T")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
LOG_TIMEOUT_S = 2.0
TOKEN = "end-to-end"  # noqa: S105 - opens nothing but this test's own servers on loopback


class EndToEnd:
    """One endpoint's worker, started on entry and stopped on exit. `models` maps model keys to local folders."""

    def __init__(self, folder: Path, *, models: Mapping[str, Path] | None = None, env: Mapping[str, str] | None = None) -> None:
        self._folder = folder.resolve()
        self._models = models or {}
        self._env = env or {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="end-to-end", daemon=True)
        self._resources = contextlib.ExitStack()
        self._scratch = self._resources.enter_context(scratch_folder("end-to-end"))
        self.files = FileServer(self._scratch / "files", token=TOKEN)
        self.scheduler = LoopbackScheduler()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.files.start()
        try:
            self._await(self.scheduler.start())
            self.scheduler.file_api = (self.files.base_url, TOKEN)
            self._start_worker()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._await(self.scheduler.stop())
        self.files.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._resources.close()

    def run(self, function: str, payload: Any = None, *, timeout_s: float = 60, **options: Any) -> Any:
        """The output of a run; `RunFailedError` with the worker's result when it fails."""
        return self._explained(self.scheduler.call(function, payload, timeout_s=timeout_s, **options))

    def stream(self, function: str, payload: Any = None, *, timeout_s: float = 60, **options: Any) -> list[Any]:
        """All deltas of a streaming function."""

        async def follow() -> list[Any]:
            run = await self.scheduler.start_run(function, payload, **options)
            async with asyncio.timeout(timeout_s):
                return [delta async for delta in run.deltas()]

        return self._explained(follow())

    def run_with_events(self, function: str, payload: Any = None, *, timeout_s: float = 60, **options: Any) -> LoopbackRun:
        """The ended run itself, with its events and its result, whether it succeeded or not."""

        async def follow() -> LoopbackRun:
            run = await self.scheduler.start_run(function, payload, **options)
            await run.result(timeout_s)
            return run

        return self._await(follow())

    def saved(self, ref: str) -> bytes:
        """The content of a file saved by a run."""
        path = self.files.path_of(ref)
        if path is None or not path.is_file():
            raise FileNotFoundError(f"no run has saved {ref!r}")
        return path.read_bytes()

    @property
    def log(self) -> str:
        """The worker's log."""
        return (self._scratch / "worker.log").read_text(errors="replace")

    def _start_worker(self) -> None:
        overrides = ",".join(f"{key}={path}" for key, path in self._models.items())
        env = {
            **os.environ,
            "SCHEDULER_PUBLIC_ADDR": self.scheduler.address,
            "WORKER_JWT": TOKEN,
            "GEN_WORKER_ENDPOINT_ROOT": str(self._folder),
            **({"COZY_MODEL_OVERRIDES": overrides} if overrides else {}),
            **self._env,
        }
        with (self._scratch / "worker.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gen_worker.entrypoint"], cwd=self._folder, env=env, stdout=log, stderr=log
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self.scheduler.workers:
            if self.process.poll() is not None:
                raise RuntimeError(f"the worker ended with status {self.process.returncode}:\n{self.log[-4000:]}")
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the worker did not register within {START_TIMEOUT_S:.0f} s:\n{self.log[-4000:]}")
            time.sleep(0.01)

    def _explained(self, work: Coroutine[Any, Any, T]) -> T:
        """Like `_await`; if the run failed unexpectedly, the exception carries the worker's traceback as a note."""
        try:
            return self._await(work)
        except RunFailedError as exc:
            if exc.result.error_type == "internal" and (trace := self._trace_of(exc.result.run_id)):
                exc.add_note(trace)
            raise

    def _trace_of(self, run_id: str) -> str:
        deadline_s = time.monotonic() + LOG_TIMEOUT_S  # the worker sends the result first and logs afterwards
        while time.monotonic() < deadline_s:
            for line in self.log.splitlines():
                if run_id in line and line.startswith("{") and line.endswith("}"):
                    facts = msgspec.json.decode(line, type=dict[str, Any])
                    if facts.get("run_id") == run_id and isinstance(facts.get("traceback"), str):
                        return str(facts["traceback"])
            time.sleep(0.01)
        return ""

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
