"""The one path of every run, in development and in production: payload, files, models, call, outcome. `Run` draws its life."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gen_worker.authoring.context import OutputStore
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.clock import Clock, SystemClock
from gen_worker.events import RunEvent
from gen_worker.execution.batching import Batchers
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.early_end import EarlyAnswer
from gen_worker.execution.mailbox import Mailbox
from gen_worker.execution.outputs import OutputLimits
from gen_worker.execution.payload_desk import PayloadDesk
from gen_worker.execution.request import RunHooks, RunRequest, RunSink
from gen_worker.execution.run import Run
from gen_worker.execution.run_parts import RunParts
from gen_worker.execution.stuck import StuckAfter, StuckWatch
from gen_worker.execution.tenant_loop import TenantLoop
from gen_worker.execution.threads import RunThreads
from gen_worker.files.inputs import InputFiles
from gen_worker.log import Log
from gen_worker.outcome import Outcome, failure_of
from gen_worker.residency.manager import LoadedModels
from gen_worker.settings import RunLimits


class Executor:
    """Runs functions. One for each worker. Lives on the event loop that was running when it was built."""

    def __init__(
        self,
        models: LoadedModels,
        inputs: InputFiles,
        limits: RunLimits,
        log: Log,
        *,
        clock: Clock | None = None,
        device: str | None = None,
        stuck_after: StuckAfter | None = None,
    ) -> None:
        self.models = models
        self.device = device
        self.mailbox = Mailbox(asyncio.get_running_loop())
        self.threads = RunThreads(self.mailbox, log)
        self.tenant = TenantLoop(self.mailbox, log)
        self.max_input_bytes = limits.worker_max_input_bytes
        self._stuck = StuckWatch(stuck_after or StuckAfter(), log)
        self._desk = PayloadDesk(limits.worker_max_input_bytes, self.threads)
        self._background: set[asyncio.Task[None]] = set()
        self._parts = RunParts(
            models,
            inputs,
            log,
            clock or SystemClock(),
            device,
            self.mailbox,
            self.threads,
            self.tenant,
            self._stuck,
            Batchers(self.threads, self.tenant),
            OutputLimits(limits.worker_max_output_bytes, limits.worker_max_output_delta_bytes, limits.worker_max_output_delta_events),
            self._desk,
            self._in_background,
        )

    def start(
        self,
        spec: FunctionSpec,
        request: RunRequest,
        hooks: RunHooks,
        token: CancelToken,
        outputs: OutputStore,
        early: EarlyAnswer | None = None,
    ) -> None:
        """Run a function to its end. Never raises for errors of the function, its models or its input: they go to
        `hooks.ended`, possibly before this returns. `early` may get a result even before, in the author's thread.
        """
        Run(self._parts, spec, request, hooks, token, outputs, early).start()

    async def run(self, spec: FunctionSpec, request: RunRequest, sink: RunSink, token: CancelToken, outputs: OutputStore) -> Outcome:
        """Like `start`, but awaits the outcome. When the caller is cancelled, so is the run."""
        hooks = _Awaited(sink, self.mailbox.loop)
        self.start(spec, request, hooks, token, outputs)
        try:
            return await hooks.outcome
        except asyncio.CancelledError:
            token.cancel()
            raise

    @property
    def calling(self) -> int:
        """How many calls of authors' functions are running. Callable from any thread."""
        return self.threads.busy + self.tenant.busy

    def close(self) -> None:
        """End idle threads, the tenant loop, and running downloads."""
        for task in self._background:
            task.cancel()
        self.threads.close()
        self.tenant.close()
        self._stuck.close()
        self._desk.close()

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start a task that fetches files and models of a run, or makes room after it. The task belongs to the
        executor; its errors end nothing else.
        """
        task = self.mailbox.loop.create_task(self._contained(work, name), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _contained(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001 - SystemExit from a loader would end the loop
            failure = failure_of(exc)
            self._parts.log.error("run.background_broken", task=name, error=failure.outcome.error_message, traceback=failure.trace)


class _Awaited:
    """Hooks for a caller that awaits the outcome."""

    def __init__(self, sink: RunSink, loop: asyncio.AbstractEventLoop) -> None:
        self.outcome: asyncio.Future[Outcome] = loop.create_future()
        self._sink = sink

    @property
    def ready(self) -> bool:
        return self._sink.ready

    def emit_all(self, batch: list[RunEvent]) -> None:
        self._sink.emit_all(batch)

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._sink.on_ready(callback)

    def ended(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def released(self) -> None:
        """The caller already has its outcome and does not wait for the author's code."""
