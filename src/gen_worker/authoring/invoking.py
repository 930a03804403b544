"""Functions that call functions: how `ctx.invoke` and `ctx.stream` talk to whoever runs the other function.

    author's thread or task      Inbox                     Children (this process, or the platform)
    ctx.invoke(ref, payload) --> ChildCall -------------------> begins the run
       waits <------------------ items of a stream, one ChildEnd <--- reports results, in any thread

The other run belongs to the calling one: it gets the time that is left, and ends with it at the latest. (asyncio and
`outcome` are imported only where they are used, because an author's module should not wait for them.)
"""

import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gen_worker.errors import (
    AuthError,
    CanceledError,
    DeadlineError,
    DiskFullError,
    FatalError,
    OutputError,
    ResourceError,
    RetryableError,
    StorageError,
    ValidationError,
    WorkerError,
)

if TYPE_CHECKING:
    import asyncio

    from gen_worker.outcome import Outcome

MAX_WAITING = 64  # items of a stream that were not taken yet
_encode = msgspec.json.Encoder().encode


class ChildCall(msgspec.Struct, frozen=True):
    """One call. `number` counts the calls of the run, from 1, in the order in which they begin. `payload` is JSON.
    `timeout_ms`: what is left of the calling run's time, 0 for no limit.
    """

    number: int
    ref: str
    payload: bytes
    timeout_ms: int = 0


class ChildEnd(msgspec.Struct, frozen=True):
    """How a call ended: its outcome, with the output as JSON (empty for a stream)."""

    outcome: "Outcome"


class Inbox:
    """The results of one call. Any thread puts, one thread or task takes. While it is not `ready`, a stream should wait
    for `on_ready`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: deque[bytes | ChildEnd] = deque()
        self._taker: Callable[[], None] | None = None
        self._putters: list[Callable[[], None]] = []
        self._is_over = False

    @property
    def ready(self) -> bool:
        return len(self._said) < MAX_WAITING

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call back when there is room, from the taker's thread; immediately if there is."""
        with self._lock:
            if not self.ready:
                self._putters.append(callback)
                return
        callback()

    def put(self, said: bytes | ChildEnd) -> None:
        """Add an item of a stream (JSON) or the end. After the end nothing is accepted."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = isinstance(said, ChildEnd)
            self._said.append(said)
            taker, self._taker = self._taker, None
        if taker is not None:
            taker()

    def take(self) -> bytes | ChildEnd:
        """Take the next one. Blocking."""
        event = threading.Event()
        while (said := self._next(event.set)) is None:
            event.wait()
            event.clear()
        return said

    async def take_async(self) -> bytes | ChildEnd:
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            future: asyncio.Future[None] = loop.create_future()

            def wake(future: "asyncio.Future[None]" = future) -> None:
                with contextlib.suppress(RuntimeError):  # the author's loop is closed: nobody waits
                    loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(None))

            if (said := self._next(wake)) is not None:
                return said
            await future

    def _next(self, taker: Callable[[], None]) -> bytes | ChildEnd | None:
        with self._lock:
            if not self._said:
                self._taker = taker
                return None
            said = self._said.popleft()
            putters, self._putters = self._putters, []
        for putter in putters:
            putter()
        return said


class Children(Protocol):
    """Runs functions for one run."""

    def start(self, call: ChildCall, inbox: Inbox) -> Callable[[], None]:
        """Begin the call, from any thread. Never raises for a bad call: the inbox gets the error, and always an end.
        Call the returned function, from any thread, to stop the call.
        """
        ...

    def close(self) -> None:
        """The calling run is over: stop its remaining calls. On the executor's loop."""
        ...


def child_call(number: int, ref: str, payload: Any, left_s: float | None) -> ChildCall:
    """A call as it is passed on; `TypeError` when the payload is not an object."""
    if not isinstance(ref, str) or not ref:
        raise TypeError(f"ctx.invoke takes the name of a function, such as 'draw' or 'owner/endpoint/function'; got {type(ref).__name__}")
    data = _encode(payload)
    if not data.startswith(b"{"):
        raise TypeError(f"the payload of {ref[:100]!r} is a {type(payload).__name__}; expected a Struct, or a dict with its fields")
    return ChildCall(number, ref, data, 0 if left_s is None else max(1, round(left_s * 1000)))


def result_of(end: ChildEnd, items: list[bytes], output: Any) -> Any:
    """The result of a call: its output, or for a stream the list of its items. Raises what the function raised."""
    if not end.outcome.success:
        raise error_of(end.outcome)
    if end.outcome.output:
        return _decoded(end.outcome.output, output)
    return [_decoded(item, output) for item in items]


async def answer(children: Children, call: ChildCall, output: Any) -> Any:
    """Make a call, and wait for its result."""
    inbox, items = Inbox(), list[bytes]()
    stop = children.start(call, inbox)
    try:
        while not isinstance(said := await inbox.take_async(), ChildEnd):
            items.append(said)
    finally:
        stop()
    return result_of(said, items, output)


def answer_sync(children: Children, call: ChildCall, output: Any) -> Any:
    """Like `answer`, in a thread."""
    refuse_on_a_loop("invoke")
    inbox, items = Inbox(), list[bytes]()
    stop = children.start(call, inbox)
    try:
        while not isinstance(said := inbox.take(), ChildEnd):
            items.append(said)
    finally:
        stop()
    return result_of(said, items, output)


async def stream(children: Children, call: ChildCall, output: Any) -> AsyncIterator[Any]:
    """Make a call, and yield its items as they come; a function that does not stream yields its one output. Stopping
    early stops the call.
    """
    inbox = Inbox()
    stop = children.start(call, inbox)
    try:
        while not isinstance(said := await inbox.take_async(), ChildEnd):
            yield _decoded(said, output)
    finally:
        stop()
    for last in _last(said, output):
        yield last


def stream_sync(children: Children, call: ChildCall, output: Any) -> Iterator[Any]:
    """Like `stream`, in a thread."""
    refuse_on_a_loop("stream")
    inbox = Inbox()
    stop = children.start(call, inbox)
    try:
        while not isinstance(said := inbox.take(), ChildEnd):
            yield _decoded(said, output)
    finally:
        stop()
    yield from _last(said, output)


def error_of(outcome: "Outcome") -> WorkerError:
    """The exception for a failed outcome: the caller can catch the same class that the function raised."""
    text = outcome.safe_message if outcome.error_type != "internal" else outcome.error_message
    if outcome.error_type == "validation":
        return ValidationError(text, errors=outcome.errors)
    kind = _BY_CODE.get(outcome.code) or _BY_TYPE.get(outcome.error_type, WorkerError)
    return kind(text)


_BY_CODE: dict[str, type[WorkerError]] = {kind.code: kind for kind in (DeadlineError, OutputError, DiskFullError, StorageError)}
_BY_TYPE: dict[str, type[WorkerError]] = {
    kind.error_type: kind for kind in (RetryableError, ResourceError, CanceledError, FatalError, AuthError)
}


def refuse_on_a_loop(name: str) -> None:
    """`RuntimeError` on an event loop, which the blocking call would block."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    instead = "await ctx.invoke(...)" if name == "invoke" else "async for item in ctx.stream(...)"
    raise RuntimeError(f"ctx.{name}_sync in an async function would block every other one; write: {instead}")


def _last(end: ChildEnd, output: Any) -> list[Any]:
    if not end.outcome.success:
        raise error_of(end.outcome)
    return [_decoded(end.outcome.output, output)] if end.outcome.output else []


def _decoded(data: bytes, output: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=output if output is not None else Any)
    except msgspec.ValidationError as exc:
        raise OutputError(f"the called function gave something other than {getattr(output, '__name__', output)}: {exc}") from None
