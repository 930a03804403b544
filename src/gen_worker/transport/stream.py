"""What a transport offers: a stream of whole messages, and a value that says how it ended."""

import re
from typing import Protocol

import msgspec


class Lost(msgspec.Struct, frozen=True):
    """The stream is over. `by_peer`: the other side ended it; otherwise the connection broke. `clean`: it ended it without an error, as a
    scheduler does that wants to be dialled again."""

    detail: str = ""
    by_peer: bool = False
    clean: bool = False


class TooLarge(msgspec.Struct, frozen=True):
    """The peer ended the stream because a message was larger than it takes. `limit_bytes` is what it takes, 0 where it did not say."""

    detail: str
    limit_bytes: int = 0


class Moved(msgspec.Struct, frozen=True):
    """The scheduler at this address is not the leader; the leader is at `address`."""

    address: str


class Refused(msgspec.Struct, frozen=True):
    """The scheduler will never serve this worker: their protocols do not fit."""

    detail: str


Ended = Lost | TooLarge | Moved | Refused
# How implementations of gRPC word it: the C core (Python, C++, Ruby), Go, Java, Rust.
_LIMIT = re.compile(r"(?:larger than max \(\d+ vs\. |exceeds maximum size |the limit is: )(\d+)")

_NOT_LEADER = "not_leader:"

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
        if details.startswith(_NOT_LEADER) and (address := details.removeprefix(_NOT_LEADER).strip()):
            return Moved(address)
    shown = f"{code}: {details}" if details else code
    limit = _LIMIT.search(details)
    if code == "RESOURCE_EXHAUSTED" or (code == "OUT_OF_RANGE" and limit):
        return TooLarge(shown, int(limit[1]) if limit and len(limit[1]) < 16 else 0)
    return Lost(shown, by_peer, clean=code == "OK")


def not_leader(address: str) -> tuple[str, str]:
    """The status by which a scheduler that is not the leader ends a stream, naming the leader where it knows it."""
    return "FAILED_PRECONDITION", f"{_NOT_LEADER}{address}"
