"""The common part of the SQLite and PostgreSQL stores: every read, and the changes that are one statement or a list of
them.

A store provides three primitives: read rows, change by one statement, do several in one transaction. Each store has its
own way to connect, lock, wait and fail.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from gen_orchestrator.domain.access import AuditRow, Key
from gen_orchestrator.domain.budgets import Budgets
from gen_orchestrator.domain.canary import Candidate
from gen_orchestrator.domain.gates import GateResult, Golden
from gen_orchestrator.domain.receipts import UsageRow, summed
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.secrets import StoredSecret
from gen_orchestrator.domain.shadow import Shadow
from gen_orchestrator.domain.webhooks import Delivery
from gen_orchestrator.store import sql, sql_gates, sql_usage
from gen_orchestrator.store.base import FIRST, NO_RELEASE, DamagedRowError, EventChunk, Leader, OldRun, Release, RunFilter, Tag

T = TypeVar("T")
FAR_S = 1e15
Row = Sequence[Any]
Change = Callable[[str, Row], int]  # runs a statement with these values; returns the number of rows changed


def quietly(_: DamagedRowError) -> None:
    """For callers with nobody to tell."""


class SqlStore(ABC):
    """Statements come from `store/sql.py`, in SQLite's spelling."""

    def __init__(self, on_damaged: Callable[[DamagedRowError], None]) -> None:
        """`on_damaged` is called for each row that is skipped when many are read."""
        self._on_damaged = on_damaged

    @abstractmethod
    def _read(self, text: str, values: Row = ()) -> list[Any]:
        """The rows of a query, on a connection for reading."""

    @abstractmethod
    def _change(self, text: str, values: Row, *, frees: bool = False) -> bool:
        """Whether this statement changed a row. `frees`: it deletes, or withdraws a right, and must succeed even on a full disk."""

    @abstractmethod
    def _transact(self, work: Callable[[Change], T], *, frees: bool = False) -> T:
        """Run everything in one transaction, or nothing."""

    def get(self, run_id: str) -> Run | None:
        return self._first(sql.run_of, sql.GET, (run_id,))

    def by_key(self, owner: str, key: str) -> Run | None:
        return self._first(sql.run_of, sql.BY_KEY, (owner, key))

    def open_runs(self) -> list[Run]:
        return self._all(sql.run_of, sql.OPEN_RUNS)

    def list_runs(self, query: RunFilter) -> list[Run]:
        found: list[Run] = []
        while True:
            rows = self._read(*sql.list_query(query))
            runs = self._each(sql.run_of, rows)
            found += runs
            if len(runs) == len(rows) or len(rows) < query.limit or not rows[-1][0]:
                return found
            # Some rows were skipped: a page shorter than its limit would look like the last one.
            query = msgspec.structs.replace(query, cursor=rows[-1][0], limit=len(rows) - len(runs))

    def events_of(self, run_id: str) -> list[EventChunk]:
        return self._all(sql.chunk_of, sql.EVENTS_OF, (run_id,))

    def pending_deliveries(self, limit: int, after: tuple[float, str] = FIRST) -> list[Delivery]:
        return self._all(sql.delivery_of, sql.PENDING_DELIVERIES, (*after, limit))

    def deliveries_of(self, run_id: str) -> list[Delivery]:
        return self._all(sql.delivery_of, sql.DELIVERIES_OF, (run_id,))

    def trim(self, finished_before: float, limit: int) -> int:
        old = self._read(sql.TO_TRIM, (finished_before, limit))

        def work(change: Change) -> int:
            for row in old:
                change(sql.FORGET_EVENTS, (*row, *row))
                change(sql.TRIM_RUN, row)
            return len(old)

        return self._transact(work, frees=True)

    def accepted_since(self, invoker_id: str, created_after: float, limit: int) -> dict[str, float]:
        return {row[0]: float(row[1]) for row in self._read(sql.ACCEPTED_SINCE, (created_after, invoker_id, limit))}

    def old_runs(self, finished_before: float, limit: int) -> list[OldRun]:
        return [OldRun(*row) for row in self._read(sql.OLD_RUNS, (finished_before, finished_before, limit))]

    def forget(self, run_ids: Sequence[str]) -> int:
        # A finished run changes no more.
        used = {run_id: row for run_id in run_ids for row in self._all(sql_usage.run_row, sql_usage.OF_RUN, (run_id,))}

        def work(change: Change) -> int:
            gone = 0
            for run_id in run_ids:
                change(sql.FORGET_EVENTS, (run_id, run_id))
                change(sql.FORGET_DELIVERIES, (run_id, run_id))
                if change(sql.FORGET_RUN, (run_id,)):  # deleted by us: when two nodes delete the same run, one keeps its usage
                    gone += 1
                    if (row := used.get(run_id)) is not None:
                        change(sql_usage.ADD, msgspec.structs.astuple(row))
            return gone

        return self._transact(work, frees=True)

    def usage(self, begin_day: int, end_day: int, owner: str = "") -> list[UsageRow]:
        first_s = self._read(sql_usage.FIRST_END)[0][0]
        first_day = int(first_s // sql_usage.DAY_S) if isinstance(first_s, (int, float)) else end_day
        found = [
            row
            for day, begin_s, end_s in sql_usage.days(max(begin_day, first_day), end_day)
            for row in self._all(sql_usage.day_row, sql_usage.OF_DAY, (day, begin_s, end_s, owner, owner))
        ]
        # After the runs: a run deleted meanwhile counts twice for a moment, instead of not at all.
        found += self._all(sql_usage.day_row, sql_usage.FORGOTTEN, (begin_day, end_day, owner, owner))
        return summed(found)

    def gpu_ms_since(self, invoker_id: str, begin_s: float, cut_s: float) -> tuple[int, dict[str, int]]:
        kept = self._read(sql_usage.GPU_MS, (begin_s, cut_s, invoker_id))[0][0]
        rows = self._read(sql_usage.GPU_MS_OF_EACH, (max(begin_s, cut_s), FAR_S, invoker_id))
        each = {run_id: gpu_ms for run_id, gpu_ms in rows if isinstance(gpu_ms, int)}  # a damaged one counts as nothing
        forgotten = self._read(sql_usage.GPU_MS_FORGOTTEN, (int(begin_s // sql_usage.DAY_S), invoker_id))[0][0]
        return round(kept) + round(forgotten), each

    def add_release(self, release: Release) -> None:
        self._change(sql.ADD_RELEASE, sql.release_row(release))

    def release(self, release_id: str) -> Release | None:
        return self._first(sql.release_of, sql.RELEASE, (release_id,))

    def releases(self, owner: str = "", endpoint: str = "") -> list[Release]:
        return self._all(sql.release_of, sql.RELEASES, (owner, owner, endpoint, endpoint))

    def delete_release(self, epoch: int, release_id: str, at: float) -> bool:
        return self._change(sql.DELETE_RELEASE, (at, release_id, epoch), frees=True)

    def clear_release(self, release_id: str, at: float) -> bool:
        return self._change(sql.CLEAR_RELEASE, (at, release_id), frees=True)

    def move_tag(self, tag: Tag) -> Tag | None:
        return tag if self._change(sql.MOVE_TAG, sql.tag_move(tag), frees=tag.release_id == NO_RELEASE) else None

    def tags(self, owner: str = "", endpoint: str = "") -> list[Tag]:
        return self._all(sql.tag_of, sql.TAGS, (owner, owner, endpoint, endpoint))

    def tag_history(self, owner: str, endpoint: str, function: str, tag: str) -> list[Tag]:
        return self._all(sql.tag_of, sql.TAG_HISTORY, (owner, endpoint, function, tag))

    def add_key(self, key: Key) -> None:
        self._change(sql.ADD_KEY, sql.key_row(key))

    def revoke_key(self, key_id: str, at: float) -> bool:
        return self._change(sql.REVOKE_KEY, (at, key_id), frees=True)

    def set_budgets(self, key_id: str, budgets: Budgets) -> bool:
        return self._change(sql.SET_BUDGETS, (msgspec.json.encode(budgets), key_id))

    def list_keys(self) -> list[Key]:
        return self._all(sql.key_of, sql.KEYS)

    def add_audit(self, row: AuditRow) -> None:
        self._change(sql.ADD_AUDIT, sql.audit_row(row), frees=True)  # a record of something already done

    def audit(self, owner: str, limit: int) -> list[AuditRow]:
        return self._all(sql.audit_of, sql.AUDIT, (owner, owner, limit))

    def set_candidate(self, candidate: Candidate) -> None:
        self._change(sql_gates.SET_CANDIDATE, msgspec.structs.astuple(candidate))

    def drop_candidate(self, owner: str, endpoint: str, function: str, tag: str) -> bool:
        return self._change(sql_gates.DROP_CANDIDATE, (owner, endpoint, function, tag), frees=True)

    def candidates(self) -> list[Candidate]:
        return [sql_gates.candidate_of(row) for row in self._read(sql_gates.CANDIDATES)]

    def set_shadow(self, shadow: Shadow) -> None:
        self._change(sql_gates.SET_SHADOW, msgspec.structs.astuple(shadow), frees=bool(shadow.ended_at))

    def shadows(self) -> list[Shadow]:
        return self._all(sql_gates.shadow_of, sql_gates.SHADOWS)

    def add_golden(self, golden: Golden) -> None:
        self._change(sql_gates.ADD_GOLDEN, sql_gates.golden_row(golden))

    def goldens(self, owner: str = "", endpoint: str = "") -> list[Golden]:
        return self._all(sql_gates.golden_of, sql_gates.GOLDENS, (owner, owner, endpoint, endpoint))

    def remove_golden(self, golden_id: str) -> bool:
        def work(change: Change) -> bool:
            change(sql_gates.FORGET_GOLDEN_RESULTS, (golden_id,))
            return change(sql_gates.REMOVE_GOLDEN, (golden_id,)) > 0

        return self._transact(work, frees=True)

    def save_results(self, results: Sequence[GateResult]) -> None:
        def work(change: Change) -> None:
            for result in results:
                change(sql_gates.SAVE_RESULT, sql_gates.result_row(result))

        self._transact(work)

    def results(self, release_id: str) -> list[GateResult]:
        return self._all(sql_gates.result_of, sql_gates.RESULTS, (release_id,))

    def add_secret(self, secret: StoredSecret) -> bool:
        return self._change(sql.ADD_SECRET, sql.secret_row(secret), frees=not secret.sealed)

    def secrets(self) -> list[StoredSecret]:
        return self._all(sql.secret_of, sql.SECRETS)

    def resign(self, leader: Leader) -> None:
        self._change(sql.RESIGN, (leader.epoch,), frees=True)

    def _first(self, value_of: Callable[[Row], T], text: str, values: Row) -> T | None:
        rows = self._read(text, values)
        return value_of(rows[0]) if rows else None

    def _all(self, value_of: Callable[[Row], T], text: str, values: Row = ()) -> list[T]:
        return self._each(value_of, self._read(text, values))

    def _each(self, value_of: Callable[[Row], T], rows: list[Any]) -> list[T]:
        """The values of all readable rows: a damaged row does not affect the others."""
        found = []
        for row in rows:
            try:
                found.append(value_of(row))
            except DamagedRowError as exc:
                self._on_damaged(exc)
        return found
