"""A connection after one of its requests was upgraded: it keeps its place in the crowd and in uvicorn's list of connections."""

import asyncio
import time
from abc import ABC, abstractmethod
from typing import Any

from gen_worker.http.crowd import ConnectionLimits, Crowd


class Upgraded(asyncio.Protocol, ABC):
    """A protocol that a connection can be handed over to. Lives on the loop."""

    def __init__(self) -> None:
        self.address = ""
        self._transport: asyncio.Transport | None = None
        self._crowd: Crowd | None = None
        self._connections: set[Any] = set()
        self._gone = False
        self._is_full = False  # the client has not read what was written
        self._unread_bytes = 0
        self._since_s = time.monotonic()  # since when `unread_for` has been waiting

    def take_over(self, transport: asyncio.Transport, crowd: Crowd, connections: set[Any], address: str) -> None:
        """The connection's transport, in its place."""
        self._transport, self._crowd, self._connections, self.address = transport, crowd, connections, address
        crowd.join(self)  # takes the place that the connection has just left
        crowd.busy(self)
        connections.add(self)

    @abstractmethod
    def go_on(self) -> None:
        """Continue reading, unless there is no room."""

    @abstractmethod
    def check_time(self, now_s: float, limits: ConnectionLimits) -> None:
        """Called about once a second: end the connection if a limit is exceeded."""

    @abstractmethod
    def shutdown(self) -> None:
        """The server shuts down."""

    @abstractmethod
    def lost(self) -> None:
        """The client is gone. Called once."""

    def unread_for(self, now_s: float) -> float:
        """For how many seconds the client has read nothing of what was written."""
        unread_bytes = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if unread_bytes != self._unread_bytes:
            self._unread_bytes, self._since_s = unread_bytes, now_s
        return now_s - self._since_s

    def pause_writing(self) -> None:
        self._is_full = True
        if self._transport is not None:
            self._unread_bytes, self._since_s = self._transport.get_write_buffer_size(), time.monotonic()

    def resume_writing(self) -> None:
        self._is_full = False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._gone:
            return
        self._gone = True
        if self._crowd is not None:
            self._crowd.leave(self)
        self._connections.discard(self)
        self._transport = None
        self.lost()

    def close_idle(self) -> None:
        """Does nothing: such a connection is never idle in the crowd's sense."""

    def close_stalled(self, began_s: float, now_s: float) -> bool:
        return False
