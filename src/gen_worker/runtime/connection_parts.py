"""Parts of a connection to the scheduler: who dials, how often, its streams, who observes it, and why it is given up."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from gen_worker.errors import FatalError
from gen_worker.runtime.seeds import Backoff
from gen_worker.transport.stream import MessageStream
from gen_worker.wire.messages import Registration
from gen_worker.wire.worker_session import WorkerEffect


class IncompatibleSchedulerError(FatalError):
    """The scheduler does not support this worker's protocol."""


class UnreachableError(FatalError):
    """The scheduler could not be reached in MAX_RECONNECT_ATTEMPTS rounds."""


Register = Callable[[bool], Registration]
Apply = Callable[[WorkerEffect], None]


class ClosableStream(MessageStream, Protocol):
    async def close_sending(self) -> None:
        """Say that nothing more will be sent; the peer ends the stream once it has taken everything."""
        ...


class Dialer(Protocol):
    """Opens streams."""

    def is_secure(self, address: str) -> bool: ...

    def dial(self, address: str, token: str, *, secure: bool) -> AbstractAsyncContextManager[ClosableStream]: ...


class ConnectionPolicy(msgspec.Struct, frozen=True):
    """How to reconnect, and how often to send heartbeats. `max_rounds` 0: no limit."""

    backoff: Backoff = Backoff()
    max_rounds: int = 0
    heartbeat_s: float = 10.0


class Observer(Protocol):
    """Is told about the state of the connection."""

    def connecting(self, address: str) -> None: ...

    def connect_failed(self, address: str, detail: str) -> None: ...

    def registered(self, address: str) -> None: ...

    def lost(self, address: str, detail: str) -> None: ...

    def incompatible(self, address: str, detail: str) -> None: ...
