"""Writes a batch into SQLite in few statements, because a row costs less than a statement.

    Accept, Lease of one run    one row, written in its leased state
    the other accepts           the same statement, with as many rows as there are
    ends without a delivery     one statement for many
    everything else             one statement each, from `store/sql.py`

Within a batch, the order matters only between operations of one run. Accepts are written first and ends last. A batch
in which this would reorder the operations of a run is written one by one. So is a batch in which an operation was
refused, after a rollback, because only separate statements tell which one it was. New runs without an idempotency key
are never refused, and ends seldom are.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import apsw

from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.store import sql
from gen_orchestrator.store.ops import DONE, Accept, Finish, Lease, Op, Refused, Result

T = TypeVar("T")
_SIZES = (64, 16, 4)  # rows per statement: few different lengths, so that all statements stay prepared
_STARTING, _GOING_ON, _ENDING = range(3)


def at_once(db: apsw.Connection, ops: Sequence[Op]) -> list[Result] | None:
    """Write all operations in the open transaction; None if some did not happen, or their order forbids it. Then roll
    back and use `one_by_one`.
    """
    steps: dict[str, int] = {}
    accepts: list[tuple[Any, ...]] = []
    ends: list[Finish] = []
    others: list[int] = []
    number, count = 0, len(ops)
    while number < count:
        op = ops[number]
        if type(op) is Accept and not op.run.idempotency_key:
            run = op.run
            if run.id in steps:
                return None
            steps[run.id] = _STARTING
            following = ops[number + 1] if number + 1 < count else None
            if type(following) is Lease and _follows(run, following):
                accepts.append(sql.leased_row(run, following))
                number += 1
            else:
                accepts.append(sql.run_row(run))
        elif type(op) is Finish and op.delivery is None:
            steps[op.run_id] = _ENDING
            ends.append(op)
        else:
            run_id = op.run.id if isinstance(op, Accept) else op.run_id
            if steps.get(run_id) == _ENDING:
                return None
            steps[run_id] = _GOING_ON
            others.append(number)
        number += 1
    for rows in _pieces(accepts):
        db.execute(_ACCEPTS[len(rows)], tuple(chain.from_iterable(rows)))
        if db.changes() != len(rows):
            return None
    results: list[Result] = [DONE] * count
    for number in others:
        results[number] = _one(db, ops[number])
        if ends and results[number] is not DONE:
            return None  # the entry that was in the way may be about to end
    for some in _pieces(ends):
        if len(some) == 1:
            db.execute(*sql.statement(some[0]))
        else:
            db.execute(_ENDS[len(some)], tuple(chain.from_iterable(map(sql.end_row, some))))
        if db.changes() != len(some):
            return None
    return results


def one_by_one(db: apsw.Connection, ops: Sequence[Op]) -> list[Result]:
    """Write these operations in order, in the open transaction; returns the result of each."""
    return [_one(db, op) for op in ops]


def _one(db: apsw.Connection, op: Op) -> Result:
    db.execute(*sql.statement(op))
    if db.changes():
        if (more := sql.consequence(op)) is not None:
            db.execute(*more)
        return DONE
    rows = db.execute(*sql.subject(op)).fetchall()
    return Refused(sql.run_of(rows[0]) if rows else None)


def _follows(run: Run, lease: Lease) -> bool:
    """Whether this lease belongs to the run just accepted, and can be written with it."""
    is_next = lease.run_id == run.id and lease.attempt == run.attempt + 1
    return is_next and run.state is RunState.QUEUED and not run.cancel_requested


def _pieces(items: list[T]) -> Iterator[list[T]]:
    """The items in order, in pieces whose lengths are in `_SIZES`, or single."""
    at = 0
    for size in (*_SIZES, 1):
        while len(items) - at >= size:
            yield items[at : at + size]
            at += size


_ACCEPTS = {size: sql.accepts(size) for size in (*_SIZES, 1)}
_ENDS = {size: sql.ends(size) for size in _SIZES}
