"""How all our servers serve: by our own connections, with limits, and without headers that describe the server."""

import asyncio
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from gen_worker.http.connection import Connection
from gen_worker.http.crowd import ConnectionLimits, Crowd


def quiet_config(app: ASGIApp) -> uvicorn.Config:
    """uvicorn's configuration for `app`. Connections, heads and their times are limited (`http/crowd`)."""
    crowd = Crowd(ConnectionLimits.for_this_process())

    def connection(*, config: uvicorn.Config, server_state: Any, **_: Any) -> Connection:
        return Connection(app, crowd, server_state)

    return uvicorn.Config(
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
