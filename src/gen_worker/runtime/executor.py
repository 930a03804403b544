"""The one road of a run, in development and in production: payload, files, models, call, outcome."""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from gen_worker import events
from gen_worker.authoring.context import ActionContext, OutputStore
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.clock import Clock, SystemClock
from gen_worker.events import RunEvent
from gen_worker.files.inputs import InputFiles, holds_assets
from gen_worker.log import Log
from gen_worker.models.manager import ModelManager, ModelUse
from gen_worker.runtime.call import Call, CallLimits
from gen_worker.runtime.cancellation import CancelToken
from gen_worker.runtime.outbox import RunOutbox, RunSink
from gen_worker.runtime.outcome import Outcome, outcome_of
from gen_worker.runtime.payloads import Encoding, decode_payload
from gen_worker.runtime.phases import run_metrics
from gen_worker.runtime.threads import Mailbox, RunThreads, TenantLoop
from gen_worker.settings import RunLimits

_encode_json = msgspec.json.Encoder().encode
_encode_msgpack = msgspec.msgpack.Encoder().encode


class RunRequest(msgspec.Struct, frozen=True):
    """What a caller asks for. `uploads` maps asset refs of this payload to files that came with the request."""

    run_id: str
    payload: bytes
    encoding: Encoding = "json"
    timeout_ms: int = 0
    owner: str | None = None
    invoker_id: str | None = None
    required_models: tuple[str, ...] = ()
    resolved_models: Mapping[str, Any] | None = None
    uploads: Mapping[str, Path] = msgspec.field(default_factory=dict)


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
    ) -> None:
        self._models = models
        self._inputs = inputs
        self._limits = limits
        self._log = log
        self._clock = clock or SystemClock()
        self._device = device
        self._mailbox = Mailbox(asyncio.get_running_loop())
        self.threads = RunThreads(self._mailbox, log)
        self._tenant = TenantLoop(log)
        self._call_limits = CallLimits(
            limits.worker_max_output_bytes, limits.worker_max_output_delta_bytes, limits.worker_max_output_delta_events
        )

    async def run(self, spec: FunctionSpec, request: RunRequest, sink: RunSink, token: CancelToken, outputs: OutputStore) -> Outcome:
        """Run a function to its end. Never raises for what the function, its models or its input do; see `Outcome`."""
        began_s = self._clock.now_s()
        payload_bytes = len(request.payload)
        sink.emit(RunEvent(events.RECEIVED, events.Received(spec.name, len(request.required_models), payload_bytes)))
        if request.timeout_ms > 0:
            token.expire_after(request.timeout_ms)
        try:
            output = await self._run(spec, request, sink, token, outputs)
            outcome = Outcome(success=True, output=output)
        except asyncio.CancelledError:
            token.cancel()
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, it is the outcome of this run
            outcome = outcome_of(exc)
            if outcome.error_type == "internal":
                self._log_failure(spec, request, exc)
        finally:
            token.close()
        self._report_end(spec, sink, outcome, began_s)
        return outcome

    def close(self) -> None:
        """End idle threads and the tenant loop."""
        self.threads.close()
        self._tenant.close()

    async def _run(self, spec: FunctionSpec, request: RunRequest, sink: RunSink, token: CancelToken, outputs: OutputStore) -> bytes:
        payload = decode_payload(spec.payload_type, request.payload, request.encoding, max_bytes=self._limits.worker_max_input_bytes)
        token.check()
        sink.emit(RunEvent(events.STARTED, events.Started(spec.name, request.required_models)))
        arguments: dict[str, Any] = {spec.payload_param: payload}
        if not spec.injections and not holds_assets(spec.payload_type):
            return await self._call(spec, arguments, payload, [], request, sink, token, outputs)
        with ExitStack() as held:
            if holds_assets(spec.payload_type):
                held.callback(self._inputs.forget, request.run_id)
                await token.race(self._inputs.materialize(request.run_id, payload, request.uploads, request.owner))
            uses: list[ModelUse] = []
            for injection in spec.injections:
                lease, use = await token.race(self._models.acquire(spec, injection, payload, sink.emit))
                held.callback(lease.release)
                arguments[injection.param] = lease.view()
                uses.append(use)
            return await self._call(spec, arguments, payload, uses, request, sink, token, outputs)

    async def _call(
        self,
        spec: FunctionSpec,
        arguments: Mapping[str, Any],
        payload: msgspec.Struct,
        uses: list[ModelUse],
        request: RunRequest,
        sink: RunSink,
        token: CancelToken,
        outputs: OutputStore,
    ) -> bytes:
        outbox = RunOutbox(sink, self._mailbox.post)
        ctx = self._context(request, outbox, outputs)
        call = Call(
            spec, ctx, arguments, token=token, outbox=outbox, threads=self.threads, tenant=self._tenant,
            encode=_encode_json if request.encoding == "json" else _encode_msgpack, limits=self._call_limits,
        )  # fmt: skip
        began_s = self._clock.now_s()
        sink.emit(RunEvent(events.INFERENCE_STARTED, events.InferenceStarted(spec.name, spec.output_mode)))
        try:
            output = await call.result()
        except Exception as exc:
            outcome = outcome_of(exc)
            sink.emit(
                RunEvent(
                    events.INFERENCE_FAILED,
                    events.InferenceFailed(spec.name, spec.output_mode, outcome.error_type, self._ms_since(began_s)),
                )
            )
            raise
        if outbox.dropped:
            self._log.warning("run.events_dropped", run_id=request.run_id, function=spec.name, events=outbox.dropped)
        inference_s = self._clock.now_s() - began_s
        if spec.output_mode == "incremental":
            sink.emit(RunEvent(events.OUTPUT_COMPLETED, {}))
        duration_ms = round(inference_s * 1000)
        sink.emit(RunEvent(events.INFERENCE_COMPLETED, events.InferenceCompleted(spec.name, spec.output_mode, duration_ms)))
        sink.emit(RunEvent(events.METRICS_RUN, run_metrics(spec.name, payload, uses, inference_s, ctx.upload_s)))
        return output

    def _context(self, request: RunRequest, outbox: RunOutbox, outputs: OutputStore) -> ActionContext:
        def emitter(event: dict[str, Any]) -> None:
            # Encoded in the author's thread: the payload may change after this returns.
            outbox.put_event(event["type"], _encode_json(event["payload"]))

        return ActionContext(
            request.run_id,
            emitter,
            request.owner,
            request.invoker_id,
            request.timeout_ms or None,
            resolved_cozy_models_by_id=request.resolved_models,
            required_models=request.required_models,
            outputs=outputs,
            device=self._device,
        )

    def _report_end(self, spec: FunctionSpec, sink: RunSink, outcome: Outcome, began_s: float) -> None:
        if outcome.success:
            sink.emit(RunEvent(events.COMPLETED, events.Completed(spec.name, self._ms_since(began_s))))
            return
        if spec.output_mode == "incremental":
            sink.emit(RunEvent(events.OUTPUT_ERROR, events.OutputFailed(outcome.error_type, outcome.safe_message)))
        sink.emit(RunEvent(events.FAILED, events.Failed(spec.name, outcome.error_type, outcome.retryable, outcome.safe_message)))

    def _log_failure(self, spec: FunctionSpec, request: RunRequest, exc: Exception) -> None:
        import traceback

        trace = "".join(traceback.format_exception(exc, limit=-8))
        self._log.error("run.internal_error", run_id=request.run_id, function=spec.name, error=repr(exc), traceback=trace)

    def _ms_since(self, began_s: float) -> int:
        return round((self._clock.now_s() - began_s) * 1000)
