"""Runs functions from Python: `Client`, `AsyncClient`, and the errors they raise.

    from gen_worker.client import Client

    client = Client()
    print(client.run("local/hello/hello", {"name": "x"}))

Importing it loads neither gRPC nor torch nor an HTTP library; the HTTP library is imported with the first client,
asyncio with `AsyncClient`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gen_worker.client.blocking import Client, RunHandle, RunStream
from gen_worker.client.calls import CallOptions
from gen_worker.client.errors import (
    AuthenticationError,
    ClientError,
    EventsLostError,
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    OutputTypeError,
    OverloadedError,
    RunCanceledError,
    RunError,
    RunExpiredError,
    RunFailedError,
    SessionError,
    UnreachableError,
)
from gen_worker.client.files import Files
from gen_worker.client.session_rules import SessionEnd, SessionOptions
from gen_worker.client.tries import Patience
from gen_worker.client.values import Run, RunEvent, RunFile, RunProblem

if TYPE_CHECKING:
    from gen_worker.client.asynchronous import AsyncClient, AsyncRunHandle, AsyncRunStream
    from gen_worker.client.asynchronous_sessions import AsyncSession
    from gen_worker.client.sessions import Session

__all__ = [
    "AsyncClient",
    "AsyncRunHandle",
    "AsyncRunStream",
    "AsyncSession",
    "AuthenticationError",
    "CallOptions",
    "Client",
    "ClientError",
    "EventsLostError",
    "Files",
    "GatewayError",
    "InvalidRequestError",
    "NotFoundError",
    "OutputTypeError",
    "OverloadedError",
    "Patience",
    "Run",
    "RunCanceledError",
    "RunError",
    "RunEvent",
    "RunExpiredError",
    "RunFailedError",
    "RunFile",
    "RunHandle",
    "RunProblem",
    "RunStream",
    "Session",
    "SessionEnd",
    "SessionError",
    "SessionOptions",
    "UnreachableError",
]


_LATER = {
    "AsyncClient": "asynchronous",
    "AsyncRunHandle": "asynchronous",
    "AsyncRunStream": "asynchronous",
    "AsyncSession": "asynchronous_sessions",
    "Session": "sessions",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'gen_worker.client' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gen_worker.client.{_LATER[name]}"), name)
