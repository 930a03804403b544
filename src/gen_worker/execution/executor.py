"""The one road of a run, in development and in production: payload, files, models, call, outcome."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gen_worker import events
from gen_worker.authoring.assets import holds_assets
from gen_worker.authoring.context import ActionContext, OutputStore
from gen_worker.authoring.signature import FunctionSpec, Injection
from gen_worker.clock import Clock, SystemClock
from gen_worker.content.listing import Listing
from gen_worker.errors import CanceledError
from gen_worker.events import RunEvent
from gen_worker.execution.batching import BatchCall, Batchers
from gen_worker.execution.call import Call, CallLimits
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.payloads import Encoding, decode_payload
from gen_worker.execution.phases import run_metrics, utc_now
from gen_worker.execution.run_outbox import RunOutbox, RunSink
from gen_worker.execution.stuck import Phase, StuckAfter, StuckWatch, WatchedPhase, thread_stacks
from gen_worker.execution.threads import Mailbox, RunThreads, TenantLoop
from gen_worker.files.file_api import FileApi
from gen_worker.files.inputs import InputFiles
from gen_worker.frames import author_trace
from gen_worker.log import Log
from gen_worker.outcome import Outcome, outcome_of
from gen_worker.residency.loads import is_out_of_memory
from gen_worker.residency.manager import ModelManager, ModelUse, Seat
from gen_worker.residency.place import Lease
from gen_worker.settings import RunLimits

_encode_json = msgspec.json.Encoder().encode
_encode_sorted_json = msgspec.json.Encoder(order="sorted").encode
_encode_msgpack = msgspec.msgpack.Encoder().encode

_MODEL_PHASES: Mapping[str, Phase] = {events.RESOLVE_STARTED: "model_resolve", events.LOAD_STARTED: "model_load"}


class RunRequest(msgspec.Struct, frozen=True):
    """What a caller asks for.

    `encoding` is that of the payload and of the output; deltas are JSON always. `uploads` maps asset refs of this payload to files that
    came with the request; others are fetched from `file_api`.
    """

    run_id: str
    payload: bytes
    encoding: Encoding = "json"
    timeout_ms: int = 0
    owner: str | None = None
    invoker_id: str | None = None
    required_models: tuple[str, ...] = ()
    resolved_models: Mapping[str, Any] | None = None  # as the function sees them
    listings: Mapping[str, Listing] = {}
    uploads: Mapping[str, Path] = msgspec.field(default_factory=dict)
    file_api: FileApi | None = None


class Executor:
    """Runs functions. One for a worker; lives on one event loop, which is the running one when it is built."""

    def __init__(
        self,
        models: ModelManager,
        inputs: InputFiles,
        limits: RunLimits,
        log: Log,
        *,
        clock: Clock | None = None,
        device: str | None = None,
        stuck_after: StuckAfter | None = None,
    ) -> None:
        self.models = models
        self.inputs = inputs
        self.log = log
        self.clock = clock or SystemClock()
        self.device = device
        self.mailbox = Mailbox(asyncio.get_running_loop())
        self.threads = RunThreads(self.mailbox, log)
        self.tenant = TenantLoop(log)
        self.stuck = StuckWatch(stuck_after or StuckAfter(), log)
        self._preparing: set[asyncio.Task[None]] = set()
        self.max_input_bytes = limits.worker_max_input_bytes
        self.call_limits = CallLimits(
            limits.worker_max_output_bytes, limits.worker_max_output_delta_bytes, limits.worker_max_output_delta_events
        )
        self.batchers = Batchers(self.threads, self.tenant, self.call_limits)

    async def run(
        self,
        spec: FunctionSpec,
        request: RunRequest,
        sink: RunSink,
        token: CancelToken,
        outputs: OutputStore,
        when_idle: Callable[[], None] | None = None,
    ) -> Outcome:
        """Run a function to its end. Never raises for what the function, its models or its input do; see `Outcome`.

        `when_idle` is called once, when the author's code has really ended: with the run, or later where the code went on
        after its run was cancelled or timed out.
        """
        ended: asyncio.Future[Outcome] = self.mailbox.loop.create_future()

        def done(outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        self.start(spec, request, sink, token, outputs, done, when_idle)
        try:
            return await ended
        except asyncio.CancelledError:
            token.cancel()
            raise

    def start(
        self,
        spec: FunctionSpec,
        request: RunRequest,
        sink: RunSink,
        token: CancelToken,
        outputs: OutputStore,
        done: Callable[[Outcome], None],
        when_idle: Callable[[], None] | None = None,
    ) -> None:
        """The same without waiting: `done` is called with the outcome, possibly before this returns."""
        _Run(self, spec, request, sink, token, outputs, done, when_idle).start()

    def prepare(self, work: Coroutine[Any, Any, None], run_id: str) -> None:
        """Fetch files and models of a run; the task belongs to the executor."""
        task = self.mailbox.loop.create_task(work, name=f"prepare {run_id}")
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    def close(self) -> None:
        """End idle threads and the tenant loop, and what is being fetched."""
        for task in self._preparing:
            task.cancel()
        self.threads.close()
        self.tenant.close()
        self.stuck.close()


class _Run:
    """One run on its way."""

    def __init__(
        self,
        executor: Executor,
        spec: FunctionSpec,
        request: RunRequest,
        sink: RunSink,
        token: CancelToken,
        outputs: OutputStore,
        done: Callable[[Outcome], None],
        when_idle: Callable[[], None] | None,
    ) -> None:
        self.executor = executor
        self.spec = spec
        self.request = request
        self.sink = sink
        self.token = token
        self.outputs = outputs
        self.timeout_ms = request.timeout_ms or spec.timeout_ms
        self.began_s = executor.clock.now_s()
        self.uses: list[ModelUse] = []
        self.seat: Seat | None = None
        self.call: Call | BatchCall | None = None
        self.inference_began_s: float | None = None
        self.done = done
        self.cleanups = [] if when_idle is None else [when_idle]  # for when the author's code has ended

    def start(self) -> None:
        """Begin. A run that needs no files and no models goes on without a task of its own: most of what a quick run costs is waking up."""
        spec = self.spec
        try:
            payload = self._accept()
            if not spec.injections and not holds_assets(spec.payload_type):
                self._call({spec.payload_param: payload}, payload)
                return
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is the outcome of this run
            self._fail(exc)
            return
        self.executor.prepare(self._prepare(payload), self.request.run_id)

    def _accept(self) -> Any:
        spec, request = self.spec, self.request
        received = events.Received(spec.name, len(request.required_models), len(request.payload))
        self.sink.emit_all([RunEvent(events.RECEIVED, received), RunEvent(events.COMPUTE_STARTED, events.At(utc_now()))])
        if self.timeout_ms > 0:
            self.token.expire_after(self.timeout_ms)
        payload = decode_payload(spec.payload_type, request.payload, request.encoding, max_bytes=self.executor.max_input_bytes)
        self.token.check()
        self.sink.emit(RunEvent(events.STARTED, events.Started(spec.name, request.required_models)))
        return payload

    async def _prepare(self, payload: Any) -> None:
        spec, request, executor = self.spec, self.request, self.executor
        arguments: dict[str, Any] = {spec.payload_param: payload}
        try:
            if holds_assets(spec.payload_type):
                self.cleanups.append(lambda: executor.inputs.forget(request.run_id))
                files = executor.inputs.materialize(request.run_id, payload, request.uploads, request.owner, request.file_api)
                await self.token.race(files)
            if spec.injections:
                self.seat = executor.models.seat(spec, payload)
                self.cleanups.append(self.seat.release)
            for injection in spec.injections:
                lease, use = await self.token.race(self._acquire(injection, payload))
                self.cleanups.append(lease.release)
                arguments[injection.param] = lease.view()
                self.uses.append(use)
            self._call(arguments, payload)
        except asyncio.CancelledError:
            self._fail(CanceledError("canceled"))
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is the outcome of this run
            self._fail(exc)

    async def _acquire(self, injection: Injection, payload: msgspec.Struct) -> tuple[Lease, ModelUse]:
        """The model for a parameter; each of its steps is watched."""
        stuck, run_id, name = self.executor.stuck, self.request.run_id, self.spec.name
        watched: WatchedPhase | None = None

        def emit(event: RunEvent) -> None:
            nonlocal watched
            if event.event_type == events.MODEL_PROGRESS:
                self.sink.emit(event)
                return
            stuck.leave(watched)
            watched = None
            phase = _MODEL_PHASES.get(event.event_type)
            if phase is not None:
                step: events.ModelStep = event.payload
                facts = {"param_name": step.param_name, "model_id": step.model_id}
                watched = stuck.enter(phase, run_id, name, self.sink.emit, lambda: thread_stacks("model-load"), **facts)
            self.sink.emit(event)

        try:
            return await self.executor.models.acquire(self.spec, injection, payload, emit, self.request.listings, self.seat)
        finally:
            stuck.leave(watched)

    def _call(self, arguments: Mapping[str, Any], payload: msgspec.Struct) -> None:
        spec, executor = self.spec, self.executor
        self._device = executor.device if self.seat is None else self.seat.device_name or executor.device
        outbox = RunOutbox(self.sink, executor.mailbox.post)
        ctx = self._context(outbox)
        as_json = self.request.encoding == "json"
        encode = _encode_json if as_json else _encode_msgpack
        call: Call | BatchCall
        if spec.batch is not None:
            batcher = executor.batchers.of(spec, tuple([use.model_id for use in self.uses]), self._device)
            call = BatchCall(batcher, ctx, payload, arguments, self.token, outbox, encode)
        else:
            call = Call(
                spec,
                ctx,
                arguments,
                token=self.token,
                outbox=outbox,
                threads=executor.threads,
                tenant=executor.tenant,
                encode=encode,
                encode_delta=_encode_json if as_json else _encode_sorted_json,
                limits=executor.call_limits,
                gpu=self.seat.device_name if self.seat else None,
            )
        self.call = call
        began_s = self.inference_began_s = executor.clock.now_s()
        self.sink.emit(RunEvent(events.INFERENCE_STARTED, events.InferenceStarted(spec.name, spec.output_mode)))
        watched = executor.stuck.enter(
            "inference", self.request.run_id, spec.name, self.sink.emit, call.stacks, output_mode=spec.output_mode
        )

        def ended(output: bytes, error: Exception | None) -> None:
            executor.stuck.leave(watched)
            if outbox.dropped:
                executor.log.warning("run.events_dropped", run_id=self.request.run_id, function=spec.name, events=outbox.dropped)
            if error is None:
                self._succeed(output, payload, executor.clock.now_s() - began_s, ctx.upload_s)
            else:
                self._fail(error)

        if self.seat is not None:
            self.cleanups.append(self.seat.begin_work())
        call.start(ended, self._clean_up)

    def _succeed(self, output: bytes, payload: msgspec.Struct, inference_s: float, upload_s: float) -> None:
        spec = self.spec
        if self.seat is not None:
            self.executor.models.note_run(spec.name, inference_s)
        completed = events.InferenceCompleted(spec.name, spec.output_mode, round(inference_s * 1000))
        ending = [
            RunEvent(events.INFERENCE_COMPLETED, completed),
            RunEvent(events.COMPUTE_COMPLETED, events.At(utc_now())),
            *run_metrics(spec.name, payload, self.uses, inference_s, upload_s),
            RunEvent(events.COMPLETED, events.Completed(spec.name, self._ms_since(self.began_s))),
        ]
        if spec.output_mode == "incremental":
            ending.insert(0, RunEvent(events.OUTPUT_COMPLETED, {}))
        self._end(ending, Outcome(success=True, output=output))

    def _fail(self, exc: Exception) -> None:
        spec, outcome = self.spec, outcome_of(exc)
        if outcome.error_type == "internal":
            self._log_failure(exc)
        if self.seat is not None and self.uses and is_out_of_memory(exc):
            relief = self.executor.models.relieve(self.seat, {use.model_id for use in self.uses})
            self.executor.prepare(relief, self.request.run_id)
        ending = []
        if spec.output_mode == "incremental":
            ending.append(RunEvent(events.OUTPUT_ERROR, events.OutputFailed(outcome.error_type, outcome.safe_message)))
        failed = events.Failed(spec.name, outcome.error_type, outcome.retryable, outcome.safe_message)
        ending.append(RunEvent(events.FAILED, failed))
        if self.inference_began_s is not None:
            duration_ms = self._ms_since(self.inference_began_s)
            inference = events.InferenceFailed(spec.name, spec.output_mode, outcome.error_type, duration_ms)
            ending.append(RunEvent(events.INFERENCE_FAILED, inference))
        ending.append(RunEvent(events.COMPUTE_COMPLETED, events.At(utc_now())))
        self._end(ending, outcome)

    def _end(self, ending: list[RunEvent], outcome: Outcome) -> None:
        self.token.close()
        # Else models stay pinned and files stay there for as long as the author's code may use them.
        if self.call is None or not self.call.author_runs:
            self._clean_up()
        self.sink.emit_all(ending)
        self.done(outcome)

    def _context(self, outbox: RunOutbox) -> ActionContext:
        request = self.request

        def emitter(event: dict[str, Any]) -> None:
            # Encoded in the author's thread: the payload may change after this returns.
            outbox.put_event(event["type"], _encode_json(event["payload"]))

        return ActionContext(
            request.run_id,
            emitter,
            request.owner,
            request.invoker_id,
            self.timeout_ms or None,
            resolved_cozy_models_by_id=request.resolved_models,
            required_models=request.required_models,
            outputs=self.outputs,
            device=self._device,
        )

    def _clean_up(self) -> None:
        cleanups, self.cleanups = self.cleanups, []
        for cleanup in reversed(cleanups):
            cleanup()

    def _log_failure(self, exc: Exception) -> None:
        trace = author_trace(exc)
        self.executor.log.error("run.internal_error", run_id=self.request.run_id, function=self.spec.name, error=repr(exc), traceback=trace)

    def _ms_since(self, began_s: float) -> int:
        return round((self.executor.clock.now_s() - began_s) * 1000)
