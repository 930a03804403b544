"""Slots: how many runs a worker, and each function of it, may work on at once. Pure counting."""

from typing import Literal

Refusal = Literal["worker_draining", "max_concurrency_reached", "function_concurrency_reached"]


class Admission:
    """Counts runs in progress. A limit of 0 or None is no limit."""

    def __init__(self, max_concurrency: int = 0) -> None:
        self.max_concurrency = max_concurrency
        self._draining = False
        self._active: dict[str, int] = {}  # functions without a run are not in it

    @property
    def active(self) -> int:
        return sum(self._active.values())

    def drain(self) -> None:
        """Refuse every run from now on."""
        self._draining = True

    def take(self, function: str, limit: int | None) -> Refusal | None:
        """Take a slot, or say why there is none."""
        if self._draining:
            return "worker_draining"
        if self.max_concurrency and self.active >= self.max_concurrency:
            return "max_concurrency_reached"
        count = self._active.get(function, 0)
        if limit and count >= limit:
            return "function_concurrency_reached"
        self._active[function] = count + 1
        return None

    def give(self, function: str) -> None:
        """Give a slot back."""
        count = self._active.pop(function, 0)
        if count > 1:
            self._active[function] = count - 1
