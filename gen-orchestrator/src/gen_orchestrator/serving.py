"""The server of an ASGI application."""

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from gen_worker.http.serving import quiet_config


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the program decides what a signal means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: ASGIApp) -> Server:
    """A server for `app`, with the settings of all our servers."""
    return Server(quiet_config(app))
