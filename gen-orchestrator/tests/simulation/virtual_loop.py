"""An asyncio event loop whose time is a number: nothing waits, time jumps to the next timer."""

import asyncio
import selectors
from typing import Any


class IdleError(RuntimeError):
    """Nothing is scheduled any more, and somebody still waits."""


class _NoSockets(selectors.SelectSelector):
    """Never waits: moves the loop's time instead."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise IdleError("every task waits for something that no timer will bring about")
        if timeout > 0:
            self.loop.virtual_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs tasks in a fixed order: the same program does the same every time."""

    def __init__(self) -> None:
        selector = _NoSockets()
        self.virtual_s = 1000.0
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self.virtual_s
