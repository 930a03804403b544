"""`Session`: a realtime session for blocking code. The loop of `AsyncSession` runs in a thread that all sessions of a client share.

So pings are answered while the caller computes, one thread can send while another receives, and both clients have one
implementation.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar, overload

from gen_worker.client.asynchronous_sessions import CLOSE_S, LEAVE_S, AsyncSession
from gen_worker.client.session_rules import LOST, NORMAL, SessionEnd, error_of

T = TypeVar("T")


class ClosedError(Exception):
    """The loop has ended, because its client was closed."""


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.is_over = False
        self._lock = threading.RLock()  # a client may be collected in the midst of `run`
        self._sessions: weakref.WeakSet[AsyncSession] = weakref.WeakSet()
        self._thread = threading.Thread(target=self._serve, name="gen-worker-sessions", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], *, grace_s: float = 0.0) -> T:
        """Wait for it. When the waiting is interrupted, as by Ctrl-C, it is cancelled; `grace_s` later it is left alone."""
        with self._lock:  # whatever is begun before the end is told about it
            if self.is_over:
                work.close()
                raise ClosedError
            found = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return found.result()
        except BaseException:
            if not found.done():
                found.cancel()
                with contextlib.suppress(concurrent.futures.CancelledError, TimeoutError):
                    found.result(grace_s)
            raise

    def join(self, session: AsyncSession) -> None:
        """This session lives here: `stop` ends it."""
        with self._lock:
            self._sessions.add(session)

    def stop(self) -> None:
        """End the sessions and the thread."""
        self.abandon()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_S)

    def abandon(self) -> None:
        """The same without waiting: a program that ends has frozen the thread."""
        with self._lock:
            if self.is_over:
                return
            self.is_over = True
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end_all())
        finally:
            self._loop.close()

    async def _end_all(self) -> None:
        await asyncio.gather(*(each.leave() for each in list(self._sessions)))
        others = asyncio.all_tasks() - {asyncio.current_task()}  # threads that wait in `receive` or `send`: they are told
        if others:
            _, late = await asyncio.wait(others, timeout=LEAVE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class Session:
    """A realtime session. `with client.session(ref) as session:` opens it, and closes it in the end; Ctrl-C closes it, too.

    `id` names its run: `client.handle(session.id)`. Threads may share it: one may send while another receives.
    """

    def __init__(self, client: object, loop: LoopThread, inner: AsyncSession) -> None:
        self._client = client  # a client that nobody refers to closes, and its sessions with it
        self._loop = loop
        self._inner = inner
        loop.join(inner)

    @property
    def id(self) -> str:
        """The id of its run; empty until it is open."""
        return self._inner.id

    @property
    def ended(self) -> SessionEnd | None:
        """How it ended; None while it is open."""
        return self._inner.ended

    def open(self) -> Self:
        """Open it. On the platform it is open before a worker has it; messages wait until then. `GatewayError` when it is refused."""
        self._run(self._inner.open(), grace_s=LEAVE_S)
        return self

    def send(self, data: str | bytes | bytearray | memoryview) -> None:
        """Send one message: text, or bytes. Waits while the handler has no room. `SessionError` when the session is over."""
        self._run(self._inner.send(data))

    def send_json(self, value: Any) -> None:
        """Send a value as JSON text: plain values, Structs, dataclasses."""
        self._run(self._inner.send_json(value))

    def receive(self, timeout_s: float | None = None) -> str | bytes:
        """The next message: text as `str`, binary as `bytes`. `TimeoutError` after `timeout_s` seconds; the session stays
        open, and no message is lost. `SessionError` when the session is over, however it ended.
        """
        return self._run(_within(self._inner.receive, timeout_s))

    @overload
    def receive_json(self, output: type[T], timeout_s: float | None = None) -> T: ...
    @overload
    def receive_json(self, output: None = None, timeout_s: float | None = None) -> Any: ...
    def receive_json(self, output: Any = None, timeout_s: float | None = None) -> Any:
        """The next message, decoded as JSON; as an object of type `output`, if given."""
        return self._run(_within(lambda: self._inner.receive_json(output), timeout_s))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str | bytes:
        """The next message. The iteration ends when the session has ended normally; otherwise `SessionError`."""
        message: str | bytes | None = self._run(_next_of(self._inner))
        if message is None:
            raise StopIteration
        return message

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End the session: the handler reads what was sent, and then its iteration ends. Does nothing when it is over."""
        with contextlib.suppress(ClosedError):
            self._loop.run(self._inner.close(code, reason))

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, exc: object, trace: object) -> None:
        with contextlib.suppress(ClosedError):
            self._loop.run(self._inner.__aexit__(kind, exc, trace))

    def _run(self, work: Coroutine[Any, Any, T], *, grace_s: float = 0.0) -> T:
        try:
            return self._loop.run(work, grace_s=grace_s)
        except ClosedError:
            raise error_of(self.ended or SessionEnd(LOST, "connection_lost"), self.id) from None

    def __repr__(self) -> str:
        return f"Session({self.id!r})"


async def _within(work: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None) -> T:
    async with asyncio.timeout(timeout_s):
        return await work()


async def _next_of(session: AsyncSession) -> str | bytes | None:
    """The next message; None at the end. (A future cannot hold StopIteration.)"""
    async for message in session:
        return message
    return None
