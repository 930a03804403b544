"""Connects to a scheduler: TLS, token, keepalive. The only importer of gRPC on the worker's side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import grpc
import grpc.aio
import msgspec

from gen_worker.transport.stream import (
    DEFAULT_MAX_MESSAGE_BYTES,
    HARD_LIMIT_FACTOR,
    Ended,
    Lost,
    StreamOverError,
    ended_by_status,
)

METHOD = "/scheduler.v1.SchedulerWorkerService/ConnectWorker"
CONNECT_TIMEOUT_S = 10.0
# A half-open connection is noticed within 15 s. A heartbeat goes out every 10 s. Within 5 s either the scheduler has
# answered it (`Connection` checks), or at least the peer's TCP has acknowledged it: gRPC also sets the keepalive
# timeout as TCP_USER_TIMEOUT. Pings are sent just above the five minutes below which gRPC servers treat pings of a
# quiet client as abuse.
KEEPALIVE_MS = 320_000
KEEPALIVE_TIMEOUT_MS = 5_000
# When a write fails because the peer ended the stream, grpcio records this as the status, before or after the peer's own.
_MADE_UP_BY_WRITE = "Internal error from Core"
STATUS_TIMEOUT_S = 1.0
T = TypeVar("T")
_PREFIXES = {"https://": True, "grpcs://": True, "http://": False, "grpc://": False}


class TlsError(ValueError):
    """The TLS settings are unusable."""


class Tls(msgspec.Struct, frozen=True):
    """How to secure connections. `use` None: decided by the address's scheme. Paths are PEM files; empty ones are ignored."""

    use: bool | None = None
    ca_file: str = ""
    server_name: str = ""
    cert_file: str = ""
    key_file: str = ""

    def applies_to(self, address: str) -> bool:
        """Whether a connection to this address is to be encrypted."""
        if self.use is not None:
            return self.use
        return address.startswith(("https://", "grpcs://")) or address.endswith(":443")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; `TlsError` names the one that is unusable."""
        if bool(self.cert_file) != bool(self.key_file):
            raise TlsError("a client certificate needs both SCHEDULER_TLS_CERT_FILE and SCHEDULER_TLS_KEY_FILE")
        return grpc.ssl_channel_credentials(_pem(self.ca_file), _pem(self.key_file), _pem(self.cert_file))


def target_of(address: str) -> str:
    """`host:port` from an address, with or without a scheme."""
    for prefix in _PREFIXES:
        if address.startswith(prefix):
            return address.removeprefix(prefix).rstrip("/")
    return address


class GrpcStream:
    """One `ConnectWorker` call."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call
        self._ended: Ended | None = None
        self._status = (grpc.StatusCode.UNAVAILABLE, "the stream broke", False)  # code, details, whether there were trailers
        self._has_status = asyncio.Event()
        call.add_done_callback(self._note_status)

    @property
    def ended(self) -> Ended:
        return self._ended or Lost("open")

    async def send(self, data: bytes) -> None:
        try:
            await self._call.write(data)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError) as exc:
            raise StreamOverError(str(exc)) from None

    async def receive(self) -> bytes | None:
        try:
            data: object = await self._call.read()
        except grpc.aio.AioRpcError:
            data = grpc.aio.EOF
        if isinstance(data, bytes):
            return data
        await self._note_end()
        return None

    async def close_sending(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    def _note_status(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        """gRPC calls this whenever a status is set. We keep the peer's own status, so that a failed write cannot hide it."""
        code, details, trailers = _now(call.code()), _now(call.details()) or "", _now(call.trailing_metadata())
        if details != _MADE_UP_BY_WRITE:
            self._status = code, details, bool(trailers)
            self._has_status.set()

    async def _note_end(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                await self._has_status.wait()
        code, details, has_trailers = self._status
        # Only a living peer sends trailing metadata. A broken connection has none, and gRPC invents its status.
        by_peer = code is grpc.StatusCode.OK or has_trailers or code not in _BROKEN
        self._ended = ended_by_status(code.name, details, by_peer=by_peer)


def _now(coroutine: Coroutine[object, object, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    coroutine.close()
    raise RuntimeError("gRPC announced a status that is not there yet")


_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


class GrpcDialer:
    """Opens streams to schedulers."""

    def __init__(
        self, tls: Tls, *, max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        self._tls = tls
        self._credentials = tls.credentials() if tls.use is not False else None
        self._connect_timeout_s = connect_timeout_s
        self._options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", HARD_LIMIT_FACTOR * max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),  # a new dial must open a new connection
            ("grpc.enable_http_proxy", 0),
        ]

    def is_secure(self, address: str) -> bool:
        return self._tls.applies_to(address)

    @asynccontextmanager
    async def dial(self, address: str, token: str, *, secure: bool) -> AsyncIterator[GrpcStream]:
        """A stream to this address; `ConnectionError` says why it failed. The token travels as call metadata."""
        async with self._channel(target_of(address), secure) as channel:
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    await self._ready(channel)
            except TimeoutError:
                raise ConnectionError(f"no gRPC server answered within {self._connect_timeout_s:.0f} s") from None
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)  # no serializers: plain bytes
            call = method(metadata=(("authorization", f"Bearer {token}"),))
            stream = GrpcStream(call)
            try:
                yield stream
            finally:
                call.cancel()

    async def _ready(self, channel: grpc.aio.Channel) -> None:
        state = channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                raise ConnectionError("refused, unreachable, or the TLS handshake failed")

    def _channel(self, target: str, secure: bool) -> grpc.aio.Channel:
        options = list(self._options)
        if not secure:
            return grpc.aio.insecure_channel(target, options=options)
        if self._tls.server_name:
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        return grpc.aio.secure_channel(target, self._credentials or grpc.ssl_channel_credentials(), options=options)


def _pem(path: str) -> bytes | None:
    if not path:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise TlsError(f"TLS file {path!r} cannot be read: {exc.strerror}") from None
    if b"-----BEGIN" not in data:
        raise TlsError(f"TLS file {path!r} is not in PEM format")
    return data
