"""The client for asyncio code: `AsyncClient`, and what it returns. It runs the same flows as the blocking client."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, Self, TypeVar, Unpack, overload

from gen_worker.client import following
from gen_worker.client.answers import result_of
from gen_worker.client.asynchronous_files import AsyncFiles
from gen_worker.client.asynchronous_sessions import AsyncSession
from gen_worker.client.asynchronous_wire import Driven, Wire
from gen_worker.client.calls import CallOptions, call_of, item_of, output_of
from gen_worker.client.effects import Flow
from gen_worker.client.errors import ClientError, RunError, UnreachableError
from gen_worker.client.flows import Begun, Flows
from gen_worker.client.session_rules import SessionOptions, opening_of
from gen_worker.client.settings import CONNECTIONS, find_server
from gen_worker.client.targets import read_target
from gen_worker.client.tries import Patience
from gen_worker.client.values import Run, RunEvent

OnEvent = Callable[[RunEvent], object]
T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited. `async with` closes its connections. It belongs to one event
    loop at a time.

    See `Client` for its arguments.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        profile: str | None = None,
        connections: int = CONNECTIONS,
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        where, key = find_server(url, key, profile, os.environ)
        self._flows = Flows({"authorization": f"Bearer {key}"} if key else {}, patience)
        self._wire = Wire(where, connections)
        self._leaving: set[asyncio.Task[None]] = set()
        self.url = where
        self.files = AsyncFiles(self)

    @overload
    async def run(
        self, ref: str, payload: Any = None, *, output: type[T], on_event: OnEvent | None = None, **options: Unpack[CallOptions]
    ) -> T: ...
    @overload
    async def run(
        self, ref: str, payload: Any = None, *, output: None = None, on_event: OnEvent | None = None, **options: Unpack[CallOptions]
    ) -> Any: ...
    async def run(
        self, ref: str, payload: Any = None, *, output: Any = None, on_event: OnEvent | None = None, **options: Unpack[CallOptions]
    ) -> Any:
        """Run a function and wait for its output, like `Client.run`. Cancelling the task cancels the run."""
        begun = Begun(call_of(ref, payload, options))
        try:
            state = await self._perform(following.made(self._flows, begun, on_event))
            return output_of(await self._perform(following.whole_result(self._flows, state)), output)
        except ClientError:
            raise
        except BaseException:
            await self._leave(begun)
            raise

    @overload
    async def submit(self, ref: str, payload: Any = None, *, output: type[T], **options: Unpack[CallOptions]) -> "AsyncRunHandle[T]": ...
    @overload
    async def submit(
        self, ref: str, payload: Any = None, *, output: None = None, **options: Unpack[CallOptions]
    ) -> "AsyncRunHandle[Any]": ...
    async def submit(self, ref: str, payload: Any = None, *, output: Any = None, **options: Unpack[CallOptions]) -> "AsyncRunHandle[Any]":
        """Start a run without waiting: it continues even if this program ends."""
        state = await self._perform(self._flows.create(Begun(call_of(ref, payload, options)), wait_s=0))
        return AsyncRunHandle(self, state.run.id, output)

    @overload
    def handle(self, run_id: str, *, output: type[T]) -> "AsyncRunHandle[T]": ...
    @overload
    def handle(self, run_id: str, *, output: None = None) -> "AsyncRunHandle[Any]": ...
    def handle(self, run_id: str, *, output: Any = None) -> "AsyncRunHandle[Any]":
        """A run started earlier, by its id. Sends no request yet."""
        return AsyncRunHandle(self, run_id, output)

    @overload
    def stream(self, ref: str, payload: Any = None, *, output: type[T], **options: Unpack[CallOptions]) -> "AsyncRunStream[T]": ...
    @overload
    def stream(self, ref: str, payload: Any = None, *, output: None = None, **options: Unpack[CallOptions]) -> "AsyncRunStream[Any]": ...
    def stream(self, ref: str, payload: Any = None, *, output: Any = None, **options: Unpack[CallOptions]) -> "AsyncRunStream[Any]":
        """Run a function that streams, and iterate over its items, like `Client.stream`. Leaving the `async with` block
        early cancels the run.
        """
        return AsyncRunStream(self, Begun(call_of(ref, payload, options)), output)

    def session(self, ref: str, **options: Unpack[SessionOptions]) -> AsyncSession:
        """A realtime session with a websocket handler, like `Client.session`: `async with client.session(ref) as session:` opens it."""
        return AsyncSession(self._wire, self._flows, opening_of(read_target(ref), options))

    async def close(self) -> None:
        """Close its connections, after abandoned runs have been cancelled."""
        if self._leaving:
            await asyncio.wait(self._leaving)
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _perform(self, flow: Flow[T]) -> T:
        """Run a flow that yields no values."""
        driven = Driven(self._wire, flow)
        async with contextlib.aclosing(driven.gives()) as gives:
            async for _ in gives:
                pass
        return driven.result

    async def _drive(self, flow: Flow[T]) -> AsyncGenerator[Any, None]:
        """Run a flow, and yield its values."""
        async with contextlib.aclosing(Driven(self._wire, flow).gives()) as gives:
            async for value in gives:
                yield value

    async def _leave(self, begun: Begun) -> None:
        """The waiting caller is gone: cancel its run, if possible.

        In a task of its own: if a cancel scope ended this one, every await here would be cancelled at once.
        """
        task = asyncio.ensure_future(self._cancel(begun))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        await asyncio.shield(task)

    async def _cancel(self, begun: Begun) -> None:
        with contextlib.suppress(ClientError):
            await self._perform(self._flows.cancel(begun))


class AsyncRunHandle(Generic[T]):
    """A run on the server. Any program can find it again by its `id`: `client.handle(id)`."""

    def __init__(self, client: AsyncClient, run_id: str, output: type[T] | None) -> None:
        self.id = run_id
        self._client = client
        self._output = output

    async def status(self) -> Run:
        """The run's current state."""
        return (await self._client._perform(self._client._flows.get(self.id))).run

    async def events(self, after: str = "") -> AsyncGenerator[RunEvent, None]:
        """The run's events up to its end, like `RunHandle.events`."""
        driven = Driven(self._client._wire, following.events(self._client._flows, self.id, after))
        async with contextlib.aclosing(driven.gives()) as told:
            async for each in told:
                yield each.decoded()

    async def items(self) -> AsyncGenerator[T, None]:
        """The items that the function streams, from the first one on; at the end `RunError` if the run did not succeed."""
        driven = Driven(self._client._wire, following.items(following.events(self._client._flows, self.id)))
        async with contextlib.aclosing(driven.gives()) as items:
            async for item in items:
                yield item_of(item, self.id, self._output)
        result_of(driven.result)

    async def result(self, wait_s: int | None = None) -> T:
        """Wait for the output, like `RunHandle.result`."""
        flows = self._client._flows
        state = await self._client._perform(flows.waited(self.id, wait_s))
        if not state.finished:
            raise TimeoutError(f"run {self.id} is still {state.run.status} after {wait_s} s; it continues")
        found: T = output_of(await self._client._perform(following.whole_result(flows, state)), self._output)
        return found

    async def cancel(self) -> Run:
        """Cancel the run; returns its state afterwards. A finished run is unchanged."""
        return (await self._client._perform(self._client._flows.cancel_run(self.id))).run

    def __repr__(self) -> str:
        return f"AsyncRunHandle({self.id!r})"


class AsyncRunStream(Generic[T]):
    """The items of a run as they arrive. Iterate once. Leaving `async with` early, or `close`, cancels the run."""

    def __init__(self, client: AsyncClient, begun: Begun, output: type[T] | None) -> None:
        self._begun = begun
        self._items = _owned(client, begun, output)

    @property
    def run_id(self) -> str:
        """Empty until the run has begun."""
        return self._begun.run_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def close(self) -> None:
        """Cancel the run, unless it is over."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


async def _owned(client: AsyncClient, begun: Begun, output: type[T] | None) -> AsyncGenerator[T, None]:
    """The items of a run that is cancelled when its reader leaves."""
    driven = Driven(client._wire, following.items(following.call_events(client._flows, begun)))
    over = False
    try:
        async with contextlib.aclosing(driven.gives()) as items:
            async for item in items:
                yield item_of(item, begun.run_id, output)
        over = True
        result_of(driven.result)
    except (UnreachableError, RunError):
        over = True  # it ended by itself, or the server cannot be reached
        raise
    finally:
        if not over:
            await client._leave(begun)
