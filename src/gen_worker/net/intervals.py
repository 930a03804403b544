"""Which bytes of a file are there: a set of half-open ranges."""

from collections.abc import Iterable, Iterator


class Intervals:
    """Sorted, disjoint `[start, end)` ranges; neighbours are joined."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._ranges: list[tuple[int, int]] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Record that these bytes are there."""
        if end <= start:
            return
        before = [r for r in self._ranges if r[1] < start]
        after = [r for r in self._ranges if r[0] > end]
        touching = self._ranges[len(before) : len(self._ranges) - len(after)]
        if touching:
            start, end = min(start, touching[0][0]), max(end, touching[-1][1])
        self._ranges = [*before, (start, end), *after]

    def missing(self, size: int) -> list[tuple[int, int]]:
        """The gaps in `[0, size)`."""
        gaps, at = [], 0
        for start, end in self._ranges:
            if at < min(start, size):
                gaps.append((at, min(start, size)))
            at = max(at, end)
        if at < size:
            gaps.append((at, size))
        return gaps

    def front(self) -> int:
        """How many bytes are there from the start without a gap."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    def total(self) -> int:
        return sum(end - start for start, end in self._ranges)

    def within(self, size: int) -> bool:
        """Whether all ranges lie in `[0, size)`."""
        return not self._ranges or (self._ranges[0][0] >= 0 and self._ranges[-1][1] <= size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)
