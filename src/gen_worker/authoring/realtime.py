"""The two-way socket of a websocket handler."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any


class RealtimeSocket(ABC):
    """Frames in and out of one realtime session. After `close`, sends do nothing."""

    @abstractmethod
    async def send_bytes(self, data: bytes) -> None:
        """Send one binary frame."""

    @abstractmethod
    async def send_json(self, obj: Any) -> None:
        """Send one text frame of compact JSON with sorted keys."""

    @abstractmethod
    def iter_bytes(self) -> AsyncIterator[bytes]:
        """Frames from the client, until either side closes."""

    @abstractmethod
    async def close(self) -> None:
        """End the session."""
