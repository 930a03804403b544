"""What a transport offers: a stream of whole messages, and a value that says how the stream ended."""

import re
from typing import Protocol

import msgspec


class Lost(msgspec.Struct, frozen=True):
    """The stream is over. `by_peer`: the other side ended it; otherwise the connection broke. `clean`: the peer ended
    it without an error, as a scheduler does to make the worker dial again.
    """

    detail: str = ""
    by_peer: bool = False
    clean: bool = False


class TooLarge(msgspec.Struct, frozen=True):
    """The peer ended the stream because a message exceeded its limit. `limit_bytes` is that limit, 0 when the peer did not give it."""

    detail: str
    limit_bytes: int = 0


class Moved(msgspec.Struct, frozen=True):
    """The scheduler at this address is not the leader; the leader is at `address`."""

    address: str


class Refused(msgspec.Struct, frozen=True):
    """The scheduler will never serve this worker: their protocol versions do not match."""

    detail: str


Ended = Lost | TooLarge | Moved | Refused
# The wordings of gRPC implementations: the C core (Python, C++, Ruby), Go, Java, Rust.
_LIMIT = re.compile(r"(?:larger than max \(\d+ vs\. |exceeds maximum size |the limit is: )(\d+)")

_NOT_LEADER = "not_leader:"

DEFAULT_MAX_MESSAGE_BYTES = 16 << 20
HARD_LIMIT_FACTOR = 4  # gRPC ends the whole stream above its limit, so we set that limit above ours, where only the message fails


class StreamOverError(ConnectionError):
    """The stream is over; nothing more can be sent."""


class MessageStream(Protocol):
    """Both directions of one stream. At most one sender and one receiver at a time."""

    async def send(self, data: bytes) -> None:
        """Send a message; waits while the peer's buffer is full. `StreamOverError` when the stream is over."""
        ...

    async def receive(self) -> bytes | None:
        """The next message; None when the stream is over (`ended` says how)."""
        ...

    @property
    def ended(self) -> Ended: ...


def ended_by_status(code: str, details: str, *, by_peer: bool) -> Ended:
    """What the gRPC status of a stream means for a worker. `code` is the status name, such as `FAILED_PRECONDITION`."""
    if code == "FAILED_PRECONDITION":
        if details.startswith("unsupported_worker_protocol:"):
            return Refused(details)
        if details.startswith(_NOT_LEADER) and (address := details.removeprefix(_NOT_LEADER).strip()):
            return Moved(address)
    shown = f"{code}: {details}" if details else code
    limit = _LIMIT.search(details)
    if code == "RESOURCE_EXHAUSTED" or (code == "OUT_OF_RANGE" and limit):
        return TooLarge(shown, int(limit[1]) if limit and len(limit[1]) < 16 else 0)
    return Lost(shown, by_peer, clean=code == "OK")


def not_leader(address: str) -> tuple[str, str]:
    """The status with which a scheduler that is not the leader ends a stream. It names the leader if known."""
    return "FAILED_PRECONDITION", f"{_NOT_LEADER}{address}"
