"""A limit on a whole request. The time limits of httpcore and of sockets are for one read each: a server that sends a byte now
and then meets all of them, and holds its connection and the thread behind it for ever.
"""

import time
from typing import Any

import httpcore


class DeadlineBackend(httpcore.NetworkBackend):
    """Connections that end `limit_s` seconds from now, whatever the server sends: while connecting, in TLS, in the head of
    the answer or in its body. After that every operation raises httpcore's timeout. For one request, over `backend`.
    """

    def __init__(self, backend: httpcore.NetworkBackend, limit_s: float) -> None:
        self._backend = backend
        self._until_s = time.monotonic() + limit_s

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        left_s = left(self._until_s, timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_tcp(host, port, left_s, *args, **kwargs), self._until_s)

    def connect_unix_socket(self, path: str, timeout: float | None = None, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        left_s = left(self._until_s, timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_unix_socket(path, left_s, *args, **kwargs), self._until_s)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, until_s: float) -> None:
        self._stream = stream
        self._until_s = until_s

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, left(self._until_s, timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sent piece by piece: httpcore's own loop grants the whole time to each piece that the server accepts."""
        sock = self._stream.get_extra_info("socket")
        rest = memoryview(buffer)
        while rest:
            sock.settimeout(left(self._until_s, timeout, httpcore.WriteTimeout))
            try:
                rest = rest[sock.send(rest) :]
            except TimeoutError as exc:
                raise httpcore.WriteTimeout(str(exc)) from exc
            except OSError as exc:
                raise httpcore.WriteError(str(exc)) from exc

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> httpcore.NetworkStream:
        """The standard library's handshake keeps to one limit in all."""
        try:
            left_s = left(self._until_s, timeout, httpcore.ConnectTimeout)
        except httpcore.ConnectTimeout:
            self.close()
            raise
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._until_s)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def left(until_s: float, timeout: float | None, expired: type[Exception]) -> float:
    """The seconds that an operation may take; raises `expired` when the time is up."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise expired("took too long in all")
    return left_s if timeout is None else min(left_s, timeout)
