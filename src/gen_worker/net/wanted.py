"""The input of a download, and the ways it may fail."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from gen_worker.net.range_client import Link


class DownloadFailedError(Exception):
    """A file could not be downloaded. `passing`: another try later may succeed. `status` is the HTTP status if there was one."""

    def __init__(self, message: str, *, passing: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.status = status


class NoSpaceError(OSError):
    """No space left for a download; the bytes so far are kept."""


class DownloadCanceledError(Exception):
    """The files are no longer wanted; the bytes so far are kept."""


class Wanted(msgspec.Struct, frozen=True):
    """A file to have at `path`. With an empty `digest` only the size is checked.

    `link(expired)` returns its URL; `expired` True means that the last one was refused and a fresh one is needed.
    """

    path: Path
    size_bytes: int
    digest: str
    link: Callable[[bool], Link]
    name: str = ""  # for messages; by default the path's own name


class Meter(Protocol):
    """Is told how many bytes arrived; a negative number takes some back."""

    def add(self, size_bytes: int) -> None: ...


class Policy(msgspec.Struct, frozen=True):
    """How many streams fetch, and when one is too slow: with fewer than `stall_bytes` in `stall_s` seconds it is reopened."""

    streams: int = 4
    max_streams: int = 16
    stall_s: float = 20.0
    stall_bytes: int = 64 << 10
