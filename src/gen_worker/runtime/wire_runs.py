"""Runs requested by a scheduler: refuses or starts them, and puts their events and their one result into the outbox."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from gen_worker import events
from gen_worker.authoring.context import OutputStore
from gen_worker.authoring.invoking import Children
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.content.listing import Listing
from gen_worker.errors import WorkerError
from gen_worker.events import RunEvent
from gen_worker.execution.admission import Admission
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.children import LocalCalls
from gen_worker.execution.executor import Executor
from gen_worker.execution.request import RunRequest
from gen_worker.files.file_api import FileApi
from gen_worker.log import Log
from gen_worker.names import RUN_ID_RULE, did_you_mean, is_run_id
from gen_worker.outcome import Outcome, outcome_of
from gen_worker.runtime.left_runs import LeftRuns
from gen_worker.runtime.scheduler_children import Askable, SchedulerChildren
from gen_worker.runtime.voice import Voice
from gen_worker.sources.listings import listings_of
from gen_worker.texts import repr_of
from gen_worker.wire.messages import Event, RunCommand, RunResult

MAX_ECHOED_ID_BYTES = 64 << 10  # a longer id is invalid; an answer that carries it could be too large for the peer
_encode = msgspec.json.Encoder(enc_hook=repr_of).encode


class WireSink:
    """Takes what one run reports and passes it to the scheduler. Deltas wait for room; other events may be shed."""

    def __init__(self, run_id: str, voice: Voice, attempt: int = 0) -> None:
        self._run_id = run_id
        self._attempt = attempt
        self._voice = voice

    @property
    def ready(self) -> bool:
        return self._voice.outbox.has_room

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._voice.outbox.on_room(callback)

    def emit_all(self, batch: list[RunEvent]) -> None:
        if self._voice.wants_few_events:
            batch = [event for event in batch if event.event_type not in events.TOLD_BY_THE_RESULT]
            if len(batch) == 2 and batch[0].event_type == events.STARTED and batch[1].event_type == events.INFERENCE_STARTED:
                batch.pop()  # there was nothing to prepare
        self.emit(*batch)

    def emit(self, *batch: RunEvent) -> None:
        """Like `emit_all`, but also sends the events that the scheduler has asked to leave out."""
        run_id, attempt, said = self._run_id, self._attempt, []
        try:
            for event in batch:
                payload: Any = event.payload
                data = bytes(payload) if type(payload) is msgspec.Raw else _encode(payload)
                said.append(Event(run_id, event.event_type, data, attempt))
        finally:  # a message that cannot be encoded loses none of those before it
            if said:
                self._voice.say_events(said)


class _WireRun:
    """Passes the executor's reports about one run to the scheduler."""

    def __init__(self, sink: WireSink, ended: Callable[[Outcome], None], released: Callable[[], None]) -> None:
        self.emit_all = sink.emit_all
        self.on_ready = sink.on_ready
        self.ended = ended
        self.released = released
        self._sink = sink

    @property
    def ready(self) -> bool:
        return self._sink.ready


class FilesOf(Protocol):
    """The file API of one run: the base URL and token of the run, otherwise those of the environment."""

    def __call__(self, base_url: str, token: str, owner: str) -> tuple[OutputStore, FileApi | None]: ...


class WireRuns:
    """The runs of a worker. They belong to the worker, not to a stream: they go on while it reconnects."""

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        executor: Executor,
        admission: Admission,
        voice: Voice,
        files_of: FilesOf,
        log: Log,
        *,
        endpoint: str = "",
        are_runs_limited: bool = False,
        max_message_bytes: int,
        baseline: Callable[[], Mapping[str, Any]] = dict,
        listings: Callable[[], Mapping[str, Listing]],
    ) -> None:
        self._functions = functions
        self._executor = executor
        self._admission = admission
        self._voice = voice
        self._files_of = files_of
        self._log = log
        self._askable = Askable()
        self._are_runs_limited = are_runs_limited
        self._calls = LocalCalls(lambda: functions, executor, admission, endpoint)
        self._max_message_bytes = max_message_bytes
        self._baseline = baseline
        self._listings = listings
        self._left = LeftRuns(executor.threads, voice)
        self._attempts: dict[str, int] = {}
        self._next: dict[str, RunCommand] = {}  # later attempts that wait for an earlier attempt of the same run to end
        self._tokens: dict[str, CancelToken] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active(self) -> frozenset[str]:
        """Ids of runs without a result."""
        return frozenset(self._tokens)

    @property
    def attempts(self) -> frozenset[tuple[str, int]]:
        """The same with their attempts; when a later attempt waits for an earlier one to end, the later one."""
        return frozenset((self._attempts | {run_id: command.attempt for run_id, command in self._next.items()}).items())

    def start(self, command: RunCommand) -> None:
        """Start a run, or refuse it. A run that is active, or whose result the scheduler does not have yet, is not started again."""
        if not is_run_id(command.run_id):
            self._refuse_id(command)
            return
        sink = WireSink(command.run_id, self._voice, command.attempt)
        if command.run_id in self._tokens and command.attempt > self._attempts[command.run_id]:
            self._supersede(command)
            return
        if command.run_id in self._tokens or self._voice.outbox.holds_result_of(command.run_id, command.attempt):
            self._reject(sink, command, "duplicate_run_id")
            return
        try:
            self._begin(command, sink)
        except Exception as exc:
            # Something of ours broke before the executor had the run: it ends here, with its one result.
            self._end(command.run_id)
            self._answer(command, outcome_of(exc))
            raise

    def _begin(self, command: RunCommand, sink: WireSink) -> None:
        spec = self._functions.get(command.function)
        if spec is None:
            self._reject(sink, command, "unknown_function")
            detail = f"no function {command.function[:100]!r}.{did_you_mean(command.function, self._functions)}"
            self._answer(command, _refused("internal", "internal error", detail))
            return
        limit = self._executor.max_input_bytes or self._max_message_bytes
        size_bytes = len(command.payload)
        if size_bytes > min(limit, self._max_message_bytes):
            self._reject(sink, command, "input_too_large", size_bytes)
            detail = f"payload of {size_bytes} bytes; at most {min(limit, self._max_message_bytes)} are allowed"
            self._answer(command, _refused("validation", "invalid input", detail))
            return
        refusal = self._admission.take(spec.name, spec.resources.max_concurrency)
        if refusal is not None:
            self._reject(sink, command, refusal)
            self._answer(command, _refused("retryable", "worker busy", refusal))
            return
        token = CancelToken()
        self._tokens[command.run_id] = token
        self._attempts[command.run_id] = command.attempt
        self._idle.clear()
        try:
            self._run(spec, command, sink, token)
        except Exception:
            self._admission.give(spec.name)  # nothing was begun: the executor's start never raises
            raise

    def _supersede(self, command: RunCommand) -> None:
        """The scheduler believed this run lost and has given it to us again: end the active attempt, and start this one."""
        self._next[command.run_id] = command
        self._log.warning("run.superseded", run_id=command.run_id, attempt=self._attempts[command.run_id], by=command.attempt)
        self._tokens[command.run_id].cancel()

    def interrupt(self, run_id: str) -> None:
        """Cancel a run; an unknown one is ignored."""
        following = self._next.pop(run_id, None)
        if following is not None:
            self._answer(following, _refused("canceled", "canceled", "canceled before it began"))
        token = self._tokens.get(run_id)
        if token is not None:
            token.cancel()

    def cancel_all(self, reason: WorkerError) -> None:
        """Stop all runs, as for a shutdown."""
        for token in list(self._tokens.values()):
            token.cancel(reason)

    async def wait_idle(self) -> None:
        """Wait until no run is active."""
        await self._idle.wait()

    def _run(self, spec: FunctionSpec, command: RunCommand, sink: WireSink, token: CancelToken) -> None:
        outputs, file_api = self._files_of(command.file_base_url, command.file_token, command.owner)
        listings = dict(self._listings())
        if command.resolved_models:
            listings |= listings_of(command.resolved_models)
        request = RunRequest(
            run_id=command.run_id,
            payload=command.payload,
            encoding="msgpack",
            timeout_ms=command.timeout_ms,
            attempt=command.attempt or 1,
            owner=command.owner or None,
            invoker_id=command.invoker_id or None,
            required_models=command.required_models,
            resolved_models=self._resolved(command),
            listings=listings,
            file_api=file_api,
            traceparent=command.traceparent or None,
            max_output_bytes=self._voice.outbox.largest_bytes,
        )
        children: Children = self._calls.of_run(request, spec.name, outputs)
        if command.file_base_url and command.file_token:
            url, token_ = command.file_base_url, command.file_token
            children = SchedulerChildren(url, token_, command.run_id, children, self._askable, partial(self._stays, spec))
        request = msgspec.structs.replace(request, children=children)
        hooks = _WireRun(sink, lambda outcome: self._ended(command, outcome), lambda: self._admission.give(spec.name))
        self._executor.start(spec, request, hooks, token, outputs)

    def _stays(self, spec: FunctionSpec, ref: str) -> bool:
        """Whether a call runs in this worker: when the waiting run may hold the only slot that the called run could get."""
        is_bound = self._are_runs_limited or (ref == spec.name and bool(spec.resources.max_concurrency))
        return is_bound and ref in self._functions

    def _ended(self, command: RunCommand, outcome: Outcome) -> None:
        try:
            self._answer(command, outcome)
        finally:
            self._end(command.run_id)

    def _end(self, run_id: str) -> None:
        self._left.watch()
        self._tokens.pop(run_id, None)
        self._attempts.pop(run_id, None)
        if following := self._next.pop(run_id, None):
            self.start(following)
        if not self._tokens:
            self._idle.set()

    def _resolved(self, command: RunCommand) -> Mapping[str, Any] | None:
        """The release's resolved models, overridden by those of the run."""
        baseline = self._baseline()
        if not baseline or not command.resolved_models:
            return command.resolved_models or baseline or None
        return {**baseline, **command.resolved_models}

    def _refuse_id(self, command: RunCommand) -> None:
        """Refuse a run with an invalid id. The answer carries the id as it came, so that the scheduler recognises it;
        logs and messages show its beginning, escaped.

        No events: events with an empty id would look like the worker's own.
        """
        detail = f"run_id {command.run_id[:100]!r}; {RUN_ID_RULE}"
        self._log.warning(events.REJECTED, run_id=repr(command.run_id[:100]), function=command.function[:100], reason="invalid_run_id")
        is_answered = self._voice.outbox.holds_result_of(command.run_id, command.attempt)
        if len(command.run_id.encode("utf-8", "replace")) <= MAX_ECHOED_ID_BYTES and not is_answered:
            self._voice.say(RunResult(command.run_id, False, b"", detail, "validation", False, detail, attempt=command.attempt))

    def _reject(self, sink: WireSink, command: RunCommand, reason: str, input_bytes: int | None = None) -> None:
        received = events.Received(command.function, len(command.required_models), len(command.payload))
        rejected = events.Rejected(reason, command.function, input_bytes)
        sink.emit(RunEvent(events.RECEIVED, received), RunEvent(events.REJECTED, rejected))
        self._log.info(events.REJECTED, run_id=command.run_id, function=command.function, reason=reason)

    def _answer(self, command: RunCommand, outcome: Outcome) -> None:
        if outcome.success:
            self._voice.say(RunResult(command.run_id, True, outcome.output, attempt=command.attempt))
            return
        self._voice.say(
            RunResult(
                command.run_id,
                False,
                b"",
                outcome.error_message,
                outcome.error_type,
                outcome.retryable,
                outcome.safe_message,
                outcome.code,
                msgspec.json.encode(outcome.errors) if outcome.errors else b"",
                command.attempt,
            )
        )
        self._log.info(
            "run.failed",
            run_id=command.run_id,
            function=command.function,
            error_type=outcome.error_type,
            error=outcome.error_message,
            **({"traceparent": command.traceparent} if command.traceparent else {}),
        )


def _refused(error_type: str, safe_message: str, detail: str) -> Outcome:
    return Outcome(
        success=False,
        error_type=error_type,
        code=error_type,
        retryable=error_type == "retryable",
        safe_message=safe_message,
        error_message=detail,
    )
