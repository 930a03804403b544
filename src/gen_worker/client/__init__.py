"""Run functions from Python: `Client`, `AsyncClient`, and what they raise.

    from gen_worker.client import Client

    client = Client()
    print(client.run("local/hello/hello", {"name": "x"}))

Importing it loads neither gRPC nor torch nor an HTTP library; that comes with the first client.
"""

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
from gen_worker.client.values import Run, RunEvent, RunFile, RunProblem

__all__ = [
    "AuthenticationError",
    "CallOptions",
    "Client",
    "ClientError",
    "EventsLostError",
    "GatewayError",
    "InvalidRequestError",
    "NotFoundError",
    "OutputTypeError",
    "OverloadedError",
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
