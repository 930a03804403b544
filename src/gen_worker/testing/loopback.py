"""A scripted scheduler on 127.0.0.1: real gRPC, the real protocol, fully controlled by a test."""

import asyncio
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
import msgspec

from gen_worker.testing.loopback_run import LoopbackRun, RunFailedError
from gen_worker.testing.loopback_worker import LoopbackRealtime, LoopbackWorker
from gen_worker.transport.grpc_server import GrpcServer, RejectError, ServerStream
from gen_worker.transport.worker_stream import WorkerStream
from gen_worker.wire.holds import Hold
from gen_worker.wire.messages import (
    CloseRealtime,
    Event,
    LoadModelResult,
    OpenRealtime,
    RealtimeCredit,
    RealtimeFrame,
    RunCommand,
    RunResult,
    Unknown,
    UnloadModelResult,
    UrlRefreshRequest,
)
from gen_worker.wire.scheduler_session import Registered, RunEnded, SchedulerEffect, StaleResult, WorkerMemory

__all__ = ["LoopbackRealtime", "LoopbackRun", "LoopbackScheduler", "LoopbackWorker", "RunFailedError"]

MESSAGE_OVERHEAD_BYTES = 4096
Authorize = Callable[[str], bool]


class LoopbackScheduler:
    """Accepts workers and gives them runs.

        async with LoopbackScheduler() as scheduler:
            ...                                                # start a worker with SCHEDULER_PUBLIC_ADDR=scheduler.address
            assert await scheduler.call("generate", {"prompt": "x"}) == {"text": "Hello, x!"}

    `extensions=False` makes it a plain scheduler of protocol 1.0. `authorize` checks tokens. `hard_limit_bytes`:
    messages above it end the stream, as with a scheduler that keeps gRPC's own limit of 4 MiB.
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        *,
        extensions: bool = True,
        authorize: Authorize | None = None,
        credentials: grpc.ServerCredentials | None = None,
        max_message_bytes: int = 16 << 20,
        hard_limit_bytes: int | None = None,
        file_api: tuple[str, str] = ("", ""),
        on_message: Callable[[Any], None] | None = None,
    ) -> None:
        self.host = listen.rpartition(":")[0]
        self.streams = 0  # opened so far
        self.events: list[Event] = []  # of workers, not of runs
        self.stale: list[str] = []  # results of unknown runs
        self.answers: list[LoadModelResult | UnloadModelResult | UrlRefreshRequest] = []
        self.reject_with: tuple[str, str] | None = None  # status and details for every new stream
        self.file_api = file_api  # base URL and token for every run
        self.on_message = on_message
        self._extensions = extensions
        self._authorize = authorize
        self._max_message_bytes = max_message_bytes
        self._server = GrpcServer(self._serve, listen, credentials, max_message_bytes=max_message_bytes, hard_limit_bytes=hard_limit_bytes)
        self._memories: dict[str, WorkerMemory] = {}
        self._workers: list[LoopbackWorker] = []
        self._runs: dict[str, LoopbackRun] = {}
        self._realtime: dict[str, LoopbackRealtime] = {}
        self._streams: set[LoopbackWorker] = set()  # including those that have not registered, or are being cleaned up
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float | None = None) -> None:
        """Acknowledge what has arrived, end all streams, close the port."""
        streams = list(self._streams)
        await asyncio.gather(*[worker.finish() for worker in streams])
        await self._server.stop(grace_s)
        await asyncio.gather(*[worker.left() for worker in streams])

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
        """Wait until `check` is true; it is called after each message from a worker."""
        if check():
            return
        watcher = check, asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        try:
            async with asyncio.timeout(timeout_s):
                await watcher[1]
        finally:
            self._watchers.remove(watcher)

    async def start_run(
        self, function: str, payload: Any = None, *, run_id: str | None = None, timeout_s: float = 30, **options: Any
    ) -> LoopbackRun:
        """Give a run to a worker. `options` are further fields of `RunCommand`; `payload` is encoded unless it is bytes."""
        worker = self._workers[-1] if self._workers else await self.worker(timeout_s)
        data = payload if isinstance(payload, bytes) else msgspec.msgpack.encode({} if payload is None else payload)
        base, token = self.file_api
        fields = {"file_base_url": base, "file_token": token, **options}
        command = RunCommand(run_id=f"run-{next(self._ids)}" if run_id is None else run_id, function=function, payload=data, **fields)
        run = self._runs[command.run_id] = LoopbackRun(command, lambda: self._cancel(command.run_id))
        if len(data) + MESSAGE_OVERHEAD_BYTES > self._max_message_bytes:
            text = f"payload of {len(data)} bytes; messages hold at most {self._max_message_bytes}"
            run.end(RunResult(command.run_id, False, b"", text, "validation", False, text))
            return run
        worker.start(command)
        return run

    async def call(self, function: str, payload: Any = None, *, timeout_s: float = 30, **options: Any) -> Any:
        """Run a function; its decoded output, or `RunFailedError`."""
        run = await self.start_run(function, payload, timeout_s=timeout_s, **options)
        try:
            return await run.output(timeout_s)
        finally:
            self.forget(run.run_id)

    def forget(self, run_id: str) -> None:
        """Drop everything kept about a run."""
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
            worker.close(code, details)
        await self.until(lambda: not self._workers)

    async def _serve(self, stream: ServerStream) -> None:
        self.streams += 1
        if self.reject_with is not None:
            raise RejectError(*self.reject_with)
        if self._authorize is not None and not self._authorize(stream.token):
            raise RejectError("UNAUTHENTICATED", "the worker token is not accepted")
        worker = LoopbackWorker(stream, self._memories, extensions=self._extensions, on_message=self._heard)
        self._streams.add(worker)
        try:
            await worker.run(self._take)
        finally:
            self._drop(worker)
            self._streams.discard(worker)

    def _drop(self, worker: LoopbackWorker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
        for client in [client for client in self._realtime.values() if client.worker is worker]:
            self._end_realtime(client.session_id, "connection_lost")
        self._look()

    def _heard(self, message: Any) -> None:
        if self.on_message is not None:
            self.on_message(message)

    def _look(self) -> None:
        """Let everyone who waits check their condition."""
        for check, waiter in self._watchers:
            if not waiter.done() and check():
                waiter.set_result(None)

    def _take(self, worker: WorkerStream, effect: SchedulerEffect, hold: Hold) -> None:
        assert isinstance(worker, LoopbackWorker)
        self._apply(worker, effect, hold)
        if self._watchers:
            self._look()

    def _apply(self, worker: LoopbackWorker, effect: SchedulerEffect, hold: Hold) -> None:
        match effect:
            case Event(run_id):
                run = self._runs.get(run_id) if run_id else None
                if run is not None:
                    run.add(effect, hold)
                elif not run_id:
                    self.events.append(effect)
            case RunEnded(result):
                run = self._runs.get(result.run_id)
                if run is not None:
                    run.end(result)
            case StaleResult(run_id):
                self.stale.append(run_id)
            case Registered(registration, is_heartbeat):
                worker.registrations.append(registration)
                if not is_heartbeat:
                    self._workers.append(worker)
            case RealtimeFrame(session_id):
                client = self._realtime.get(session_id)
                if client is not None:
                    client.frames.put_nowait(effect)
            case RealtimeCredit(session_id, frames):
                client = self._realtime.get(session_id)
                if client is not None:
                    client.grant(frames)
            case CloseRealtime(session_id, reason):
                self._end_realtime(session_id, reason)
            case LoadModelResult() | UnloadModelResult() | UrlRefreshRequest():
                self.answers.append(effect)
            case Unknown():
                pass

    def _end_realtime(self, session_id: str, reason: str) -> None:
        client = self._realtime.pop(session_id, None)
        if client is not None:
            client.end(reason)

    def _cancel(self, run_id: str) -> None:
        for worker in self._workers:
            if run_id in worker.run_ids:
                worker.interrupt(run_id)
