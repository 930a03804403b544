"""Calls one function of any kind: sync in a thread, async on the tenant loop, with one result or a stream of deltas."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from typing import Any

from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import CanceledError, OutputError
from gen_worker.execution.event_pipe import EventPipe
from gen_worker.execution.forks import end_child
from gen_worker.execution.outputs import OutputWriter
from gen_worker.execution.stuck import thread_stacks
from gen_worker.execution.tenant_loop import TenantLoop, TenantTask
from gen_worker.execution.threads import RunThreads, ThreadJob
from gen_worker.outcome import Failure, failure_of
from gen_worker.residency.devices import current_gpu
from gen_worker.texts import class_name

# How a call ended: with its encoded output (empty for a stream), or with what its exception means. An exception is
# turned into plain values in the author's own thread, because reading its text may run the author's code.
Ended = bytes | Failure
OnEnd = Callable[[Ended], None]


class Call:
    """One call. `stop` tells the author's code to end; the code decides when. Lives on the loop."""

    def __init__(
        self,
        spec: FunctionSpec,
        ctx: ActionContext,
        arguments: Mapping[str, Any],
        *,
        pipe: EventPipe,
        threads: RunThreads,
        tenant: TenantLoop,
        writer: OutputWriter,
        gpu: str | None = None,  # with several GPUs, the one that "cuda" means while the function runs
        on_result: Callable[[bytes], None] | None = None,  # called with the result in the author's thread, before `on_end`
    ) -> None:
        self._on_result = on_result
        self._gpu = gpu
        self._spec = spec
        self._ctx = ctx
        self._arguments = arguments
        self._threads = threads
        self._tenant = tenant
        self._writer = writer
        self._pipe = pipe
        self.author_runs = False
        self._task: TenantTask[Ended] | None = None
        self._job: ThreadJob | None = None
        self._run_id = ctx.run_id
        self._pid = os.getpid()
        self._thread_name = f"run {spec.name} {ctx.run_id}"
        self._on_end: OnEnd = _nobody

    def start(self, on_end: OnEnd) -> None:
        """Call the function. `on_end` is called once, when its code has ended, and never before this returns."""
        self._on_end = on_end
        if self._spec.is_async:
            self._task = self._tenant.start(self._thread_name, self._as_coroutine, self._ended)
        else:
            self._job = self._threads.start(self._thread_name, self._in_thread, self._ended)
        self.author_runs = True

    def stacks(self) -> list[str]:
        """Python stacks of the author's code at this moment."""
        return self._task.stacks() if self._task is not None else thread_stacks(self._thread_name)

    def stop(self) -> None:
        """Tell the author's code to end."""
        try:
            ActionContext.cancel(self._ctx)  # called on the class, because the author may have changed the instance
        finally:
            if self._job is not None:
                self._job.leave(self._run_id, self._spec.name)
            elif self._task is not None:
                self._task.cancel()

    def _ended(self, ended: Ended | None) -> None:
        self.author_runs = False
        on_end, self._on_end = self._on_end, _nobody
        self._task = self._job = None  # they refer back to this call
        on_end(never_said(self._ctx) if ended is None else ended)

    def _in_thread(self) -> Ended:
        try:
            self._check_canceled()
            with current_gpu(self._gpu):
                result = self._spec.function(self._ctx, **self._arguments)
                if self._spec.output_mode != "single":
                    return self._stream(result)
                self._stay_in_parent()
                output = self._writer.result(result)
        except BaseException as exc:  # noqa: BLE001 - the edge to the author's code: SystemExit ends the run, not the worker
            self._stay_in_parent(exc)
            return failure_of(exc)
        if self._on_result is not None:
            self._on_result(output)
        return output

    async def _as_coroutine(self) -> Ended:
        try:
            if self._spec.kind == "websocket":  # even when its client has left: the handler reads the frames that arrived
                await self._spec.function(self._ctx, **self._arguments)
                return b""
            self._check_canceled()
            result = self._spec.function(self._ctx, **self._arguments)
            if self._spec.output_mode != "single":
                return await self._stream_async(await result if asyncio.iscoroutine(result) else result)
            given = await result
            self._stay_in_parent()
            output = self._writer.result(given)
        except asyncio.CancelledError as exc:
            self._stay_in_parent(exc)
            # Cancelled by the run's end, or by the author's own asyncio code, which is not a cancel by the caller.
            return failure_of(CanceledError("canceled") if ActionContext.is_canceled(self._ctx) else exc)
        except BaseException as exc:  # noqa: BLE001 - the edge to the author's code
            self._stay_in_parent(exc)
            return failure_of(exc)
        if self._on_result is not None:
            self._on_result(output)
        return output

    def _stay_in_parent(self, exc: BaseException | None = None) -> None:
        """Only the process that called the function goes on from here, not a child that the function forked."""
        if os.getpid() != self._pid:
            end_child(exc)

    def _stream(self, result: Any) -> bytes:
        try:
            given: Iterator[Any] = iter(result)
        except TypeError:
            raise OutputError(f"returned {class_name(result)}; declared is a stream of {self._spec.output_type.__name__}") from None
        items = _values_of(given, self._spec.output_type.__name__)
        try:
            for count, item in enumerate(items, start=1):
                self._stay_in_parent()
                self._check_canceled()
                if not self._pipe.put_delta(self._writer.delta(item)):
                    break
                if count == self._writer.limits.delta_events:
                    break
            self._stay_in_parent()
            self._check_canceled()
        finally:
            items.close()
        return b""

    async def _stream_async(self, items: AsyncIterator[Any]) -> bytes:
        if not hasattr(items, "__aiter__"):
            raise OutputError(f"returned {class_name(items)}; declared is an async stream of {self._spec.output_type.__name__}")
        count = 0
        try:
            async for item in items:
                self._stay_in_parent()
                self._check_canceled()
                if not await self._pipe.put_delta_async(self._writer.delta(item)):
                    break
                count += 1
                if count == self._writer.limits.delta_events:
                    break
            self._stay_in_parent()
            self._check_canceled()
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
        return b""

    def _check_canceled(self) -> None:
        if ActionContext.is_canceled(self._ctx):
            raise CanceledError("canceled")


def never_said(ctx: ActionContext) -> Failure:
    """The end of a call whose thread or task reported none: it was cancelled before its first step, or its loop was closed."""
    if ActionContext.is_canceled(ctx):
        return failure_of(CanceledError("canceled"))
    return failure_of(RuntimeError("the call was ended from outside: its task was cancelled before it began, or its event loop was closed"))


def _nobody(ended: Ended) -> None:
    """The callback before `start`: nobody listens yet."""


def _values_of(items: Any, declared: str) -> Generator[Any, None, None]:
    """The items of a stream. `OutputError` for a generator that also returns a value, because nobody would see that value."""
    try:
        returned: Any = yield from items
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
    if returned is not None:
        raise OutputError(f"returned {class_name(returned)} at the end of a stream of {declared}; yield it as the last item instead")
