"""Collects runs of several callers into one call of a batch function. A bad item fails alone; a cancelled run leaves the batch."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from gen_worker.authoring.batch import Batch
from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import CanceledError, OutputError
from gen_worker.execution.call import Ended, OnEnd, never_said
from gen_worker.execution.outputs import OutputWriter
from gen_worker.execution.stuck import thread_stacks
from gen_worker.execution.tenant_loop import TenantLoop, TenantTask
from gen_worker.execution.threads import RunThreads
from gen_worker.outcome import Failure, failure_of
from gen_worker.texts import class_name, counted

MAX_IDLE_BATCHERS = 64


class BatchContext(ActionContext):
    """The `ctx` of a batch function. `items` are the contexts of the runs, in payload order: use them for the progress,
    events and files of one run. Whatever is emitted here goes to all runs. It counts as cancelled once all of them are.
    """

    def __init__(self, batch_id: str, items: Sequence[ActionContext], device: str | None) -> None:
        super().__init__(batch_id, self._emit_to_all, device=device)
        self._items = tuple(items)

    @property
    def items(self) -> tuple[ActionContext, ...]:
        return self._items

    def is_canceled(self) -> bool:
        return all(item.is_canceled() for item in self._items)

    def _emit_to_all(self, event: dict[str, Any]) -> None:
        payload = {key: value for key, value in event["payload"].items() if key != "timestamp"}
        for item in self._items:
            item.emit(event["type"], payload)

    def report_usage(self, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
        raise RuntimeError("a batch has no usage of its own; report each run's by its own context: ctx.items[i].report_usage(...)")

    def _default_store(self) -> Any:
        raise RuntimeError("a batch has no files of its own; save through the run's own context: ctx.items[i].save_bytes(...)")


class BatchCall:
    """One run's part in a batch."""

    def __init__(
        self,
        batcher: "Batcher",
        ctx: ActionContext,
        payload: Any,
        arguments: Mapping[str, Any],
        writer: OutputWriter,
    ) -> None:
        self.ctx = ctx
        self.payload = payload
        self.arguments = arguments
        self.writer = writer
        self.since_s = time.monotonic()
        self.running: _RunningBatch | None = None
        self.author_runs = False
        self._batcher = batcher
        self._on_end: OnEnd | None = None

    def start(self, on_end: OnEnd) -> None:
        """Join the queue; `on_end` as for `Call.start`. It is also called when the run leaves the queue."""
        self._on_end = on_end
        self.author_runs = True
        self._batcher.add(self)

    def stacks(self) -> list[str]:
        """Python stacks of the author's code at this moment."""
        return self.running.stacks() if self.running is not None else []

    def settle(self, ended: Ended) -> None:
        """The batch is over for this run."""
        self.author_runs = False
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(ended)

    def stop(self) -> None:
        """Leave the queue. If the batch already runs, its author's code is told."""
        try:
            ActionContext.cancel(self.ctx)
        finally:
            if self._batcher.remove(self):
                self.settle(failure_of(CanceledError("canceled")))
            elif self.running is not None:
                self.running.one_stopped()


class Batcher:
    """The queue of one function, for runs that use the same models. Lives on the loop."""

    def __init__(
        self,
        spec: FunctionSpec,
        batch: Batch,
        threads: RunThreads,
        tenant: TenantLoop,
        device: str | None,
    ) -> None:
        self.spec = spec
        self.device = device
        self.tenant = tenant
        self.threads = threads
        self._batch = batch
        self._waiting: deque[BatchCall] = deque()
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ids = itertools.count(1)

    @property
    def idle(self) -> bool:
        return not self._waiting and self._running == 0

    def add(self, call: BatchCall) -> None:
        """Add a run to the queue."""
        self._waiting.append(call)
        self._look()

    def remove(self, call: BatchCall) -> bool:
        """Remove a cancelled run from the queue; False when its batch is already running."""
        try:
            self._waiting.remove(call)
        except ValueError:
            return False
        return True

    def ended(self) -> None:
        """A batch has ended: the next one may start."""
        self._running -= 1
        self._look()

    def _look(self) -> None:
        batch = self._batch
        while self._waiting and self._running < batch.parallel:
            wait_s = self._waiting[0].since_s + batch.max_wait_ms / 1000 - time.monotonic()
            if len(self._waiting) < batch.max_size and wait_s > 0:
                if self._timer is None:
                    self._timer = self.threads.mailbox.loop.call_later(wait_s, self._on_timer)
                return
            calls = [self._waiting.popleft() for _ in range(min(batch.max_size, len(self._waiting)))]
            self._running += 1
            _RunningBatch(self, f"batch-{next(self._ids)}", calls).start()

    def _on_timer(self) -> None:
        self._timer = None
        self._look()


class _RunningBatch:
    """One call of the author's function."""

    def __init__(self, batcher: Batcher, batch_id: str, calls: list[BatchCall]) -> None:
        self._batcher = batcher
        self._spec = batcher.spec
        self._calls = calls
        self._name = f"run {batcher.spec.name} {batch_id}"
        self._id = batch_id
        self._task: TenantTask[list[Ended]] | None = None
        self._ctx: BatchContext | None = None
        for call in calls:
            call.running = self

    def start(self) -> None:
        """Call the function. Its runs are settled later, never before this returns."""
        try:
            if self._spec.is_async:
                self._task = self._batcher.tenant.start(self._name, self._all_async, self._ended)
            else:
                self._batcher.threads.start(self._name, self._all, self._ended)
        except Exception as exc:  # noqa: BLE001 - such as no thread left; the queue goes on
            failed: list[Ended] = [failure_of(exc)] * len(self._calls)
            self._batcher.threads.mailbox.loop.call_soon(self._ended, failed)

    def stacks(self) -> list[str]:
        return self._task.stacks() if self._task is not None else thread_stacks(self._name)

    def one_stopped(self) -> None:
        """A run of this batch was cancelled. When all are, the batch is cancelled."""
        if all(ActionContext.is_canceled(call.ctx) for call in self._calls):
            if self._ctx is not None:
                self._ctx.cancel()
            if self._task is not None:
                self._task.cancel()

    def _ended(self, ends: list[Ended] | None) -> None:
        if ends is None:
            ends = [never_said(call.ctx) for call in self._calls]
        try:
            self._batcher.ended()  # first, so that the next batch starts while this one's results are delivered
        finally:
            self._hand_out(deque(zip(self._calls, ends, strict=True)))

    def _hand_out(self, settled: "deque[tuple[BatchCall, Ended]]") -> None:
        # One result a turn of the loop: in between, the next batch's thread gets the interpreter.
        call, ended = settled.popleft()
        if settled:
            self._batcher.threads.mailbox.loop.call_soon(self._hand_out, settled)
        call.settle(ended)

    def _all(self) -> list[Ended]:
        ends = self._together(self._calls)
        if not isinstance(ends, Failure):
            return ends
        if len(self._calls) == 1:
            return [ends]
        singles = [self._together([call]) for call in self._calls]
        return [single if isinstance(single, Failure) else single[0] for single in singles]

    async def _all_async(self) -> list[Ended]:
        ends = await self._together_async(self._calls)
        if not isinstance(ends, Failure):
            return ends
        if len(self._calls) == 1:
            return [ends]
        singles = [await self._together_async([call]) for call in self._calls]
        return [single if isinstance(single, Failure) else single[0] for single in singles]

    def _together(self, calls: list[BatchCall]) -> list[Ended] | Failure:
        try:
            return self._encode(calls, self._call(calls))
        except BaseException as exc:  # noqa: BLE001 - the edge to the author's code
            return failure_of(exc)

    async def _together_async(self, calls: list[BatchCall]) -> list[Ended] | Failure:
        try:
            return self._encode(calls, await self._call(calls))
        except asyncio.CancelledError as exc:
            return failure_of(CanceledError("canceled") if all(call.ctx.is_canceled() for call in calls) else exc)
        except BaseException as exc:  # noqa: BLE001 - the edge to the author's code
            return failure_of(exc)

    def _call(self, calls: list[BatchCall]) -> Any:
        if all(call.ctx.is_canceled() for call in calls):
            raise CanceledError("canceled")
        ctx = self._ctx = BatchContext(self._id, [call.ctx for call in calls], self._batcher.device)
        arguments = {**calls[0].arguments, self._spec.payload_param: [call.payload for call in calls]}
        return self._spec.function(ctx, **arguments)

    def _encode(self, calls: list[BatchCall], results: Any) -> list[Ended]:
        if not isinstance(results, (list, tuple)) or len(results) != len(calls):
            got = counted(len(results), "item") if isinstance(results, (list, tuple)) else class_name(results)
            raise OutputError(f"returned {got} for {len(calls)} payloads; a batch function returns a list with one output a payload")
        return [self._encode_one(call, result) for call, result in zip(calls, results, strict=True)]

    def _encode_one(self, call: BatchCall, result: Any) -> Ended:
        try:
            return failure_of(result) if isinstance(result, BaseException) else call.writer.result(result)
        except Exception as exc:  # noqa: BLE001 - one bad item fails alone
            return failure_of(exc)


class Batchers:
    """All batch queues of a worker: one for each batch function and set of models."""

    def __init__(self, threads: RunThreads, tenant: TenantLoop) -> None:
        self._threads = threads
        self._tenant = tenant
        self._batchers: dict[tuple[Any, ...], Batcher] = {}

    def of(self, spec: FunctionSpec, model_ids: tuple[str, ...], device: str | None) -> Batcher:
        """The queue for runs of this function with these models on this device."""
        assert spec.batch is not None
        key = (spec.function, spec.batch, device, *model_ids)
        found = self._batchers.get(key)
        if found is None:
            if len(self._batchers) >= MAX_IDLE_BATCHERS:
                self._batchers = {known: batcher for known, batcher in self._batchers.items() if not batcher.idle}
            found = self._batchers[key] = Batcher(spec, spec.batch, self._threads, self._tenant, device)
        return found
