"""Serve an ASGI application on a bound socket until told to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from gen_worker.http.connection import Connection
from gen_worker.http.crowd import ConnectionLimits, Crowd

EXAMPLE = "127.0.0.1:8080"


class ListenError(ValueError):
    """The address cannot be had; the message says why and what helps."""


def listening_socket(listen: str) -> socket.socket:
    """A bound socket for `host:port` (port 0: any free one); `ListenError` says why it cannot be had."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ListenError(f"--listen {listen!r}: expected HOST:PORT, such as {EXAMPLE}")
    host = host.strip("[]")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError as exc:
        used = f"; port {port} is in use: stop the other server, or take a free port with --listen {host}:0" if exc.errno == 98 else ""
        raise ListenError(f"cannot listen on {listen}: {exc.strerror or exc}{used}") from None
    return sock


class Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: the program decides what a signal means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: ASGIApp) -> Server:
    """A server for `app`, quiet, without headers that tell about it. Connections, heads and their times are bounded (`http/crowd`)."""
    crowd = Crowd(ConnectionLimits.for_this_process())

    def connection(*, config: uvicorn.Config, server_state: Any, **_: Any) -> Connection:
        return Connection(app, crowd, server_state)

    return Server(
        uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", connection),
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=3,
        )
    )
