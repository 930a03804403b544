"""Runs functions from Python: `Client`, `AsyncClient`, and the errors they raise.

    from gen_worker.client import Client

    client = Client()
    print(client.run("local/hello/hello", {"name": "x"}))

Importing it loads neither gRPC nor torch nor an HTTP library; the HTTP library is imported with the first client,
asyncio with `AsyncClient`.
"""

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
    UnreachableError,
)
from gen_worker.client.files import Files
from gen_worker.client.tries import Patience
from gen_worker.client.values import Run, RunEvent, RunFile, RunProblem

if TYPE_CHECKING:
    from gen_worker.client.asynchronous import AsyncClient, AsyncRunHandle, AsyncRunStream

__all__ = [
    "AsyncClient",
    "AsyncRunHandle",
    "AsyncRunStream",
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
    "UnreachableError",
]


def __getattr__(name: str) -> Any:
    if name not in ("AsyncClient", "AsyncRunHandle", "AsyncRunStream"):
        raise AttributeError(f"module 'gen_worker.client' has no attribute {name!r}")
    from gen_worker.client import asynchronous

    return getattr(asynchronous, name)
