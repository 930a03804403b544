"""What a transport offers: a stream of whole messages, and a value that says how it ended."""

from typing import Protocol

import msgspec


class Lost(msgspec.Struct, frozen=True):
    """The stream is over. `by_peer`: the other side ended it; otherwise the connection broke."""

    detail: str = ""
    by_peer: bool = False


class Moved(msgspec.Struct, frozen=True):
    """The scheduler at this address is not the leader; the leader is at `address`."""

    address: str


class Refused(msgspec.Struct, frozen=True):
    """The scheduler will never serve this worker: their protocols do not fit."""

    detail: str


Ended = Lost | Moved | Refused

DEFAULT_MAX_MESSAGE_BYTES = 16 << 20
HARD_LIMIT_FACTOR = 4  # gRPC ends a stream above its limit, so that limit lies above ours, where only the message fails


class StreamOverError(ConnectionError):
    """Nothing more can be sent on this stream."""


class MessageStream(Protocol):
    """Both directions of one stream. One sender and one receiver at a time."""

    async def send(self, data: bytes) -> None:
        """Send a message; waits while the peer does not take it. `StreamOverError` when the stream is over."""
        ...

    async def receive(self) -> bytes | None:
        """The next message; None when the stream is over, then `ended` says how."""
        ...

    @property
    def ended(self) -> Ended: ...


def ended_by_status(code: str, details: str, *, by_peer: bool) -> Ended:
    """What a gRPC status of a stream means to a worker. `code` is the status name, such as `FAILED_PRECONDITION`."""
    if code == "FAILED_PRECONDITION":
        if details.startswith("unsupported_worker_protocol:"):
            return Refused(details)
        if details.startswith("not_leader:") and (address := details.removeprefix("not_leader:").strip()):
            return Moved(address)
    return Lost(f"{code}: {details}" if details else code, by_peer)
