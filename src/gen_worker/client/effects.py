"""What the decisions of this client ask of the network: a conversation as values.

A flow is a generator that yields effects and is sent their results; whoever drives it does the waiting, blocking or on a loop. So both
clients share every decision: what is sent again, where a stream is taken up, what an answer means.

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
    """One HTTP request to the client's own server. `path` is percent-encoded and has the query.

    `content`: whole, or pieces that can be made once. `read_timeout_s`: the longest silence that is no loss.
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    content: bytes | Iterable[bytes] = b""
    read_timeout_s: float = 60.0


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer. Header names in lower case; `body` is empty for the answer of `Open` where its status is 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class LostError(Exception):
    """No answer, or not all of it. `sent`: the server may have seen the request; `silent`: it was waited for as long as it may take."""

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
    """The next piece of what was opened, b"" at its end; `LostError`."""
    data: bytes = yield Read()
    return data
