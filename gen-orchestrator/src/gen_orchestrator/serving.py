"""The server of an ASGI application."""

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from gen_worker.http.serving import quiet_config


class Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: the program decides what a signal means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: ASGIApp) -> Server:
    """A server for `app`, as every server of ours serves."""
    return Server(quiet_config(app))
