"""The operations waiting to be written, in order. Pure; shared by the writer and by simulations of it.

Order is a promise: what a run said is written before its end, and its end before its next lease. So when a batch fails, its operations
stay at the head of the line and are tried again, and nothing overtakes them. Two kinds of failure differ:

    nothing was written  (no room, no connection)      an `optional` operation leaves the line and is told; the others stay
    unknown              (the commit was not answered)  all stay: each is a compare-and-set, and asking again is safe

An optional operation is the acceptance of a run: its caller is waiting, and is told at once that it was not accepted.
"""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from gen_orchestrator.store.base import DeposedError, StoreError, StoreUnavailableError
from gen_orchestrator.store.ops import Op, Result

OnWritten = Callable[[Result], None]
OnTrouble = Callable[[StoreError], None]


class Entry(msgspec.Struct, eq=False):
    """An operation in the line. `on_trouble` is called for every failure; an optional operation may then have left the
    line, see `left`.
    """

    op: Op
    on_written: OnWritten | None
    on_trouble: OnTrouble | None
    optional: bool
    left: bool = False


class Line:
    """First in, first out, whatever fails."""

    def __init__(self) -> None:
        self._waiting: list[Entry] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, op: Op, on_written: OnWritten | None, on_trouble: OnTrouble | None, *, optional: bool) -> None:
        """Add an operation at the end."""
        self._waiting.append(Entry(op, on_written, on_trouble, optional))

    def take(self, most: int) -> list[Entry]:
        """The next batch; report its result with `settle`."""
        batch, self._waiting = self._waiting[:most], self._waiting[most:]
        return batch

    def settle(self, batch: Sequence[Entry], results: Sequence[Result] | StoreError) -> list[Callable[[], None]]:
        """The callbacks for a batch that was written or failed. A failed batch is back at the head, except for operations that left."""
        if not isinstance(results, StoreError):
            return [partial(entry.on_written, result) for entry, result in zip(batch, results, strict=True) if entry.on_written is not None]
        unknown = isinstance(results, StoreUnavailableError) and results.unknown
        deposed = isinstance(results, DeposedError)
        for entry in batch:
            entry.left = deposed or (entry.optional and not unknown)
        if not deposed:
            self._waiting[:0] = [entry for entry in batch if not entry.left]
        return [partial(entry.on_trouble, results) for entry in batch if entry.on_trouble is not None]
