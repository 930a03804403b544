"""The blocking client: `Client`, and what it returns."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from gen_worker.client import following
from gen_worker.client.answers import State, result_of
from gen_worker.client.blocking_wire import Stream, Wire
from gen_worker.client.calls import CallOptions, call_of, item_of, output_of
from gen_worker.client.effects import Close, Flow, Give, LostError, Open, Pause, Read, Send
from gen_worker.client.errors import ClientError, RunError, UnreachableError
from gen_worker.client.files import Files
from gen_worker.client.flows import Begun, Flows
from gen_worker.client.releases import entries_of_release, entries_of_tag
from gen_worker.client.session_rules import SessionOptions, opening_of
from gen_worker.client.settings import CONNECTIONS, find_server
from gen_worker.client.targets import read_target
from gen_worker.client.tries import Patience
from gen_worker.client.values import Run, RunEvent
from gen_worker.contract.manifest import FunctionEntry, WebsocketEntry

if TYPE_CHECKING:
    from gen_worker.client.sessions import LoopThread, Session

OnEvent = Callable[[RunEvent], object]
T = TypeVar("T")


class Client:
    """Runs functions of a platform (`cozyctl up`) or of a dev runner (`cozyctl dev`). Threads may share one client.

    Without `url` and `key` it uses COZY_URL and COZY_API_KEY, then the profile saved by `cozyctl login` (`profile`
    names another one), then http://127.0.0.1:8080. `connections`: the maximum number at once; more requests wait for
    one. `patience`: how often a request is retried. Raises `ClientError`s; invalid arguments raise `ValueError` and
    `TypeError` before anything is sent.
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
        self._lock = threading.Lock()
        self._loop: LoopThread | None = None  # of its sessions
        self.url = where
        self.files = Files(self)

    @overload
    def run(
        self, ref: str, payload: Any = None, *, output: type[T], on_event: OnEvent | None = None, **options: Unpack[CallOptions]
    ) -> T: ...
    @overload
    def run(
        self, ref: str, payload: Any = None, *, output: None = None, on_event: OnEvent | None = None, **options: Unpack[CallOptions]
    ) -> Any: ...
    def run(
        self, ref: str, payload: Any = None, *, output: Any = None, on_event: OnEvent | None = None, **options: Unpack[CallOptions]
    ) -> Any:
        """Run a function and wait for its output: plain Python values, or an object of type `output`.

        `ref`: `owner/endpoint/function[:tag]`. `payload`: a dict, Struct or dataclass. For a function that streams the
        result is the list of its items. `on_event` is called with each event as it arrives: status, progress, log,
        items. `RunError` if the run does not succeed. Ctrl-C while waiting cancels the run, and so does an exception in
        `on_event`.
        """
        begun = Begun(call_of(ref, payload, options))
        try:
            state = self._perform(following.made(self._flows, begun, on_event))
            return output_of(self._perform(following.whole_result(self._flows, state)), output)
        except ClientError:
            raise
        except BaseException:
            self._leave(begun)
            raise

    @overload
    def submit(self, ref: str, payload: Any = None, *, output: type[T], **options: Unpack[CallOptions]) -> "RunHandle[T]": ...
    @overload
    def submit(self, ref: str, payload: Any = None, *, output: None = None, **options: Unpack[CallOptions]) -> "RunHandle[Any]": ...
    def submit(self, ref: str, payload: Any = None, *, output: Any = None, **options: Unpack[CallOptions]) -> "RunHandle[Any]":
        """Start a run without waiting: it continues even if this program ends."""
        begun = Begun(call_of(ref, payload, options))
        state = self._perform(self._flows.create(begun, wait_s=0))
        return RunHandle(self, state.run.id, output)

    @overload
    def handle(self, run_id: str, *, output: type[T]) -> "RunHandle[T]": ...
    @overload
    def handle(self, run_id: str, *, output: None = None) -> "RunHandle[Any]": ...
    def handle(self, run_id: str, *, output: Any = None) -> "RunHandle[Any]":
        """A run started earlier, by its id. Sends no request yet."""
        return RunHandle(self, run_id, output)

    @overload
    def stream(self, ref: str, payload: Any = None, *, output: type[T], **options: Unpack[CallOptions]) -> "RunStream[T]": ...
    @overload
    def stream(self, ref: str, payload: Any = None, *, output: None = None, **options: Unpack[CallOptions]) -> "RunStream[Any]": ...
    def stream(self, ref: str, payload: Any = None, *, output: Any = None, **options: Unpack[CallOptions]) -> "RunStream[Any]":
        """Run a function that streams, and iterate over its items as they arrive; `output` is the type of one item.

        The run begins when the first item is requested. Leaving the loop, or `close`, cancels it. At the end,
        `RunError` if it failed.
        """
        return RunStream(self, Begun(call_of(ref, payload, options)), output)

    def session(self, ref: str, **options: Unpack[SessionOptions]) -> "Session":
        """A realtime session with a websocket handler: `with client.session(ref) as session:` opens it.

        Send text or bytes, and iterate over the messages that come. Leaving the block, or Ctrl-C, ends the session and with it its run.
        """
        from gen_worker.client.asynchronous_sessions import AsyncSession
        from gen_worker.client.asynchronous_wire import Wire as AsyncWire
        from gen_worker.client.sessions import LoopThread, Session

        opening = opening_of(read_target(ref), options)
        with self._lock:
            if self._loop is None:
                self._loop = LoopThread()
        return Session(self, self._loop, AsyncSession(AsyncWire(self.url, 1), self._flows, opening))

    def releases(self, owner: str, endpoint: str, *, tag: str = "prod") -> dict[str, list[FunctionEntry | WebsocketEntry]]:
        """The functions and websocket handlers of an endpoint that have this tag, from the release that it points at."""
        return self._perform(entries_of_tag(self._flows, owner, endpoint, tag))

    def release(self, owner: str, endpoint: str, release_id: str) -> dict[str, list[FunctionEntry | WebsocketEntry]]:
        """All functions and websocket handlers of one release, whatever its tags."""
        return self._perform(entries_of_release(self._flows, owner, endpoint, release_id))

    def close(self) -> None:
        """Close its connections, and end its sessions."""
        self._wire.close()
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "files"):
            self._wire.close()
            if self._loop is not None:
                self._loop.abandon()

    def _perform(self, flow: Flow[T]) -> T:
        """Run a flow that yields no values."""
        driven = self._drive(flow)
        try:
            while True:
                next(driven)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _drive(self, flow: Flow[T]) -> Generator[Any, None, T]:
        """Run a flow, and yield its values."""
        stream: Stream | None = None
        try:
            effect = next(flow)
            while True:
                reply: Any = None
                try:
                    match effect:
                        case Send(request):
                            reply = self._wire.send(request)
                        case Open(request):
                            stream = self._wire.open(request)
                            reply = stream.answer
                        case Read() if stream is not None:
                            reply = stream.read()
                        case Close() if stream is not None:
                            stream.close()
                        case Pause(seconds):
                            time.sleep(seconds)
                        case Give(value):
                            yield value
                except LostError as exc:
                    effect = flow.throw(exc)
                else:
                    effect = flow.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()
            if stream is not None:
                stream.close()

    def _leave(self, begun: Begun) -> None:
        """The waiting caller is gone: cancel its run, if possible."""
        with contextlib.suppress(ClientError):
            self._perform(self._flows.cancel(begun))


class RunHandle(Generic[T]):
    """A run on the server. Any program can find it again by its `id`: `client.handle(id)`."""

    def __init__(self, client: Client, run_id: str, output: type[T] | None) -> None:
        self.id = run_id
        self._client = client
        self._output = output

    def status(self) -> Run:
        """The run's current state."""
        return self._client._perform(self._client._flows.get(self.id)).run

    def events(self, after: str = "") -> Iterator[RunEvent]:
        """The run's events up to its end, as they arrive: all those kept, or those after the event with the id `after`.

        After a lost connection or a restart of the server, it continues where it was. Leaving the loop does not affect
        the run.
        """
        told = following.events(self._client._flows, self.id, after)
        for each in self._client._drive(told):
            yield each.decoded()

    def items(self) -> Iterator[T]:
        """The items that the function streams, from the first one on; at the end `RunError` if the run did not succeed."""
        driven = self._client._drive(following.items(following.events(self._client._flows, self.id)))
        return _typed(driven, lambda: self.id, self._output)

    def result(self, wait_s: int | None = None) -> T:
        """Wait for the output. `TimeoutError` after `wait_s` seconds; the run continues. `RunError` if it did not succeed."""
        flows = self._client._flows
        state = self._client._perform(flows.waited(self.id, wait_s))
        if not state.finished:
            raise TimeoutError(f"run {self.id} is still {state.run.status} after {wait_s} s; it continues")
        found: T = output_of(self._client._perform(following.whole_result(flows, state)), self._output)
        return found

    def cancel(self) -> Run:
        """Cancel the run; returns its state afterwards. A finished run is unchanged."""
        return self._client._perform(self._client._flows.cancel_run(self.id)).run

    def __repr__(self) -> str:
        return f"RunHandle({self.id!r})"


class RunStream(Generic[T]):
    """The items of a run as they arrive. Iterate once. Leaving `with` early, or `close`, cancels the run."""

    def __init__(self, client: Client, begun: Begun, output: type[T] | None) -> None:
        self._begun = begun
        self._items = _owned(client, begun, output)

    @property
    def run_id(self) -> str:
        """Empty until the run has begun."""
        return self._begun.run_id

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """Cancel the run, unless it is over."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _owned(client: Client, begun: Begun, output: type[T] | None) -> Generator[T, None, None]:
    """The items of a run that is cancelled when its reader leaves."""
    driven = client._drive(following.items(following.call_events(client._flows, begun)))
    over = False
    try:
        yield from _typed(driven, lambda: begun.run_id, output)
        over = True
    except (UnreachableError, RunError):
        over = True  # it ended by itself, or the server cannot be reached
        raise
    finally:
        if not over:
            client._leave(begun)


def _typed(driven: Generator[Any, None, State], run_id: Any, output: type[T] | None) -> Generator[T, None, None]:
    try:
        while True:
            item = next(driven)
            found: T = item_of(item, run_id(), output)
            yield found
    except StopIteration as stop:
        result_of(stop.value)
    finally:
        driven.close()
