"""One run, from its payload bytes to its one outcome.

             start                 files and models here      the author's code has ended
    accepting -----> preparing ------------------> calling ------------------------------+
        |                |                            |                                  |
        |  bad payload   |  no file, no model         |  cancelled, timed out            v
        +----------------+----------------------------+------------------------------> ended ----------> released
                                                                                          as soon as no code
                                                                                          works for it any more

Who moves it: `start` and its task `_prepare` up to `calling`; from there `Call`, by `_author_ended`. The token ends it
from any state by `_stopped`, at once, whatever the author's code, a download or a load is doing. Everything here
happens on the executor's loop.

**The end is final.** `_end` runs once and takes the steps of `_STEPS_OF_THE_END`. A step that raises is logged, and the
next one is taken anyway. The outcome consists of plain values made beforehand. Once it is delivered, no event of this
run is passed on. Returning leases, files and the slot, learning from the run, and logging come after it. Nothing
between the end of the author's code and the outcome may raise, wait or be skipped; a new step belongs below the
outcome.

`released` waits for whoever still uses what the run holds: author's code that goes on after a cancel, a download in a
thread.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gen_worker import events
from gen_worker.authoring.context import ActionContext, OutputStore
from gen_worker.authoring.found_assets import holds_assets
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import CanceledError, WorkerError
from gen_worker.events import RunEvent
from gen_worker.execution.batching import BatchCall
from gen_worker.execution.call import Call, Ended
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.early_end import EarlyAnswer, EarlyEnd
from gen_worker.execution.event_pipe import EventPipe
from gen_worker.execution.outputs import OutputWriter
from gen_worker.execution.payloads import Payload
from gen_worker.execution.phases import utc_now
from gen_worker.execution.request import RunHooks, RunRequest
from gen_worker.execution.run_context import context_of
from gen_worker.execution.run_ending import RunTimes, add_ending
from gen_worker.execution.run_models import RunModels
from gen_worker.execution.run_parts import RunParts
from gen_worker.execution.step_guard import StepGuard
from gen_worker.execution.stuck import WatchedPhase
from gen_worker.outcome import Failure, Outcome, failure_of
from gen_worker.residency.manager import ModelUse
from gen_worker.residency.seat import Seat


class Run:
    """One run."""

    def __init__(
        self,
        parts: RunParts,
        spec: FunctionSpec,
        request: RunRequest,
        hooks: RunHooks,
        token: CancelToken,
        outputs: OutputStore,
        early: EarlyAnswer | None = None,
    ) -> None:
        self._parts = parts
        self._spec = spec
        self._request = request
        self._hooks = hooks
        self._token = token
        self._outputs = outputs
        self._timeout_ms = request.timeout_ms or spec.timeout_ms
        self._began_s = 0.0
        self._inference_began_s: float | None = None
        self._payload: msgspec.Struct | None = None
        self._uses: list[ModelUse] = []
        self._seat: Seat | None = None
        self._device: str | None = None
        self._ctx: ActionContext | None = None
        self._pipe: EventPipe | None = None
        self._call: Call | BatchCall | None = None
        self._watched: WatchedPhase | None = None
        self._early = None if early is None else EarlyEnd(early, parts.mailbox.put, self._end_as_told)
        self._told_ending: list[RunEvent] | None = None
        self._gathered: list[RunEvent] | None = []  # events of one turn of the loop are passed on together
        self._dropped = 0  # events of the author's that were dropped
        self._preparing = False
        self._ended = False
        self._said = False
        self._released = False
        self._cleanups: list[tuple[str, Callable[[], object]]] = []  # undone in reverse order

    def start(self) -> None:
        """Begin; never raises. A run that needs no files and no models gets no task of its own, because wake-ups are
        most of the cost of a quick run.
        """
        spec, desk = self._spec, self._parts.desk
        try:
            self._announce()
            payload = self._take(desk.read(spec, self._request)) if desk.is_quick(spec, self._request) else None
            if payload is not None and not spec.injections and not holds_assets(spec.payload_type):
                self._begin_call({spec.payload_param: payload})
                return
            self._preparing = True
            self._pass_on_gathered()
            self._parts.background(self._prepare(payload), f"prepare {self._request.run_id}")
        except BaseException as exc:  # noqa: BLE001 - whatever it was, it is the outcome of this run
            self._preparing = False
            self._fail(exc)

    # RunSink: what the run's pipe passes on.

    @property
    def ready(self) -> bool:
        return self._hooks.ready

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._hooks.on_ready(callback)

    def emit_all(self, batch: list[RunEvent]) -> None:
        if not self._taken_back():
            self._hooks.emit_all(batch)

    # Steps up to the call.

    def _announce(self) -> None:
        spec, request = self._spec, self._request
        self._began_s = self._parts.clock.now_s()
        received = events.Received(spec.name, len(request.required_models), len(request.payload))
        self._say(RunEvent(events.RECEIVED, received), RunEvent(events.COMPUTE_STARTED, events.At(utc_now())))
        self._token.on_cancel(self._stopped)
        if self._timeout_ms > 0:
            self._token.expire_after(self._timeout_ms)

    def _take(self, payload: Payload) -> Any:
        spec, request = self._spec, self._request
        self._payload = payload.value
        self._token.check()
        self._say(RunEvent(events.STARTED, events.Started(spec.name, request.required_models)))
        if payload.warnings:
            self._say(RunEvent(events.WARNING, events.Warned(spec.name, payload.warnings)))
            with self._guard("the log"):
                unknown = [warning.pointer for warning in payload.warnings]
                self._parts.log.warning("run.unknown_fields", run_id=request.run_id, function=spec.name, fields=unknown)
        return payload.value if request.socket is None else request.socket

    async def _prepare(self, payload: Any) -> None:
        """Get what the call needs, including the payload when reading it may take long."""
        spec, request, parts = self._spec, self._request, self._parts
        try:
            if payload is None:
                payload = self._take(await self._token.race(parts.desk.read_aside(spec, request)))
            arguments: dict[str, Any] = {spec.payload_param: payload}
            if holds_assets(spec.payload_type):
                inputs = parts.inputs.of_run(request.run_id)
                self._cleanups.append(("input files", inputs.close))
                await self._token.race(inputs.materialize(payload, request.uploads, request.owner, request.file_api))
            if spec.injections:
                assert self._payload is not None
                models = RunModels(parts, spec, request, self._payload, self._say, self._cleanups.append, self._uses)
                self._seat = models.take_seat()
                for number, injection in enumerate(spec.injections):
                    arguments[injection.param] = await self._token.race(models.acquire(number))
            self._begin_call(arguments)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the executor is closing
                self._fail(CanceledError("canceled"))
                raise
            self._fail(exc)  # raised by a loader or a client, not a cancel of this run
        except BaseException as exc:  # noqa: BLE001 - whatever it was, it is the outcome of this run
            self._fail(exc)
        finally:
            self._preparing = False
            self._release_if_idle()

    def _begin_call(self, arguments: Mapping[str, Any]) -> None:
        if self._ended:
            return
        spec, parts, request = self._spec, self._parts, self._request
        self._device = parts.device if self._seat is None else self._seat.device_name or parts.device
        pipe = self._pipe = EventPipe(self, parts.mailbox.post, parts.mailbox.loop.call_later, self._pipe_broke)
        ctx = self._ctx = context_of(request, pipe, self._outputs, self._timeout_ms, self._device)
        writer = OutputWriter(spec.output_type, request.encoding, parts.limits, parts.desk.check_output, request.max_output_bytes)
        if spec.batch is not None:
            batcher = parts.batchers.of(spec, tuple([use.model_id for use in self._uses]), self._device)
            call: Call | BatchCall = BatchCall(batcher, ctx, self._payload, arguments, writer)
        else:
            gpu = self._seat.device_name if self._seat else None
            tell = None if self._early is None else self._tell
            call = Call(spec, ctx, arguments, pipe=pipe, threads=parts.threads, tenant=parts.tenant, writer=writer, gpu=gpu, on_result=tell)
        self._inference_began_s = parts.clock.now_s()
        self._say(RunEvent(events.INFERENCE_STARTED, events.InferenceStarted(spec.name, spec.output_mode)))
        since = None if request.socket is None else request.socket.begin(ctx)
        self._watched = parts.stuck.enter(
            "inference", request.run_id, spec.name, self._say_late, call.stacks, since, output_mode=spec.output_mode
        )
        if self._seat is not None:
            self._cleanups.append(("work on a device", self._seat.begin_work()))
        self._call = call
        self._pass_on_gathered()
        if not self._over():  # a listener may have cancelled the run on one of its events
            call.start(self._author_ended)

    # The end.

    def _tell(self, output: bytes) -> None:
        """In the author's thread: report the result."""
        early, pipe = self._early, self._pipe
        try:
            if early is not None and pipe is not None and pipe.untouched:
                early.tell(Outcome(success=True, output=output), self._add_ending)
        except BaseException as exc:  # noqa: BLE001 - the loop answers then
            self._broke("answering from the thread", exc)

    def _end_as_told(self) -> None:
        self._end(b"")  # `_end` finds what the thread reported

    def _author_ended(self, ended: Ended) -> None:
        self._end(ended)
        self._release_if_idle()

    def _stopped(self, reason: WorkerError) -> None:
        self._end(failure_of(reason))

    def _fail(self, exc: BaseException) -> None:
        self._end(failure_of(exc))

    def _pipe_broke(self, exc: BaseException) -> None:
        """Part of the run's output is lost."""
        self._fail(exc)

    def _end(self, ended: Ended) -> None:
        if self._ended:
            return
        self._pass_on_gathered()
        if self._pipe is not None:
            self._pipe.flush()
        if self._over():  # a listener has cancelled the run
            return
        self._ended = True
        told = None if self._early is None else self._early.close()
        if told is not None:
            ended, self._told_ending = told[0].output, told[1]
        outcome = ended.outcome if isinstance(ended, Failure) else Outcome(success=True, output=ended)
        for what, step in _STEPS_OF_THE_END:
            try:
                step(self, ended, outcome)
            except BaseException as exc:  # noqa: BLE001 - the last guard: whatever broke, the next step is taken
                self._broke(what, exc)

    def _stop_author(self, ended: Ended, outcome: Outcome) -> None:
        if self._call is not None and self._call.author_runs and self._told_ending is None:
            self._call.stop()

    def _stop_children(self, ended: Ended, outcome: Outcome) -> None:
        if self._request.children is not None:
            self._request.children.close()

    def _pass_on_ending(self, ended: Ended, outcome: Outcome) -> None:
        ending = self._told_ending or []
        try:
            if not ending:
                self._add_ending(ending, outcome)
        finally:
            self._hooks.emit_all(ending)

    def _pass_on_outcome(self, ended: Ended, outcome: Outcome) -> None:
        try:
            self._hooks.ended(outcome)
        finally:
            self._said = True

    def _let_go(self, ended: Ended, outcome: Outcome) -> None:
        try:
            if self._pipe is not None:
                self._dropped = self._pipe.dropped
                self._pipe.close()
        finally:
            try:
                self._token.close()
            finally:
                self._parts.stuck.leave(self._watched)

    def _add_ending(self, ending: list[RunEvent], outcome: Outcome) -> None:
        add_ending(ending, outcome, self._spec, self._times(), self._payload, self._uses, self._ctx, self._broke)

    def _learn(self, ended: Ended, outcome: Outcome) -> None:
        if self._seat is None:
            return
        if not isinstance(ended, Failure):
            self._parts.models.note_run(self._spec.name, self._inference_s())
        elif ended.out_of_memory and self._uses:
            relief = self._parts.models.relieve(self._seat, {use.model_id for use in self._uses})
            self._parts.background(relief, f"relief {self._request.run_id}")

    def _release_if_idle(self) -> None:
        """Give back what the run holds, once: when it has ended and neither the author's code nor a fetch is still working."""
        if not self._said or self._released or self._preparing or (self._call is not None and self._call.author_runs):
            return
        self._released = True
        while self._cleanups:
            what, cleanup = self._cleanups.pop()
            try:
                cleanup()
            except BaseException as exc:  # noqa: BLE001 - the others are to be given back all the same
                self._broke(what, exc)
        try:
            self._hooks.released()
        except BaseException as exc:  # noqa: BLE001 - nobody is left to hear of it
            self._broke("freeing the slot", exc)

        # These refer back to this run. Without them the run is freed with its last reference, not by the garbage
        # collector, whose pauses take milliseconds under load.
        self._call = self._pipe = self._ctx = self._payload = self._watched = self._early = None

    def _release(self, ended: Ended, outcome: Outcome) -> None:
        self._release_if_idle()

    def _over(self) -> bool:
        return self._ended

    def _taken_back(self) -> bool:
        """Whether the run is over. If not, from now on only the loop ends it. For what the loop does while the author's code works."""
        if not self._ended and self._early is not None and self._early.close() is not None:
            self._end_as_told()
        return self._ended

    def _log(self, ended: Ended, outcome: Outcome) -> None:
        facts = {"run_id": self._request.run_id, "function": self._spec.name}
        if self._dropped:
            self._parts.log.warning("run.events_dropped", **facts, events=self._dropped)
        if isinstance(ended, Failure) and outcome.error_type == "internal":
            self._parts.log.error("run.internal_error", **facts, error=outcome.error_message, traceback=ended.trace)

    def _times(self) -> RunTimes:
        return RunTimes(self._parts.clock.now_s(), self._began_s, self._inference_began_s)

    def _inference_s(self) -> float:
        began_s = self._inference_began_s
        return 0.0 if began_s is None else self._parts.clock.now_s() - began_s

    def _pass_on_gathered(self) -> None:
        said, self._gathered = self._gathered, None
        if said:
            self._say(*said)

    def _say(self, *said: RunEvent) -> None:
        """Pass on events of ours. An event that cannot be passed on does not end the run: only its outcome counts."""
        if self._gathered is not None:
            self._gathered += said
        elif not self._ended:
            try:
                self._hooks.emit_all(list(said))
            except BaseException as exc:  # noqa: BLE001 - the hooks are somebody else's
                self._broke("passing on events", exc)

    def _say_late(self, said: RunEvent) -> None:
        if not self._taken_back():
            self._say(said)

    def _guard(self, what: str) -> StepGuard:
        return StepGuard(self._parts.log, what, self._request.run_id, self._spec.name)

    def _broke(self, what: str, exc: BaseException) -> None:
        self._guard(what).broke(exc)


_STEPS_OF_THE_END: tuple[tuple[str, Callable[[Run, Ended, Outcome], None]], ...] = (
    ("stopping the author's code", Run._stop_author),
    ("stopping the functions that it has called", Run._stop_children),
    ("passing on the last events", Run._pass_on_ending),
    ("passing on the outcome", Run._pass_on_outcome),
    # The outcome is delivered. The rest returns what the run held, and learns from it.
    ("closing the run's pipe", Run._let_go),
    ("learning from the run", Run._learn),
    ("giving back what the run held", Run._release),
    ("the log", Run._log),
)
