"""Call one function, whatever its kind: sync in a thread, async on the tenant loop, once or as a stream of deltas."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import msgspec

from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import CanceledError, OutputError, WorkerError
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.run_outbox import RunOutbox
from gen_worker.execution.stuck import task_stacks, thread_stacks
from gen_worker.execution.threads import Post, RunThreads, TenantLoop, ThreadJob
from gen_worker.residency.devices import current_gpu

Encode = Callable[[Any], bytes]
OnEnd = Callable[[bytes, Exception | None], None]
_Ended = tuple[bytes, BaseException | None]


class CallLimits(msgspec.Struct, frozen=True):
    """0 means no limit."""

    output_bytes: int = 0
    delta_bytes: int = 0
    delta_events: int = 0


class Call:
    """One call. It ends at once when the token says so, whatever the author's code is doing. Lives on the loop."""

    def __init__(
        self,
        spec: FunctionSpec,
        ctx: ActionContext,
        arguments: Mapping[str, Any],
        *,
        token: CancelToken,
        outbox: RunOutbox,
        threads: RunThreads,
        tenant: TenantLoop,
        encode: Encode,
        encode_delta: Encode,
        limits: CallLimits,
        gpu: str | None = None,  # which one "cuda" means while the function runs, where there are several
    ) -> None:
        self._gpu = gpu
        self._spec = spec
        self._ctx = ctx
        self._arguments = arguments
        self._token = token
        self._threads = threads
        self._post = threads.mailbox.post
        self._tenant = tenant
        self._encode = encode
        self._encode_delta = encode_delta
        self._limits = limits
        self._outbox = outbox
        self.author_runs = False
        self._task: asyncio.Task[_Ended] | None = None
        self._job: ThreadJob | None = None
        self._thread_name = f"run {spec.name} {ctx.run_id}"
        self._on_end: OnEnd | None = None
        self._on_author_end: Callable[[], None] | None = None

    def start(self, on_end: OnEnd, on_author_end: Callable[[], None]) -> None:
        """Call the function. `on_end` is called once: with the encoded output (empty for a stream), or with what the author's code
        raised, or why the run had to stop; it may come before this returns. `on_author_end` is called when the author's code has
        returned, which may be after the run's end; not at all if it was never entered.
        """
        self._on_end = on_end
        self._on_author_end = on_author_end
        self._token.on_cancel(self._stop)
        if self._ctx.is_canceled():
            return  # it had to stop before it began
        self.author_runs = True
        if self._spec.is_async:
            self._tenant.loop.call_soon_threadsafe(self._start_task)
        else:
            self._job = self._threads.start(self._thread_name, self._in_thread)

    def stacks(self) -> list[str]:
        """Where the author's code is just now."""
        return task_stacks(self._task) or thread_stacks(self._thread_name)

    def _start_task(self) -> None:
        self._task = self._tenant.loop.create_task(self._as_coroutine(), name=self._thread_name)
        self._task.add_done_callback(self._task_ended)

    def _task_ended(self, done: "asyncio.Task[_Ended]") -> None:
        # A task that is cancelled before its first step never enters its body.
        self._post(self._author_ended, *((b"", CanceledError("canceled")) if done.cancelled() else done.result()))

    def _stop_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _stop(self, reason: WorkerError) -> None:
        self._ctx.cancel()
        self._outbox.close()
        if self._job is not None:
            self._job.leave(self._ctx.run_id, self._spec.name)
        elif self.author_runs:
            self._tenant.loop.call_soon_threadsafe(self._stop_task)
        self._settle(b"", reason)

    def _author_ended(self, output: bytes, error: BaseException | None) -> None:
        self.author_runs = False
        self._settle(output, error)
        if self._on_author_end is not None:
            self._on_author_end()

    def _settle(self, output: bytes, error: BaseException | None) -> None:
        if self._on_end is None:
            return  # cancelled or timed out before; what the author's code did afterwards counts no more
        on_end, self._on_end = self._on_end, None
        on_end(output, None if error is None else escaped(error))

    def _in_thread(self) -> Post:
        try:
            self._check_canceled()
            with current_gpu(self._gpu):
                result = self._spec.function(self._ctx, **self._arguments)
                output = self._finish(result) if self._spec.output_mode == "single" else self._stream(result)
        except BaseException as exc:  # noqa: BLE001 - the edge to the author's code: SystemExit ends the run, not the worker
            return self._author_ended, (b"", exc)
        return self._author_ended, (output, None)

    async def _as_coroutine(self) -> _Ended:
        try:
            self._check_canceled()
            result = self._spec.function(self._ctx, **self._arguments)
            if self._spec.output_mode == "single":
                output = self._finish(await result)
            else:
                output = await self._stream_async(await result if asyncio.iscoroutine(result) else result)
        except asyncio.CancelledError:
            return b"", CanceledError("canceled")
        except BaseException as exc:  # noqa: BLE001 - the edge to the author's code
            return b"", exc
        return output, None

    def _finish(self, result: Any) -> bytes:
        self._check_canceled()
        return check_output(result, self._spec.output_type, self._encode, self._limits)

    def _stream(self, result: Any) -> bytes:
        try:
            items: Iterator[Any] = iter(result)
        except TypeError:
            raise OutputError(f"returned {type(result).__name__}; declared is a stream of {self._spec.output_type.__name__}") from None
        try:
            for count, item in enumerate(items, start=1):
                self._check_canceled()
                if not self._outbox.put_delta(self._delta(item)):
                    break
                if count == self._limits.delta_events:
                    break
            self._check_canceled()
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        return b""

    async def _stream_async(self, items: AsyncIterator[Any]) -> bytes:
        if not hasattr(items, "__aiter__"):
            raise OutputError(f"returned {type(items).__name__}; declared is an async stream of {self._spec.output_type.__name__}")
        count = 0
        try:
            async for item in items:
                self._check_canceled()
                if not await self._outbox.put_delta_async(self._delta(item)):
                    break
                count += 1
                if count == self._limits.delta_events:
                    break
            self._check_canceled()
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
        return b""

    def _delta(self, item: Any) -> bytes:
        delta = _checked(item, "yielded", self._spec.output_type, self._encode_delta)
        if self._limits.delta_bytes and len(delta) > self._limits.delta_bytes:
            raise OutputError(
                f"yielded an item of {len(delta)} bytes; at most {self._limits.delta_bytes} are allowed (WORKER_MAX_OUTPUT_DELTA_BYTES). "
                "Yield smaller pieces, or save a file and yield its ref"
            )
        return delta

    def _check_canceled(self) -> None:
        if self._ctx.is_canceled():
            raise CanceledError("canceled")


def check_output(result: Any, kind: type[msgspec.Struct], encode: Encode, limits: CallLimits) -> bytes:
    """A returned value, encoded; `OutputError` when it is not what the signature declares, `ValueError` when it is too large."""
    output = _checked(result, "returned", kind, encode)
    if limits.output_bytes and len(output) > limits.output_bytes:
        raise ValueError(f"output of {len(output)} bytes; at most {limits.output_bytes} are allowed (WORKER_MAX_OUTPUT_BYTES)")
    return output


def _checked(value: Any, verb: str, kind: type[msgspec.Struct], encode: Encode) -> bytes:
    if not isinstance(value, kind):
        raise OutputError(f"{verb} {type(value).__name__}; declared is {kind.__name__}")
    try:
        return encode(value)
    except (TypeError, OverflowError, RecursionError, UnicodeEncodeError) as exc:
        raise OutputError(f"{verb} a {type(value).__name__} that cannot be encoded: {exc}") from exc


def escaped(error: BaseException) -> Exception:
    """What an author's code raised, as an `Exception`."""
    return error if isinstance(error, Exception) and not isinstance(error, StopIteration) else _EscapedError(error)


class _EscapedError(Exception):
    """Carries SystemExit, StopIteration and their like, which loops and generators would take for their own."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__}({cause})")
