"""A scripted scheduler on 127.0.0.1: real gRPC, the real protocol, everything in the hands of a test."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import grpc
import msgspec

from gen_worker.events import OUTPUT_DELTA
from gen_worker.transport.grpc_server import GrpcServer, RejectError, ServerStream
from gen_worker.transport.stream import StreamOverError
from gen_worker.wire import codec
from gen_worker.wire.messages import (
    REALTIME_CREDIT,
    CloseRealtime,
    Event,
    LoadModelResult,
    OpenRealtime,
    RealtimeCredit,
    RealtimeFrame,
    Registration,
    Resources,
    RunCommand,
    RunResult,
    Single,
    Unknown,
    UnloadModelResult,
    UrlRefreshRequest,
)
from gen_worker.wire.scheduler_session import (
    Effect,
    IncompatibleError,
    ProtocolViolationError,
    Registered,
    RunEnded,
    SchedulerSession,
    StaleResult,
    WorkerMemory,
)

ACK_DELAY_S = 0.005
FINISH_TIMEOUT_S = 1.0
SEND_BYTES = 256 << 10
MAX_WAITING_DELTAS = 4096
MESSAGE_OVERHEAD_BYTES = 4096
Authorize = Callable[[str], bool]


class RunFailedError(Exception):
    """A run ended without success; `result` is what the worker said."""

    def __init__(self, result: RunResult) -> None:
        super().__init__(f"{result.error_type}: {result.error_message or result.safe_message}")
        self.result = result


class LoopbackRun:
    """One run, as the scheduler sees it."""

    def __init__(self, scheduler: "LoopbackScheduler", command: RunCommand) -> None:
        self.run_id = command.run_id
        self.command = command
        self.events: list[Event] = []
        self.results: list[RunResult] = []  # more than one would be a fault
        self._scheduler = scheduler
        self._waiters: set[asyncio.Future[None]] = set()
        self._news: asyncio.Event | None = None
        self._read = 0
        self._followed = False

    async def result(self, timeout_s: float = 30) -> RunResult:
        """The run's result; `TimeoutError` when it does not come."""
        if not self.results:
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()
            self._waiters.add(waiter)
            timer = loop.call_later(timeout_s, _set_unless_done, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiters.discard(waiter)
        if not self.results:
            raise TimeoutError(f"run {self.run_id!r} of {self.command.function!r} has no result after {timeout_s} s")
        return self.results[0]

    async def output(self, timeout_s: float = 30) -> Any:
        """The decoded output; `RunFailedError` when the run failed."""
        result = await self.result(timeout_s)
        if not result.success:
            raise RunFailedError(result)
        return msgspec.msgpack.decode(result.output) if result.output else None

    async def deltas(self) -> AsyncIterator[Any]:
        """Decoded deltas, as they come. A slow reader holds up the worker's stream; `RunFailedError` at the end of a failed run."""
        self._followed = True
        news = self._news = asyncio.Event()
        while True:
            news.clear()
            while self._read < len(self.events):
                event = self.events[self._read]
                self._read += 1
                if self._behind < MAX_WAITING_DELTAS:
                    self._scheduler._room.set()
                if event.event_type == OUTPUT_DELTA:
                    yield msgspec.json.decode(event.payload)
            if self.results:
                if not self.results[0].success:
                    raise RunFailedError(self.results[0])
                return
            await news.wait()

    def of_type(self, event_type: str) -> list[Any]:
        """Decoded payloads of the events of one type."""
        return [msgspec.json.decode(event.payload) for event in self.events if event.event_type == event_type]

    def cancel(self) -> None:
        """Ask the worker to stop the run."""
        worker = self._scheduler._worker_of(self.run_id)
        if worker is not None:
            worker.session.interrupt(self.run_id)
            worker.poke()

    @property
    def _behind(self) -> int:
        return len(self.events) - self._read if self._followed else 0

    def _add(self, event: Event) -> None:
        self.events.append(event)
        if self._news is not None:
            self._news.set()

    def _end(self, result: RunResult) -> None:
        self.results.append(result)
        for waiter in self._waiters:
            _set_unless_done(waiter)
        if self._news is not None:
            self._news.set()


class LoopbackRealtime:
    """The client's end of a realtime session."""

    def __init__(self, worker: "LoopbackWorker", session_id: str) -> None:
        self.session_id = session_id
        self.reason: str | None = None
        self._worker = worker
        self._frames: asyncio.Queue[RealtimeFrame | None] = asyncio.Queue()
        self._credit = 0
        self._credited = asyncio.Event()

    async def send(self, data: bytes, *, is_text: bool = False) -> None:
        """Send a frame; waits for the handler's credit, where the worker gives any. `ConnectionError` once the session is over."""
        while self._worker.counts_frames and self._credit <= 0 and self.reason is None:
            self._credited.clear()
            await self._credited.wait()
        if self.reason is not None:
            raise ConnectionError(f"the session is over: {self.reason}")
        self._credit -= 1
        self._worker.send(RealtimeFrame(self.session_id, data, is_text))

    async def receive(self, timeout_s: float = 30) -> RealtimeFrame | None:
        """The next frame; None when the session is over."""
        async with asyncio.timeout(timeout_s):
            return await self._frames.get()

    async def close(self, timeout_s: float = 30) -> str:
        """Leave, and wait for the worker's word on how the session ended."""
        self._worker.send(CloseRealtime(self.session_id, "client_left"))
        async with asyncio.timeout(timeout_s):
            while self.reason is None and await self._frames.get() is not None:
                pass
        return self.reason or ""

    def _grant(self, frames: int) -> None:
        self._credit += frames
        self._credited.set()

    def _end(self, reason: str) -> None:
        self.reason = reason
        self._frames.put_nowait(None)
        self._credited.set()


class LoopbackWorker:
    """A worker's stream."""

    def __init__(self, stream: ServerStream, session: SchedulerSession) -> None:
        self.stream = stream
        self.session = session
        self.registrations: list[Registration] = []
        self.writer: asyncio.Task[None] | None = None
        self._raw: deque[bytes] = deque()
        self._closing = False
        self._news = asyncio.Event()
        self._ack_timer: asyncio.TimerHandle | None = None

    @property
    def resources(self) -> Resources:
        return self.registrations[-1].resources

    @property
    def counts_frames(self) -> bool:
        return REALTIME_CREDIT in self.session.extensions

    def send(self, message: Single) -> None:
        """Send any message, as it is."""
        self.session.send(message)
        self._news.set()

    def send_raw(self, data: bytes) -> None:
        """Send bytes as a message, whatever they are."""
        self._raw.append(data)
        self._news.set()

    def poke(self) -> None:
        """Something may be there to send."""
        if self.session.is_urgent:
            self._news.set()
        elif self.session.owes and self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_DELAY_S, self._ack_now)

    async def write(self) -> None:
        """Send what there is, for as long as the stream lives."""
        try:
            while not self._closing:
                await self._news.wait()
                self._news.clear()
                while self._raw:
                    await self.stream.send(self._raw.popleft())
                while (message := self.session.outgoing(SEND_BYTES)) is not None:
                    await self.stream.send(codec.encode(message))
        except StreamOverError:
            return

    async def finish(self) -> None:
        """Send what is owed, acknowledgements above all, and nothing after it."""
        self._closing = True
        self._news.set()
        if self.writer is not None:
            await asyncio.wait([self.writer], timeout=FINISH_TIMEOUT_S)

    def _ack_now(self) -> None:
        self._ack_timer = None
        self._news.set()


class LoopbackScheduler:
    """Takes workers, gives them runs.

        async with LoopbackScheduler() as scheduler:
            ...                                                # start a worker with SCHEDULER_PUBLIC_ADDR=scheduler.address
            assert await scheduler.call("generate", {"prompt": "x"}) == {"text": "Hello, x!"}

    `extensions=False` makes it a plain scheduler of protocol 1.0. `authorize` decides on tokens.
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        *,
        extensions: bool = True,
        authorize: Authorize | None = None,
        credentials: grpc.ServerCredentials | None = None,
        max_message_bytes: int = 16 << 20,
    ) -> None:
        self.host = listen.rpartition(":")[0]
        self.streams = 0  # ever opened
        self.events: list[Event] = []  # of workers, not of runs
        self.stale: list[str] = []  # results of runs that nobody waits for
        self.answers: list[LoadModelResult | UnloadModelResult | UrlRefreshRequest] = []
        self.reject_with: tuple[str, str] | None = None  # status and details for every new stream
        self.file_api: tuple[str, str] = ("", "")  # base URL and token for every run
        self.on_message: Callable[[Any], None] | None = None
        self._extensions = extensions
        self._authorize = authorize
        self._max_message_bytes = max_message_bytes
        self._server = GrpcServer(self._serve, listen, credentials, max_message_bytes=max_message_bytes)
        self._memories: dict[str, WorkerMemory] = {}
        self._workers: list[LoopbackWorker] = []
        self._runs: dict[str, LoopbackRun] = {}
        self._realtime: dict[str, LoopbackRealtime] = {}
        self._changed = asyncio.Condition()
        self._watching = 0
        self._room = asyncio.Event()
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float | None = None) -> None:
        """Acknowledge what has come, end all streams, close the port."""
        await asyncio.gather(*[worker.finish() for worker in self.workers])
        await self._server.stop(grace_s)

    @property
    def address(self) -> str:
        """host:port to dial."""
        return f"{self.host}:{self._server.port}"

    @property
    def workers(self) -> list[LoopbackWorker]:
        """Connected workers, oldest stream first."""
        return list(self._workers)

    @property
    def runs(self) -> dict[str, LoopbackRun]:
        return dict(self._runs)

    async def worker(self, timeout_s: float = 30) -> LoopbackWorker:
        """A connected worker; `TimeoutError` when none comes."""
        if not self._workers:
            await self.until(lambda: bool(self._workers), timeout_s)
        return self._workers[-1]

    async def until(self, check: Callable[[], bool], timeout_s: float = 30) -> None:
        """Wait for anything that a message from a worker can bring about."""
        self._watching += 1
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(check)
        finally:
            self._watching -= 1

    async def start_run(
        self, function: str, payload: Any = None, *, run_id: str = "", timeout_s: float = 30, **options: Any
    ) -> LoopbackRun:
        """Give a run to a worker. `options` are further fields of `RunCommand`; `payload` is encoded unless it is bytes."""
        worker = self._workers[-1] if self._workers else await self.worker(timeout_s)
        data = payload if isinstance(payload, bytes) else msgspec.msgpack.encode({} if payload is None else payload)
        base, token = self.file_api
        fields = {"file_base_url": base, "file_token": token, **options}
        command = RunCommand(run_id=run_id or f"run-{next(self._ids)}", function=function, payload=data, **fields)
        run = self._runs[command.run_id] = LoopbackRun(self, command)
        if len(data) + MESSAGE_OVERHEAD_BYTES > self._max_message_bytes:
            text = f"payload of {len(data)} bytes; messages hold at most {self._max_message_bytes}"
            run._end(RunResult(command.run_id, False, b"", text, "validation", False, text))
            return run
        worker.session.start(command)
        worker.poke()
        return run

    async def call(self, function: str, payload: Any = None, *, timeout_s: float = 30, **options: Any) -> Any:
        """Run a function; its decoded output, or `RunFailedError`."""
        run = await self.start_run(function, payload, timeout_s=timeout_s, **options)
        try:
            return await run.output(timeout_s)
        finally:
            self.forget(run.run_id)

    def forget(self, run_id: str) -> None:
        """Drop what is kept of a run."""
        self._runs.pop(run_id, None)

    async def open_realtime(self, function: str, *, session_id: str = "", **options: Any) -> LoopbackRealtime:
        """Open a realtime session."""
        worker = await self.worker()
        session_id = session_id or f"session-{next(self._ids)}"
        client = self._realtime[session_id] = LoopbackRealtime(worker, session_id)
        worker.send(OpenRealtime(session_id, function, **options))
        return client

    async def end_streams(self, code: str = "OK", details: str = "") -> None:
        """End all streams with a status, as a server does."""
        for worker in self.workers:
            worker.stream.end(code, details)
        await self.until(lambda: not self._workers)

    async def _serve(self, stream: ServerStream) -> None:
        self.streams += 1
        if self.reject_with is not None:
            raise RejectError(*self.reject_with)
        if self._authorize is not None and not self._authorize(stream.token):
            raise RejectError("UNAUTHENTICATED", "the worker token is not accepted")
        session = SchedulerSession(self._memories, extensions=self._extensions)
        worker = LoopbackWorker(stream, session)
        writer = worker.writer = asyncio.create_task(worker.write())
        try:
            await self._read(stream, worker)
        except IncompatibleError as exc:
            raise RejectError("FAILED_PRECONDITION", str(exc)) from None
        except (ProtocolViolationError, codec.CodecError) as exc:
            raise RejectError("INVALID_ARGUMENT", str(exc)) from None
        finally:
            writer.cancel()
            async with self._changed:
                if worker in self._workers:
                    self._workers.remove(worker)
                for client in [client for client in self._realtime.values() if client._worker is worker]:
                    self._end_realtime(client.session_id, "connection_lost")
                self._changed.notify_all()

    async def _read(self, stream: ServerStream, worker: LoopbackWorker) -> None:
        while (data := await stream.receive()) is not None:
            message = codec.decode(data)
            if self.on_message is not None:
                self.on_message(message)
            effects = worker.session.receive(message)
            for effect in effects:
                self._apply(worker, effect)
            worker.poke()
            if effects:
                await asyncio.sleep(0)  # whoever waits goes on before we ask gRPC for more
            if effects and self._watching:
                async with self._changed:
                    self._changed.notify_all()
            while any(run._behind >= MAX_WAITING_DELTAS for run in self._runs.values() if run._followed):
                self._room.clear()
                await self._room.wait()

    def _apply(self, worker: LoopbackWorker, effect: Effect) -> None:
        match effect:
            case Event(run_id):
                run = self._runs.get(run_id) if run_id else None
                if run is not None:
                    run._add(effect)
                elif not run_id:
                    self.events.append(effect)
            case RunEnded(result):
                run = self._runs.get(result.run_id)
                if run is not None:
                    run._end(result)
            case StaleResult(run_id):
                self.stale.append(run_id)
            case Registered(registration, is_heartbeat):
                worker.registrations.append(registration)
                if not is_heartbeat:
                    self._workers.append(worker)
            case RealtimeFrame(session_id):
                client = self._realtime.get(session_id)
                if client is not None:
                    client._frames.put_nowait(effect)
            case RealtimeCredit(session_id, frames):
                client = self._realtime.get(session_id)
                if client is not None:
                    client._grant(frames)
            case CloseRealtime(session_id, reason):
                self._end_realtime(session_id, reason)
            case LoadModelResult() | UnloadModelResult() | UrlRefreshRequest():
                self.answers.append(effect)
            case Unknown():
                pass

    def _end_realtime(self, session_id: str, reason: str) -> None:
        client = self._realtime.pop(session_id, None)
        if client is not None:
            client._end(reason)

    def _worker_of(self, run_id: str) -> LoopbackWorker | None:
        return next((worker for worker in self._workers if run_id in worker.session.memory.runs), None)


def _set_unless_done(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
