"""Stdout is for a command's result. Everything else written to it while an author's code runs goes to stderr.

An author's module may print, write to descriptor 1 from C, use `sys.__stdout__`, or start children that inherit the
descriptor. So the descriptor itself is replaced, not the Python object: `claim` moves the real stdout to a descriptor
that no child inherits, and makes descriptor 1 a duplicate of stderr.
"""

import io
import os
import sys
from typing import TextIO


class Stdout:
    """The real stdout of this process. Before `claim` it is Python's own; afterwards only this object can write to it."""

    def __init__(self) -> None:
        self._own: io.FileIO | None = None

    def claim(self) -> None:
        """Keep the real stdout for `write`, for the rest of this process's life: the author's code may even print while Python exits."""
        if self._own is not None:
            return
        for stream in (sys.stdout, sys.__stdout__):
            if stream is not None:
                stream.flush()
        try:
            own = os.dup(1)  # not inheritable
        except OSError:  # the process was started without a stdout
            own = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(2, 1)
        except OSError:  # without a stderr
            with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a descriptor is wanted
                os.dup2(nothing.fileno(), 1)
        self._own = io.FileIO(own, "wb")

    def write(self, data: bytes) -> None:
        """Write all of `data` now; `BrokenPipeError` when the reader has gone."""
        if self._own is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        rest = memoryview(data)
        while rest:
            rest = rest[self._own.write(rest) or 0 :]

    def isatty(self) -> bool:
        """Whether stdout is a terminal."""
        return (self._own or sys.stdout).isatty()

    def text(self) -> TextIO:
        """A text file for a table. It has a descriptor of its own, which is closed with it; `write` continues to work."""
        if self._own is None:
            return sys.stdout
        return io.TextIOWrapper(io.FileIO(os.dup(self._own.fileno()), "wb"), "utf-8", write_through=True)


def silence() -> None:
    """Send stdout and stderr nowhere: their reader has gone, and Python would complain at exit about what it cannot flush."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
