"""What the client's decisions ask of the network, as values.

A flow is a generator that yields effects and receives their results. Its driver does the waiting, blocking or on a
loop. So both clients share every decision: what is retried, where a stream is resumed, what an answer means.

    flow:    Send(request)        ... the answer, whole; or `LostError` is raised in the flow
             Open(request)        ... the answer's head; its body is read by `Read`, and ended by `Close`
             Read()               ... bytes as they came; b"" at the end
             Pause(seconds)       ... nothing
             Give(value)          ... nothing: the value goes to whoever iterates
"""

from collections.abc import Generator, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request to the client's own server. `path` is percent-encoded and includes the query.

    `content`: the whole body, or pieces that can be iterated once. `read_timeout_s`: a longer silence counts as a lost
    connection.
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    content: bytes | Iterable[bytes] = b""
    read_timeout_s: float = 60.0


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer. Header names are lower case. `body` is empty for the answer to `Open` when its status is 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class LostError(Exception):
    """No answer, or only part of it. `sent`: the server may have seen the request. `silent`: the read timeout passed."""

    def __init__(self, why: str, *, sent: bool, silent: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.sent = sent
        self.silent = silent


class Send(msgspec.Struct, frozen=True):
    request: Request


class Open(msgspec.Struct, frozen=True):
    request: Request


class Read(msgspec.Struct, frozen=True):
    pass


class Close(msgspec.Struct, frozen=True):
    pass


class Pause(msgspec.Struct, frozen=True):
    seconds: float


class Give(msgspec.Struct, frozen=True):
    value: Any


Effect = Send | Open | Read | Close | Pause | Give
Flow = Generator[Effect, Any, T]


def send(request: Request) -> Flow[Answer]:
    """The whole answer; `LostError`."""
    answer: Answer = yield Send(request)
    return answer


def opened(request: Request) -> Flow[Answer]:
    """The head of an answer whose body is read piece by piece; `LostError`."""
    answer: Answer = yield Open(request)
    return answer


def read() -> Flow[bytes]:
    """The next piece of the opened answer, b"" at its end; `LostError`."""
    data: bytes = yield Read()
    return data
