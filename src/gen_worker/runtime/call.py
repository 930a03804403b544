"""Call one function, whatever its kind: sync in a thread, async on the tenant loop, once or as a stream of deltas."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from gen_worker import events
from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import CanceledError, OutputError, WorkerError
from gen_worker.runtime.cancellation import CancelToken
from gen_worker.runtime.threads import RunThreads, TenantLoop

MAX_UNTAKEN_DELTAS = 64
MAX_UNTAKEN_BYTES = 1 << 20

Encode = Callable[[Any], bytes]


class RunSink(Protocol):
    """Takes what a run says, on the loop. While `ready` is False the run's stream is paused, until `on_ready` is called back."""

    @property
    def ready(self) -> bool: ...

    def emit(self, event: events.RunEvent) -> None: ...

    def on_ready(self, callback: Callable[[], None]) -> None: ...


class CallLimits(msgspec.Struct, frozen=True):
    """0 means no limit."""

    output_bytes: int = 0
    delta_bytes: int = 0
    delta_events: int = 0


class Call:
    """One call. `result()` ends at once when the token says so, whatever the author's code is doing."""

    def __init__(
        self,
        spec: FunctionSpec,
        ctx: ActionContext,
        arguments: Mapping[str, Any],
        *,
        token: CancelToken,
        sink: RunSink,
        threads: RunThreads,
        tenant: TenantLoop,
        encode: Encode,
        limits: CallLimits,
    ) -> None:
        self._spec = spec
        self._ctx = ctx
        self._arguments = arguments
        self._token = token
        self._threads = threads
        self._post = threads.mailbox.post
        self._tenant = tenant
        self._encode = encode
        self._limits = limits
        self._flow = _Flow(sink) if spec.output_mode == "incremental" else None
        self._future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def result(self) -> bytes:
        """The encoded output, empty for a stream; raises what the author's code raised, or why the run had to stop."""
        self._token.on_cancel(self._stop)
        if self._future.done():
            return await self._future
        if self._spec.is_async:
            return await self._on_tenant_loop()
        job = self._threads.start(f"run {self._spec.name} {self._ctx.run_id}", self._in_thread)
        try:
            return await self._future
        finally:
            if self._token.reason is not None:
                job.leave(self._ctx.run_id, self._spec.name)

    async def _on_tenant_loop(self) -> bytes:
        loop = self._tenant.loop
        task: asyncio.Future[None] | None = None

        def start() -> None:
            nonlocal task
            task = loop.create_task(self._as_coroutine(), name=f"run {self._spec.name} {self._ctx.run_id}")

        def stop() -> None:
            if task is not None:
                task.cancel()

        loop.call_soon_threadsafe(start)
        try:
            return await self._future
        finally:
            if self._token.reason is not None:
                loop.call_soon_threadsafe(stop)

    def _stop(self, reason: WorkerError) -> None:
        self._ctx.cancel()
        if self._flow is not None:
            self._flow.close()
        self._settle(b"", reason)

    def _settle(self, output: bytes, error: BaseException | None) -> None:
        if self._future.done():
            return  # cancelled or timed out before; what the author's code did afterwards counts no more
        if error is None:
            self._future.set_result(output)
        else:
            self._future.set_exception(error if isinstance(error, Exception) else _EscapedError(error))

    def _in_thread(self) -> None:
        try:
            self._check_canceled()
            result = self._spec.function(self._ctx, **self._arguments)
            output = self._finish(result) if self._flow is None else self._stream(self._flow, result)
        except BaseException as exc:  # noqa: BLE001 - the edge to the author's code: SystemExit ends the run, not the worker
            self._post(self._settle, b"", exc)
        else:
            self._post(self._settle, output, None)

    async def _as_coroutine(self) -> None:
        try:
            self._check_canceled()
            result = self._spec.function(self._ctx, **self._arguments)
            if self._flow is None:
                output = self._finish(await result)
            else:
                output = await self._stream_async(self._flow, await result if asyncio.iscoroutine(result) else result)
        except asyncio.CancelledError:
            self._post(self._settle, b"", CanceledError("canceled"))
        except BaseException as exc:  # noqa: BLE001 - the edge to the author's code
            self._post(self._settle, b"", exc)
        else:
            self._post(self._settle, output, None)

    def _finish(self, result: Any) -> bytes:
        self._check_canceled()
        output = self._checked(result, "returned")
        if self._limits.output_bytes and len(output) > self._limits.output_bytes:
            raise ValueError(f"output of {len(output)} bytes; at most {self._limits.output_bytes} are allowed (WORKER_MAX_OUTPUT_BYTES)")
        return output

    def _stream(self, flow: "_Flow", result: Any) -> bytes:
        try:
            items: Iterator[Any] = iter(result)
        except TypeError:
            raise OutputError(f"returned {type(result).__name__}; declared is a stream of {self._spec.output_type.__name__}") from None
        try:
            for count, item in enumerate(items, start=1):
                self._check_canceled()
                delta = self._delta(item)
                if not flow.wait_for_room(len(delta)):
                    break
                self._post(flow.deliver, delta)
                if count == self._limits.delta_events:
                    break
            self._check_canceled()
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        return b""

    async def _stream_async(self, flow: "_Flow", items: AsyncIterator[Any]) -> bytes:
        if not hasattr(items, "__aiter__"):
            raise OutputError(f"returned {type(items).__name__}; declared is an async stream of {self._spec.output_type.__name__}")
        count = 0
        try:
            async for item in items:
                self._check_canceled()
                delta = self._delta(item)
                if not await flow.room(len(delta)):
                    break
                self._post(flow.deliver, delta)
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
        delta = self._checked(item, "yielded")
        if self._limits.delta_bytes and len(delta) > self._limits.delta_bytes:
            raise OutputError(
                f"yielded an item of {len(delta)} bytes; at most {self._limits.delta_bytes} are allowed (WORKER_MAX_OUTPUT_DELTA_BYTES). "
                "Yield smaller pieces, or save a file and yield its ref"
            )
        return delta

    def _checked(self, value: Any, verb: str) -> bytes:
        if not isinstance(value, self._spec.output_type):
            raise OutputError(f"{verb} {type(value).__name__}; declared is {self._spec.output_type.__name__}")
        try:
            return self._encode(value)
        except (TypeError, OverflowError, RecursionError, UnicodeEncodeError) as exc:
            raise OutputError(f"{verb} a {type(value).__name__} that cannot be encoded: {exc}") from exc

    def _check_canceled(self) -> None:
        if self._ctx.is_canceled():
            raise CanceledError("canceled")


class _EscapedError(Exception):
    """Carries SystemExit and its like through the loop, which would take them for its own."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__}({cause})")


class _Flow:
    """Back-pressure between the author's generator and the sink.

    The producer counts what it sent, the loop what the sink took; each writes its own counters only. At 64 deltas or 1 MiB
    untaken the producer waits. Deltas travel through the mailbox like all other events, so that their order is kept.
    """

    def __init__(self, sink: RunSink) -> None:
        self._sink = sink
        self._sent = self._sent_bytes = 0
        self._taken = self._taken_bytes = 0
        self._held: list[int] = []
        self._closed = False
        self._room = threading.Event()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def wait_for_room(self, size_bytes: int) -> bool:
        """From the producing thread: wait for room for one more; False when the run is over."""
        while self._full() and not self._closed:
            self._room.clear()
            if self._full() and not self._closed:
                self._room.wait()
        self._sent += 1
        self._sent_bytes += size_bytes
        return not self._closed

    async def room(self, size_bytes: int) -> bool:
        """The same for an async producer."""
        while self._full() and not self._closed:
            event = asyncio.Event()
            self._waiter = (asyncio.get_running_loop(), event)
            if self._full() and not self._closed:
                await event.wait()
            self._waiter = None
        self._sent += 1
        self._sent_bytes += size_bytes
        return not self._closed

    def deliver(self, delta: bytes) -> None:
        """On the loop: hand one delta to the sink; it counts as taken once the sink is ready for more."""
        if self._closed:
            return
        self._sink.emit(events.RunEvent(events.OUTPUT_DELTA, msgspec.Raw(delta)))
        self._held.append(len(delta))
        if self._sink.ready:
            self._take()
        elif len(self._held) == 1:
            self._sink.on_ready(self._take)

    def close(self) -> None:
        """On the loop: the run is over, nobody takes any more."""
        self._closed = True
        self._wake()

    def _take(self) -> None:
        self._taken += len(self._held)
        self._taken_bytes += sum(self._held)
        self._held.clear()
        self._wake()

    def _wake(self) -> None:
        self._room.set()
        waiter = self._waiter
        if waiter is not None:
            waiter[0].call_soon_threadsafe(waiter[1].set)

    def _full(self) -> bool:
        return self._sent - self._taken >= MAX_UNTAKEN_DELTAS or self._sent_bytes - self._taken_bytes >= MAX_UNTAKEN_BYTES
