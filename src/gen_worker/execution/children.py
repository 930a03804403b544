"""Functions of this process called by a run of this process (`ctx.invoke`).

A called function is a run of its own: its payload is checked, it gets models, threads and one outcome. It takes a slot
like any other run. When a run calls its own function again, even indirectly, the called run uses the waiting run's
slot; otherwise a function with one slot would wait for itself.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from gen_worker.authoring.context import OutputStore
from gen_worker.authoring.invoking import ChildCall, ChildEnd, Children, Inbox
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.contract.children import MAX_DEPTH
from gen_worker.errors import CanceledError, FatalError, ValidationError
from gen_worker.events import OUTPUT_DELTA, RunEvent
from gen_worker.execution.admission import Admission
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.executor import Executor
from gen_worker.execution.request import RunRequest
from gen_worker.names import did_you_mean
from gen_worker.outcome import Outcome, outcome_of


class LocalCalls:
    """What all calls of this process share. `functions`: the functions served now, by name. `endpoint`: the project's
    name, as in `owner/endpoint/function`.
    """

    def __init__(
        self, functions: Callable[[], Mapping[str, FunctionSpec]], executor: Executor, admission: Admission, endpoint: str
    ) -> None:
        self.functions = functions
        self.executor = executor
        self.endpoint = endpoint
        self._admission = admission
        self._waiting: dict[asyncio.Future[None], tuple[str, int | None]] = {}
        admission.when_freed(self._serve_waiting)

    def of_run(self, parent: RunRequest, function: str, outputs: OutputStore) -> "LocalChildren":
        """The caller object for one run of `function`. Functions that it calls save their files into `outputs`."""
        return LocalChildren(self, parent, (function,), outputs)

    async def take(self, function: str, limit: int | None, token: CancelToken) -> None:
        """Wait for a slot; raises the reason when the run has to stop first."""
        if self._admission.take_called(function, limit):
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        token.on_cancel(lambda reason: None if place.done() else place.set_exception(reason))
        self._waiting[place] = (function, limit)
        try:
            await place
        finally:
            self._waiting.pop(place, None)

    def give(self, function: str) -> None:
        """Give a slot back."""
        self._admission.give_called(function)

    def _serve_waiting(self) -> None:
        for place, (function, limit) in list(self._waiting.items()):
            if not place.done() and self._admission.take_called(function, limit):
                del self._waiting[place]
                place.set_result(None)

    def spec_of(self, ref: str) -> FunctionSpec:
        """The function named by a call; `ValidationError` when this process has no such function."""
        path = ref.partition("@")[0].partition(":")[0].split("/")
        functions = self.functions()
        spec = functions.get(path[-1])
        if len(path) > 1 and path[-2] != self.endpoint:
            here = f"this process has the functions of {self.endpoint or 'one project'} alone"
            raise ValidationError(f"ctx.invoke({ref[:100]!r}): {here}; to serve several projects together: cozyctl up FOLDER FOLDER")
        if spec is None:
            known = ", ".join(sorted(functions)) or "none"
            raise ValidationError(f"ctx.invoke({ref[:100]!r}): no such function.{did_you_mean(path[-1], functions)} Functions: {known}")
        return spec


class LocalChildren(Children):
    """For one run. `chain`: the functions that wait for one another; the run's own function is the last."""

    def __init__(self, calls: LocalCalls, parent: RunRequest, chain: tuple[str, ...], outputs: OutputStore) -> None:
        self._calls = calls
        self._outputs = outputs
        self._parent = parent
        self._chain = chain
        self._loop = calls.executor.mailbox.loop
        self._open: dict[int, CancelToken] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def start(self, call: ChildCall, inbox: Inbox) -> Callable[[], None]:
        mailbox = self._calls.executor.mailbox
        if self._loop.is_closed():
            inbox.put(ChildEnd(outcome_of(CanceledError("canceled"))))
        mailbox.post(self._begin, call, inbox)
        return partial(mailbox.post, self._stop, call.number)

    def close(self) -> None:
        self._is_closed = True
        for token in list(self._open.values()):
            token.cancel()

    def _stop(self, number: int) -> None:
        token = self._open.get(number)
        if token is not None:
            token.cancel()

    def _begin(self, call: ChildCall, inbox: Inbox) -> None:
        try:
            if self._is_closed:
                raise CanceledError("canceled")
            if len(self._chain) >= MAX_DEPTH:
                chain = " -> ".join(self._chain)
                raise FatalError(f"ctx.invoke({call.ref[:100]!r}): functions call one another {MAX_DEPTH} deep at most: {chain}")
            spec = self._calls.spec_of(call.ref)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the caller waits for an end
            inbox.put(ChildEnd(outcome_of(exc)))
            return
        token = self._open[call.number] = CancelToken()
        task = self._loop.create_task(self._run(spec, call, inbox, token), name=f"child {spec.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, spec: FunctionSpec, call: ChildCall, inbox: Inbox, token: CancelToken) -> None:
        calls, limit = self._calls, spec.resources.max_concurrency if spec.name not in self._chain else None
        try:
            await calls.take(spec.name, limit, token)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the caller waits for an end
            self._ended(call.number, inbox, outcome_of(exc))
            return
        hooks = _Hooks(inbox, calls.executor, partial(self._ended, call.number, inbox), partial(calls.give, spec.name))
        calls.executor.start(spec, self._request(spec, call), hooks, token, self._outputs)

    def _request(self, spec: FunctionSpec, call: ChildCall) -> RunRequest:
        parent = self._parent
        left_ms = [ms for ms in (call.timeout_ms, spec.timeout_ms) if ms]
        request = RunRequest(
            run_id=secrets.token_hex(12),
            payload=call.payload,
            timeout_ms=min(left_ms, default=0),
            owner=parent.owner,
            invoker_id=parent.invoker_id,
            resolved_models=parent.resolved_models,
            listings=parent.listings,
            uploads=parent.uploads,
            file_api=parent.file_api,
            traceparent=parent.traceparent,
        )
        return msgspec.structs.replace(request, children=LocalChildren(self._calls, request, (*self._chain, spec.name), self._outputs))

    def _ended(self, number: int, inbox: Inbox, outcome: Outcome) -> None:
        self._open.pop(number, None)
        inbox.put(ChildEnd(outcome))


class _Hooks:
    """Passes the executor's reports about a called function to the waiting caller."""

    def __init__(self, inbox: Inbox, executor: Executor, ended: Callable[[Outcome], None], released: Callable[[], None]) -> None:
        self._inbox = inbox
        self._mailbox = executor.mailbox
        self.ended = ended
        self.released = released

    @property
    def ready(self) -> bool:
        return self._inbox.ready

    def emit_all(self, batch: list[RunEvent]) -> None:
        for event in batch:
            if event.event_type == OUTPUT_DELTA:
                self._inbox.put(bytes(event.payload))

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._inbox.on_ready(partial(self._mailbox.post, callback))
