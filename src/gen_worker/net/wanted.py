"""What a download is asked for, and how it may fail."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from gen_worker.net.range_client import Link


class DownloadFailedError(Exception):
    """A file could not be had. `passing`: another try later may succeed. `status` is the HTTP status where there was one."""

    def __init__(self, message: str, *, passing: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.status = status


class NoSpaceError(OSError):
    """No space left for a download; what came so far is kept."""


class DownloadCanceledError(Exception):
    """Nobody wants the files any more; what came so far is kept."""


class Wanted(msgspec.Struct, frozen=True):
    """A file to have at `path`. `digest` may be empty: then only the size is checked.

    `link(expired)` gives its address; with `expired` True the last one was refused, and a fresh one is due.
    """

    path: Path
    size_bytes: int
    digest: str
    link: Callable[[bool], Link]
    name: str = ""  # for messages; the path's own by default


class Meter(Protocol):
    """Is told how many bytes came; a negative number takes some back."""

    def add(self, size_bytes: int) -> None: ...


class Policy(msgspec.Struct, frozen=True):
    """How many streams fetch, and when one is too slow: fewer than `stall_bytes` in `stall_s` seconds, then it is opened anew."""

    streams: int = 4
    max_streams: int = 16
    stall_s: float = 20.0
    stall_bytes: int = 64 << 10
