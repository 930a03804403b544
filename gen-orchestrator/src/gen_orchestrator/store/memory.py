"""The store in memory: the reference that the others are compared with, and what simulations run on."""

from collections.abc import Callable, Sequence

import msgspec

from gen_orchestrator.domain import runs
from gen_orchestrator.domain.access import AuditRow, Key
from gen_orchestrator.domain.budgets import Budgets
from gen_orchestrator.domain.canary import Candidate
from gen_orchestrator.domain.gates import GateResult, Golden
from gen_orchestrator.domain.receipts import UsageRow, summed
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.secrets import StoredSecret
from gen_orchestrator.domain.shadow import Shadow
from gen_orchestrator.domain.webhooks import Delivery
from gen_orchestrator.store.base import FIRST, DeposedError, EventChunk, OldRun, Release, RunFilter, Tag
from gen_orchestrator.store.memory_leadership import MemoryLeadership
from gen_orchestrator.store.ops import (
    DONE,
    Accept,
    AddDelivery,
    AppendEvents,
    Finish,
    Lease,
    Op,
    RecordDelivery,
    Refused,
    RequestCancel,
    Requeue,
    Result,
)
from gen_orchestrator.store.sql_usage import DAY_S, row_of


class MemoryStore(MemoryLeadership):
    """Keeps everything until the process ends. `now_s` is the database's clock."""

    is_alone = False

    def __init__(self, now_s: Callable[[], float]) -> None:
        super().__init__(now_s)
        self._runs: dict[str, Run] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._events: dict[str, list[EventChunk]] = {}
        self._trimmed: set[str] = set()
        self._used: list[UsageRow] = []  # from deleted runs
        self._releases: dict[str, Release] = {}
        self._tags: dict[tuple[str, str, str, str], list[Tag]] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._access_keys: dict[str, Key] = {}
        self._audit: dict[str, AuditRow] = {}
        self._candidates: dict[tuple[str, str, str, str], Candidate] = {}
        self._shadows: dict[tuple[str, str, str, str], Shadow] = {}
        self._goldens: dict[str, Golden] = {}
        self._results: dict[tuple[str, str, str, str], GateResult] = {}
        self._secrets: dict[tuple[str, str, str], list[StoredSecret]] = {}

    def apply(self, epoch: int, ops: Sequence[Op]) -> list[Result]:
        with self._lock:
            if self._leader is None or self._leader.epoch != epoch:
                raise DeposedError(f"epoch {epoch} no longer leads; the store is at epoch {self._epoch}")
            return [self._apply(op) for op in ops]

    def get(self, run_id: str) -> Run | None:
        with self._lock:
            return self._runs.get(run_id)

    def by_key(self, owner: str, key: str) -> Run | None:
        with self._lock:
            return self._runs.get(self._keys.get((owner, key), ""))

    def open_runs(self) -> list[Run]:
        with self._lock:
            return sorted((run for run in self._runs.values() if not run.is_final), key=lambda run: (run.created_at, run.id))

    def list_runs(self, query: RunFilter) -> list[Run]:
        with self._lock:
            newest = sorted(self._runs.values(), key=lambda run: (run.created_at, run.id), reverse=True)
            last = self._runs.get(query.cursor)
        found: list[Run] = []
        size_bytes = 0
        for run in newest:
            if query.cursor and (last is None or (run.created_at, run.id) >= (last.created_at, last.id)):
                continue
            wanted = (query.owner, query.endpoint, query.function)
            if all(not want or want == have for want, have in zip(wanted, (run.owner, run.endpoint, run.function), strict=True)) and (
                not query.states or run.state in query.states
            ):
                found.append(run)
                size_bytes += len(run.payload) + len(run.output)
            if len(found) == query.limit or (query.max_bytes and size_bytes > query.max_bytes):
                break
        return found

    def events_of(self, run_id: str) -> list[EventChunk]:
        with self._lock:
            return sorted(self._events.get(run_id, ()), key=lambda chunk: (chunk.attempt, chunk.first_seq))

    def pending_deliveries(self, limit: int, after: tuple[float, str] = FIRST) -> list[Delivery]:
        with self._lock:
            pending = [each for each in self._deliveries.values() if each.state == "pending" and (each.next_at, each.id) > after]
        return sorted(pending, key=lambda each: (each.next_at, each.id))[:limit]

    def deliveries_of(self, run_id: str) -> list[Delivery]:
        with self._lock:
            found = [delivery for delivery in self._deliveries.values() if delivery.run_id == run_id]
        return sorted(found, key=lambda delivery: (delivery.created_at, delivery.id))

    def trim(self, finished_before: float, limit: int) -> int:
        with self._lock:
            old = [run for run in self._old(finished_before) if run.id not in self._trimmed][:limit]
            for run in old:
                self._trimmed.add(run.id)
                self._events.pop(run.id, None)
                self._keys.pop((run.owner, run.idempotency_key), None)
                self._runs[run.id] = msgspec.structs.replace(run, idempotency_key="")
            return len(old)

    def accepted_since(self, invoker_id: str, created_after: float, limit: int) -> dict[str, float]:
        with self._lock:
            found = [run for run in self._runs.values() if run.invoker_id == invoker_id and run.created_at > created_after]
        newest = sorted(found, key=lambda run: (run.created_at, run.id), reverse=True)[:limit]
        return {run.id: run.created_at for run in newest}

    def old_runs(self, finished_before: float, limit: int) -> list[OldRun]:
        with self._lock:
            kept = {golden.run_id for golden in self._goldens.values()}
            old = [run for run in self._old(finished_before) if run.id not in kept]
            return [OldRun(run.id, run.owner) for run in old[:limit]]

    def forget(self, run_ids: Sequence[str]) -> int:
        with self._lock:
            gone = [run for run_id in run_ids if (run := self._runs.get(run_id)) is not None and run.is_final]
            self._used = summed([*self._used, *map(row_of, gone)])
            for run in gone:
                del self._runs[run.id]
                self._trimmed.discard(run.id)
                self._events.pop(run.id, None)
                for delivery in [each for each in self._deliveries.values() if each.run_id == run.id]:
                    del self._deliveries[delivery.id]
                if run.idempotency_key:
                    self._keys.pop((run.owner, run.idempotency_key), None)
            return len(gone)

    def usage(self, begin_day: int, end_day: int, owner: str = "") -> list[UsageRow]:
        with self._lock:
            rows = [*map(row_of, (run for run in self._runs.values() if run.is_final)), *self._used]
        return summed(row for row in rows if begin_day <= row.day < end_day and owner in ("", row.owner))

    def gpu_ms_since(self, invoker_id: str, begin_s: float, cut_s: float) -> tuple[int, dict[str, int]]:
        with self._lock:
            ended = [run for run in self._runs.values() if run.is_final and run.finished_at >= begin_s and run.invoker_id == invoker_id]
            forgotten = [row.gpu_ms for row in self._used if row.day >= begin_s // DAY_S and row.invoker_id == invoker_id]
        kept = sum(run.gpu_ms for run in ended if run.finished_at < cut_s)
        return kept + sum(forgotten), {run.id: run.gpu_ms for run in ended if run.finished_at >= cut_s}

    def _old(self, finished_before: float) -> list[Run]:
        old = [run for run in self._runs.values() if run.is_final and run.finished_at < finished_before]
        return sorted(old, key=lambda run: (run.created_at, run.id))

    def add_release(self, release: Release) -> None:
        with self._lock:
            there = self._releases.get(release.release_id)
            if there is None or (there.deleted_at and there.digest == release.digest):
                self._releases[release.release_id] = release

    def delete_release(self, epoch: int, release_id: str, at: float) -> bool:
        with self._lock:
            there = self._releases.get(release_id)
            if there is None or there.deleted_at or self._leader is None or self._leader.epoch != epoch:
                return False
            used = {history[-1].release_id for history in self._tags.values() if history}
            used |= {each.release_id for each in self._candidates.values()}
            used |= {each.release_id for each in self._shadows.values() if not each.ended_at}
            used |= {run.release_id for run in self._runs.values() if not run.is_final}
            if release_id in used:
                return False
            self._releases[release_id] = msgspec.structs.replace(there, deleted_at=at)
            return True

    def clear_release(self, release_id: str, at: float) -> bool:
        with self._lock:
            there = self._releases.get(release_id)
            if is_left := there is not None and bool(there.deleted_at) and not there.cleared_at:
                self._releases[release_id] = msgspec.structs.replace(there, cleared_at=at)
            return is_left

    def release(self, release_id: str) -> Release | None:
        with self._lock:
            return self._releases.get(release_id)

    def releases(self, owner: str = "", endpoint: str = "") -> list[Release]:
        with self._lock:
            found = [r for r in self._releases.values() if owner in ("", r.owner) and endpoint in ("", r.endpoint)]
        return sorted(found, key=lambda release: (release.created_at, release.release_id), reverse=True)

    def move_tag(self, tag: Tag) -> Tag | None:
        with self._lock:
            history = self._tags.setdefault((tag.owner, tag.endpoint, tag.function, tag.tag), [])
            release = self._releases.get(tag.release_id)
            if len(history) != tag.version - 1 or (release is not None and release.deleted_at):
                return None
            history.append(tag)
            return tag

    def tags(self, owner: str = "", endpoint: str = "") -> list[Tag]:
        with self._lock:
            now = [history[-1] for history in self._tags.values() if history]
        found = [tag for tag in now if owner in ("", tag.owner) and endpoint in ("", tag.endpoint)]
        return sorted(found, key=lambda tag: (tag.owner, tag.endpoint, tag.function, tag.tag))

    def tag_history(self, owner: str, endpoint: str, function: str, tag: str) -> list[Tag]:
        with self._lock:
            return list(reversed(self._tags.get((owner, endpoint, function, tag), [])))

    def add_key(self, key: Key) -> None:
        with self._lock:
            self._access_keys[key.key_id] = key

    def revoke_key(self, key_id: str, at: float) -> bool:
        with self._lock:
            key = self._access_keys.get(key_id)
            if key is None or key.revoked_at:
                return False
            self._access_keys[key_id] = msgspec.structs.replace(key, revoked_at=at)
            return True

    def set_budgets(self, key_id: str, budgets: Budgets) -> bool:
        with self._lock:
            key = self._access_keys.get(key_id)
            if key is not None:
                self._access_keys[key_id] = msgspec.structs.replace(key, budgets=budgets)
            return key is not None

    def list_keys(self) -> list[Key]:
        with self._lock:
            return sorted(self._access_keys.values(), key=lambda key: (key.created_at, key.key_id))

    def add_audit(self, row: AuditRow) -> None:
        with self._lock:
            self._audit.setdefault(row.row_id, row)

    def audit(self, owner: str, limit: int) -> list[AuditRow]:
        with self._lock:
            found = [row for row in self._audit.values() if owner in ("", row.owner)]
        return sorted(found, key=lambda row: row.row_id, reverse=True)[:limit]

    def set_candidate(self, candidate: Candidate) -> None:
        with self._lock:
            self._candidates[candidate.owner, candidate.endpoint, candidate.function, candidate.tag] = candidate

    def drop_candidate(self, owner: str, endpoint: str, function: str, tag: str) -> bool:
        with self._lock:
            return self._candidates.pop((owner, endpoint, function, tag), None) is not None

    def candidates(self) -> list[Candidate]:
        with self._lock:
            return [candidate for _, candidate in sorted(self._candidates.items())]

    def set_shadow(self, shadow: Shadow) -> None:
        with self._lock:
            self._shadows[shadow.place] = shadow

    def shadows(self) -> list[Shadow]:
        with self._lock:
            return [shadow for _, shadow in sorted(self._shadows.items())]

    def add_golden(self, golden: Golden) -> None:
        with self._lock:
            self._goldens.setdefault(golden.golden_id, golden)

    def goldens(self, owner: str = "", endpoint: str = "") -> list[Golden]:
        with self._lock:
            found = [each for each in self._goldens.values() if owner in ("", each.owner) and endpoint in ("", each.endpoint)]
        return sorted(found, key=lambda each: (each.created_at, each.golden_id))

    def remove_golden(self, golden_id: str) -> bool:
        with self._lock:
            for place in [place for place in self._results if place[2:] == ("golden", golden_id)]:
                del self._results[place]
            return self._goldens.pop(golden_id, None) is not None

    def save_results(self, results: Sequence[GateResult]) -> None:
        with self._lock:
            for each in results:
                self._results[each.release_id, each.function, each.kind, each.subject] = each

    def results(self, release_id: str) -> list[GateResult]:
        with self._lock:
            found = [each for each in self._results.values() if each.release_id == release_id]
        return sorted(found, key=lambda each: (each.kind, each.function, each.subject))

    def add_secret(self, secret: StoredSecret) -> bool:
        with self._lock:
            versions = self._secrets.setdefault((secret.owner, secret.endpoint, secret.name), [])
            if secret.version != len(versions) + 1:
                return False
            versions.append(secret)
            return True

    def secrets(self) -> list[StoredSecret]:
        with self._lock:
            return [each for _, versions in sorted(self._secrets.items()) for each in versions]

    def close(self) -> None:
        """Nothing to close."""

    def _apply(self, op: Op) -> Result:
        if isinstance(op, Accept):
            return self._accept(op.run)
        run = self._runs.get(op.run_id)
        if isinstance(op, AppendEvents):
            if run is None or run.attempt != op.attempt:
                return Refused(run)
            kept = self._events.setdefault(op.run_id, [])
            if any((chunk.attempt, chunk.first_seq) == (op.attempt, op.first_seq) for chunk in kept):
                return Refused(run)
            kept.append(EventChunk(op.attempt, op.first_seq, op.last_seq, op.events, op.instance_id, op.wire_seq))
            return DONE
        if isinstance(op, (AddDelivery, RecordDelivery)):
            return self._deliver(op, run)
        if run is None:
            return Refused(None)
        match op:
            case Lease():
                moved = runs.lease(run, attempt=op.attempt, worker_id=op.worker_id, at=op.at, routing=op.routing)
            case Requeue():
                moved = runs.requeue(
                    run,
                    attempt=op.attempt,
                    not_before=op.not_before,
                    executed=op.executed,
                    lost=op.lost,
                    suspicion=op.suspicion,
                    used=op.used,
                )
            case Finish():
                moved = runs.finish(run, attempt=op.attempt, ending=op.ending)
            case RequestCancel():
                moved = runs.request_cancel(run)
        if moved is None:
            return Refused(run)
        self._runs[op.run_id] = moved
        if isinstance(op, Finish) and op.delivery is not None:
            self._deliveries.setdefault(op.delivery.id, op.delivery)
        return DONE

    def _deliver(self, op: AddDelivery | RecordDelivery, run: Run | None) -> Result:
        there = self._deliveries.get(op.delivery.id)
        if isinstance(op, AddDelivery):
            if there is not None:
                return Refused(run)
            self._deliveries[op.delivery.id] = op.delivery
            return DONE
        if there is None or there.state != "pending":
            return Refused(run)
        state, next_at, tries = op.delivery.state, op.delivery.next_at, op.delivery.tries
        self._deliveries[there.id] = msgspec.structs.replace(there, state=state, next_at=next_at, tries=tries)
        return DONE

    def _accept(self, run: Run) -> Result:
        there = self._runs.get(run.id)
        if there is None and run.idempotency_key:
            there = self._runs.get(self._keys.get((run.owner, run.idempotency_key), ""))
        if there is not None:
            return Refused(there)
        self._runs[run.id] = run
        if run.idempotency_key:
            self._keys[run.owner, run.idempotency_key] = run.id
        return DONE
