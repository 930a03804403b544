"""Accepts workers over gRPC: for schedulers, the mock scheduler and tests."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import grpc
import grpc.aio

from gen_worker.transport.grpc_client import METHOD
from gen_worker.transport.stream import DEFAULT_MAX_MESSAGE_BYTES, HARD_LIMIT_FACTOR, Ended, Lost, StreamOverError

FIRST_MESSAGE_TIMEOUT_S = 1.0


class RejectError(Exception):
    """End a stream with a status: `FAILED_PRECONDITION`, `UNAUTHENTICATED`, ..."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details)
        self.code = code


class ServerStream:
    """One worker's call. `metadata` is what the worker sent with it; `peer` is its address."""

    def __init__(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        self._context = context
        self._ended: Ended | None = None
        self._heard = False
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.peer: str = context.peer()
        self.aborted: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    @property
    def ended(self) -> Ended:
        return self._ended or Lost("open")

    @property
    def token(self) -> str:
        """The bearer token, empty without one."""
        scheme, _, token = self.metadata.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    async def send(self, data: bytes) -> None:
        try:
            await self._context.write(data)
        except (grpc.aio.BaseError, asyncio.InvalidStateError, grpc.RpcError) as exc:
            raise StreamOverError(str(exc)) from None

    async def receive(self) -> bytes | None:
        try:
            data: object = await self._context.read()
        except (grpc.aio.BaseError, asyncio.InvalidStateError, grpc.RpcError):
            data = grpc.aio.EOF
        if isinstance(data, bytes):
            self._heard = True
            return data
        self._ended = Lost("the worker left", by_peer=True)
        return None

    async def take_first(self) -> None:
        """Wait briefly for the worker's first message: gRPC loses a status that crosses it."""
        if not self._heard:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_MESSAGE_TIMEOUT_S):
                    await self.receive()

    def end(self, code: str = "OK", details: str = "") -> None:
        """End the stream with this status."""
        if not self.aborted.done():
            self.aborted.set_result((code, details))


Serve = Callable[[ServerStream], Coroutine[Any, Any, None]]


class GrpcServer:
    """Serves `ConnectWorker`. `serve` is called for each stream. The stream ends when it returns, or with the status of
    a `RejectError`.

    gRPC itself ends a stream on a message above `hard_limit_bytes`, by default four times `max_message_bytes`.
    """

    def __init__(
        self,
        serve: Serve,
        listen: str,
        credentials: grpc.ServerCredentials | None = None,
        *,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        hard_limit_bytes: int | None = None,
    ) -> None:
        self._serve = serve
        self._listen = listen
        self._credentials = credentials
        self._options: list[tuple[str, int]] = [
            ("grpc.max_receive_message_length", hard_limit_bytes or HARD_LIMIT_FACTOR * max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", 10_000),  # a worker that vanished is noticed within 15 s
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.http2.ping_timeout_ms", 5_000),  # otherwise gRPC waits 60 s for the answer to a ping
            ("grpc.http2.max_pings_without_data", 0),
        ]
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen; `OSError` when the address is not available."""
        host, colon, port = self._listen.rpartition(":")
        if not host or not colon or not port.isdigit() or int(port) > 65535:
            raise OSError(f"cannot listen on {self._listen}: expected HOST:PORT, such as 127.0.0.1:8080")
        server = grpc.aio.server(options=self._options)
        service, method = METHOD.strip("/").split("/")
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._handle)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        try:
            self.port = (
                server.add_secure_port(self._listen, self._credentials) if self._credentials else server.add_insecure_port(self._listen)
            )
        except RuntimeError as exc:
            raise OSError(f"cannot listen on {self._listen}: {exc}") from None
        await server.start()
        self._server = server

    async def stop(self, grace_s: float | None = None) -> None:
        """End all streams and close the port."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    async def _handle(self, requests: object, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        stream = ServerStream(context)
        serving: asyncio.Future[Any] = asyncio.ensure_future(self._serve(stream))
        try:
            ends: list[asyncio.Future[Any]] = [serving, stream.aborted]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
                return
        except RejectError as exc:
            await stream.take_first()
            await context.abort(grpc.StatusCode[exc.code], str(exc))
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        code, details = stream.aborted.result()
        if code != "OK":
            await context.abort(grpc.StatusCode[code], details)
