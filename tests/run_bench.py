"""An executor made of real parts, and a caller that records what it hears about its runs."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from gen_worker import Asset, Batch, worker_function, worker_websocket
from gen_worker.authoring.signature import FunctionSpec, read_signature
from gen_worker.events import RunEvent
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.executor import Executor
from gen_worker.execution.payloads import Encoding
from gen_worker.execution.request import RunRequest
from gen_worker.files.inputs import InputFiles
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.log import Log
from gen_worker.net.guard import GuardedDownloader
from gen_worker.outcome import Outcome
from gen_worker.settings import RunLimits
from tests.integration.test_several_devices import SPEC, Machine
from tests.property import residency_functions

Engine = residency_functions.Engine
Wrap = Callable[[str, Any], Any]  # puts something of the test's around a part, given its name
DATA_URI = "data:text/plain;base64,aGVsbG8="


class Heard:
    """What a caller hears of one run."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []
        self.outcomes: list[Outcome] = []
        self.releases = 0
        self.late = 0  # events that came after the outcome
        self.ready = True
        self.early: list[tuple[Outcome, list[RunEvent]]] = []  # what a thread has told, before the loop did
        self.end = asyncio.Event()
        self.release = asyncio.Event()
        self.token = CancelToken()

    @property
    def kinds(self) -> list[str]:
        return [event.event_type for event in self.events]

    @property
    def outcome(self) -> Outcome:
        (outcome,) = self.outcomes
        return outcome

    def emit_all(self, batch: list[RunEvent]) -> None:
        self.events += batch
        self.late += len(batch) if self.outcomes else 0

    def on_ready(self, callback: Callable[[], None]) -> None:
        callback()

    def answer(self, outcome: Outcome, ending: list[RunEvent], before: Callable[[], None]) -> None:
        before()
        self.early.append((outcome, ending))

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.end.set()

    def released(self) -> None:
        self.releases += 1
        self.release.set()


class Bench:
    """An executor with one fake device of 100 MB, models of 40 MB under the keys "0" to "5", and files in a folder of its own."""

    def __init__(self, folder: Path, parts: Wrap = lambda name, part: part, downloader: GuardedDownloader | None = None) -> None:
        self.machine = Machine(1)
        self.run_dir = folder / "runs"
        self.logged = io.StringIO()
        self.outputs = LocalOutputs(folder / "outputs")
        self._wrap = parts
        self.answers_early = False
        inputs = InputFiles(self.run_dir, lambda ref: None, max_bytes=0, retries=0, downloader=downloader)
        self.executor = Executor(
            parts("models", self.machine.manager), parts("inputs", inputs), RunLimits(), parts("log", Log(self.logged))
        )

    def start(self, spec: FunctionSpec, payload: Any, run_id: str = "r", encoding: Encoding = "json", **options: Any) -> Heard:
        heard = Heard()
        data = (msgspec.json if encoding == "json" else msgspec.msgpack).encode(payload)
        request = RunRequest(run_id, data, encoding, **options)
        wrap = self._wrap
        early = wrap("early", heard) if self.answers_early else None
        self.executor.start(spec, request, wrap("hooks", heard), wrap("token", heard.token), wrap("outputs", self.outputs), early)
        return heard

    async def run(self, spec: FunctionSpec, payload: Any, run_id: str = "r", encoding: Encoding = "json", **options: Any) -> Heard:
        """A run whose end and release are awaited."""
        heard = self.start(spec, payload, run_id, encoding, **options)
        async with asyncio.timeout(10):
            await heard.end.wait()
            await heard.release.wait()
        return heard

    @property
    def pins(self) -> int:
        """Leases that nobody has given back."""
        return sum(self.machine.cache.is_pinned(name) for name in self.machine.cache.get_vram_models())

    def left_files(self) -> list[str]:
        return sorted(path.name for path in self.run_dir.iterdir()) if self.run_dir.exists() else []


@asynccontextmanager
async def bench(folder: Path, parts: Wrap = lambda name, part: part, downloader: GuardedDownloader | None = None) -> AsyncIterator[Bench]:
    made = Bench(folder, parts, downloader)
    try:
        yield made
    finally:
        made.executor.close()
        made.machine.manager.close()


class In(msgspec.Struct):
    model: str = "0"
    text: str = ""
    count: int = 3
    seconds: float = 0.0


class WithFile(msgspec.Struct):
    image: Asset
    model: str = "0"
    text: str = ""


class Out(msgspec.Struct):
    text: str
    value: float | None = None


def action(function: Any) -> FunctionSpec:
    """How a worker reads a function that is defined in a test. One with a model has the name that the bench has models for."""
    spec = read_signature(worker_function()(function), function.__module__)
    return msgspec.structs.replace(spec, name=SPEC.name) if spec.injections else spec


def session_of(function: Any) -> FunctionSpec:
    """The same for a websocket handler."""
    spec = read_signature(worker_websocket()(function), function.__module__)
    return msgspec.structs.replace(spec, name=SPEC.name) if spec.injections else spec


def batched(function: Any, max_wait_ms: int = 1) -> FunctionSpec:
    return read_signature(worker_function(batch=Batch(max_size=2, max_wait_ms=max_wait_ms))(function), function.__module__)
