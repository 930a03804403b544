"""Slots: how many runs a worker, and each of its functions, may work on at once. Pure counting.

A function called by a run (`ctx.invoke`) counts towards its function's limit but not the worker's: the calling run only
waits.
"""

from collections.abc import Callable
from typing import Literal

Refusal = Literal["worker_draining", "max_concurrency_reached", "function_concurrency_reached"]


class Admission:
    """Counts runs in progress. A limit of 0 or None is no limit."""

    def __init__(self, max_concurrency: int = 0) -> None:
        self.max_concurrency = max_concurrency
        self._draining = False
        self.active = 0  # runs, of all functions
        self._active: dict[str, int] = {}  # functions without runs have no entry
        self._called: dict[str, int] = {}
        self._freed: list[Callable[[], None]] = []

    def when_freed(self, callback: Callable[[], None]) -> None:
        """Call this whenever a slot is given back."""
        self._freed.append(callback)

    def drain(self) -> None:
        """From now on, refuse every run."""
        self._draining = True

    def take(self, function: str, limit: int | None) -> Refusal | None:
        """Take a slot; otherwise the reason why there is none."""
        if self._draining:
            return "worker_draining"
        if self.max_concurrency and self.active >= self.max_concurrency:
            return "max_concurrency_reached"
        if limit and self._is_full(function, limit):
            return "function_concurrency_reached"
        self.active += 1
        self._active[function] = self._active.get(function, 0) + 1
        return None

    def take_called(self, function: str, limit: int | None) -> bool:
        """Take a slot for a function called by a run; whether there was one."""
        if limit and self._is_full(function, limit):
            return False
        self._called[function] = self._called.get(function, 0) + 1
        return True

    def give_called(self, function: str) -> None:
        """Give back the slot of a called function."""
        self._give(self._called, function)

    def _is_full(self, function: str, limit: int) -> bool:
        return self._active.get(function, 0) + self._called.get(function, 0) >= limit

    def give(self, function: str) -> None:
        """Give a slot back."""
        self.active -= function in self._active
        self._give(self._active, function)

    def _give(self, counts: dict[str, int], function: str) -> None:
        count = counts.pop(function, 0)
        if count > 1:
            counts[function] = count - 1
        for callback in self._freed:
            callback()
