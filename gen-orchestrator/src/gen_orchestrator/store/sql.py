# ruff: noqa: S608 - statements are put together from names of ours alone
"""The statements that SQLite and PostgreSQL share, in SQLite's spelling (`?`), and how rows become values.

Each move is one compare-and-set: it changes the row only from the state and attempt that it speaks for. `domain/runs.py` says what
each of them means.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from gen_orchestrator.domain.access import AuditRow, Key
from gen_orchestrator.domain.budgets import Budgets
from gen_orchestrator.domain.budgets import checked as budgets_from
from gen_orchestrator.domain.receipts import Usage
from gen_orchestrator.domain.runs import CANCELED_ERROR, Ending, Run, RunError, RunState
from gen_orchestrator.domain.secrets import StoredSecret
from gen_orchestrator.domain.webhooks import Delivery, Try
from gen_orchestrator.store.base import EventChunk, Leader, Release, RunFilter, Tag
from gen_orchestrator.store.ops import Accept, AddDelivery, AppendEvents, Finish, Lease, Op, RecordDelivery, RequestCancel, Requeue
from gen_orchestrator.store.rows import checked, readable

RUN_COLUMNS = (
    "id", "owner", "endpoint", "function", "tag", "release_id", "payload", "created_at", "state", "attempt", "executions",
    "lost_workers", "max_attempts", "priority", "timeout_ms", "expires_at", "not_before", "worker_id", "cancel_requested", "invoker_id",
    "parent_id", "idempotency_key", "fingerprint", "webhook", "started_at", "finished_at", "routing", "output", "error", "metrics",
    "warnings", "traceparent", "suspicion", "leased_at", "gpu_ms", "cpu_ms", "cold_ms", "downloaded_bytes", "loaded_bytes", "cost_nanos",
)  # fmt: skip
_SELECT = f"select {', '.join(RUN_COLUMNS)} from runs"
_OPEN = "('queued', 'leased')"

_USED = (
    "gpu_ms = gpu_ms + ?, cpu_ms = cpu_ms + ?, cold_ms = cold_ms + ?, downloaded_bytes = downloaded_bytes + ?, "
    "loaded_bytes = loaded_bytes + ?, cost_nanos = case when cost_nanos < 0 or ? < 0 then -1 else cost_nanos + ? end"
)

RESIGN = "update leader set lease_until = 0 where shard = 0 and epoch = ?"
FENCE = "select 1 from leader where shard = 0 and epoch = ?"

ACCEPT = f"insert into runs ({', '.join(RUN_COLUMNS)}) values ({', '.join('?' * len(RUN_COLUMNS))}) on conflict do nothing"
LEASE = (
    "update runs set state = 'leased', attempt = ?, worker_id = ?, routing = ?, leased_at = ?, "
    "started_at = case when started_at = 0 then ? else started_at end "
    "where id = ? and attempt = ? and state = 'queued' and cancel_requested = 0"
)
REQUEUE = (
    "update runs set state = 'queued', worker_id = '', not_before = ?, executions = executions + ?, "
    f"lost_workers = lost_workers + ?, suspicion = suspicion + ?, {_USED} where id = ? and attempt = ? and state = 'leased'"
)
FINISH = (
    "update runs set executions = executions + case when state = 'leased' then 1 else 0 end, "
    "state = case when cancel_requested = 1 then 'canceled' else ? end, "
    "output = case when cancel_requested = 1 then ? else ? end, "
    "error = case when cancel_requested = 1 then ? else ? end, "
    f"finished_at = ?, metrics = ?, warnings = ?, {_USED} where id = ? and attempt = ? and state in {_OPEN}"
)
# `FINISH` for several runs, as `store/sqlite_batches.py` writes it: `v` has a row for each run, with the values of
# `end_row`.
_ENDS = (
    "update runs set executions = executions + case when state = 'leased' then 1 else 0 end, "
    "state = case when cancel_requested = 1 then 'canceled' else v.column3 end, "
    "output = case when cancel_requested = 1 then v.column4 else v.column5 end, "
    "error = case when cancel_requested = 1 then v.column6 else v.column7 end, "
    "finished_at = v.column8, metrics = v.column9, warnings = v.column10, gpu_ms = gpu_ms + v.column11, cpu_ms = cpu_ms + v.column12, "
    "cold_ms = cold_ms + v.column13, downloaded_bytes = downloaded_bytes + v.column14, loaded_bytes = loaded_bytes + v.column15, "
    "cost_nanos = case when cost_nanos < 0 or v.column16 < 0 then -1 else cost_nanos + v.column16 end "
    "from (values {rows}) as v where id = v.column1 and attempt = v.column2 and state in {open}"
)
REQUEST_CANCEL = f"update runs set cancel_requested = 1 where id = ? and state in {_OPEN}"
APPEND = (
    "insert into run_events (run_id, attempt, first_seq, last_seq, events, instance_id, wire_seq) "
    "select ?, ?, ?, ?, ?, ?, ? where exists (select 1 from runs where id = ? and attempt = ?) on conflict do nothing"
)

_DELIVERY_COLUMNS = "id, run_id, moment, created_at, state, next_at, tries"
ADD_DELIVERY = f"insert into deliveries ({_DELIVERY_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?) on conflict do nothing"
RECORD_DELIVERY = "update deliveries set state = ?, next_at = ?, tries = ? where id = ? and state = 'pending'"
PENDING_DELIVERIES = (
    f"select {_DELIVERY_COLUMNS} from deliveries where state = 'pending' and (next_at, id) > (?, ?) order by next_at, id limit ?"
)
DELIVERIES_OF = f"select {_DELIVERY_COLUMNS} from deliveries where run_id = ? order by created_at, id"
FORGET_DELIVERIES = "delete from deliveries where run_id = ? and exists (select 1 from runs where id = ? and finished_at > 0)"

GET = f"{_SELECT} where id = ?"
BY_KEY = f"{_SELECT} where owner = ? and idempotency_key = ? and idempotency_key <> ''"
OPEN_RUNS = f"{_SELECT} where state in {_OPEN} order by created_at, id"
EVENTS_OF = (
    "select attempt, first_seq, last_seq, events, instance_id, wire_seq from run_events where run_id = ? order by attempt, first_seq"
)
ACCEPTED_SINCE = "select id, created_at from runs where created_at > ? and invoker_id = ? order by created_at desc, id desc limit ?"
# A run that ended before a time was also created before it, so the index on `created_at` finds it, and no index on ends is needed.
OLD_RUNS = (
    f"select id, owner from runs where created_at < ? and state not in {_OPEN} and finished_at < ? "
    "and not exists (select 1 from goldens where run_id = runs.id) order by created_at, id limit ?"
)
FORGET_EVENTS = "delete from run_events where run_id = ? and exists (select 1 from runs where id = ? and finished_at > 0)"
FORGET_RUN = f"delete from runs where id = ? and state not in {_OPEN}"
TO_TRIM = "select id from runs where trimmed = 0 and finished_at > 0 and finished_at < ? order by finished_at limit ?"
TRIM_RUN = "update runs set trimmed = 1, idempotency_key = '' where id = ? and trimmed = 0 and finished_at > 0"

_RELEASE_COLUMNS = "release_id, owner, endpoint, manifest, source, created_at, digest, message, deleted_at, cleared_at"
# The digest is the manifest's: the same digest with another manifest is a damaged row, which publishing again repairs.
# A deleted release becomes new: its time and message are the current ones.
_MENDED = (
    "on conflict (release_id) do update set manifest = excluded.manifest, "
    "created_at = case when releases.deleted_at > 0 then excluded.created_at else releases.created_at end, "
    "message = case when releases.deleted_at > 0 then excluded.message else releases.message end, deleted_at = 0, cleared_at = 0 "
    "where releases.digest = excluded.digest and (releases.manifest <> excluded.manifest or releases.deleted_at > 0)"
)
ADD_RELEASE = f"insert into releases ({_RELEASE_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {_MENDED}"
# The conditions are in the statement that deletes the release, so that nothing can change in between. `max(version)` is
# a tag's current version.
DELETE_RELEASE = (
    "update releases set deleted_at = ? where release_id = ? and deleted_at = 0 "
    "and exists (select 1 from leader where shard = 0 and epoch = ?) "
    "and not exists (select 1 from tags t where t.release_id = releases.release_id and t.version = (select max(version) from tags "
    "where owner = t.owner and endpoint = t.endpoint and function = t.function and tag = t.tag)) "
    "and not exists (select 1 from candidates where candidates.release_id = releases.release_id) "
    "and not exists (select 1 from shadows where shadows.release_id = releases.release_id and shadows.ended_at = 0) "
    f"and not exists (select 1 from runs where runs.release_id = releases.release_id and runs.state in {_OPEN})"
)
CLEAR_RELEASE = "update releases set cleared_at = ? where release_id = ? and deleted_at > 0 and cleared_at = 0"
RELEASE = f"select {_RELEASE_COLUMNS} from releases where release_id = ?"
RELEASES = (
    f"select {_RELEASE_COLUMNS} from releases where (? = '' or owner = ?) and (? = '' or endpoint = ?) "
    "order by created_at desc, release_id desc"
)
_TAG_COLUMNS = "owner, endpoint, function, tag, release_id, version, moved_at"
MOVE_TAG = (
    f"insert into tags ({_TAG_COLUMNS}) select ?, ?, ?, ?, ?, ?, ? where ? = 1 + coalesce("
    "(select max(version) from tags where owner = ? and endpoint = ? and function = ? and tag = ?), 0) "
    "and not exists (select 1 from releases where release_id = ? and deleted_at > 0) on conflict do nothing"
)
TAGS = (
    f"select {_TAG_COLUMNS} from tags t where (? = '' or owner = ?) and (? = '' or endpoint = ?) and version = (select max(version) "
    "from tags where owner = t.owner and endpoint = t.endpoint and function = t.function and tag = t.tag) "
    "order by owner, endpoint, function, tag"
)
TAG_HISTORY = f"select {_TAG_COLUMNS} from tags where owner = ? and endpoint = ? and function = ? and tag = ? order by version desc"

KEY_COLUMNS = ("key_id", "owner", "name", "scopes", "secret_sha256", "created_at", "expires_at", "revoked_at", "budgets")
AUDIT_COLUMNS = ("row_id", "at", "owner", "actor", "action", "subject", "detail")
ADD_KEY = f"insert into access_keys ({', '.join(KEY_COLUMNS)}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
REVOKE_KEY = "update access_keys set revoked_at = ? where key_id = ? and revoked_at = 0"
SET_BUDGETS = "update access_keys set budgets = ? where key_id = ?"
KEYS = f"select {', '.join(KEY_COLUMNS)} from access_keys order by created_at, key_id"
ADD_AUDIT = f"insert into audit ({', '.join(AUDIT_COLUMNS)}) values (?, ?, ?, ?, ?, ?, ?) on conflict do nothing"
AUDIT = f"select {', '.join(AUDIT_COLUMNS)} from audit where (? = '' or owner = ?) order by row_id desc limit ?"

_decode_error = msgspec.json.Decoder(RunError).decode
_decode_tries = msgspec.json.Decoder(tuple[Try, ...]).decode
_encode = msgspec.json.Encoder().encode
_CANCELED = _encode(CANCELED_ERROR)
_fields_of = attrgetter(*RUN_COLUMNS)  # one call: a loop over the names took a tenth of the writer's time for a run
_STATE, _CANCEL_REQUESTED, _ERROR = map(RUN_COLUMNS.index, ("state", "cancel_requested", "error"))
_ATTEMPT, _WORKER, _ROUTING, _LEASED, _STARTED = map(RUN_COLUMNS.index, ("attempt", "worker_id", "routing", "leased_at", "started_at"))


def accepts(count: int) -> str:
    """`ACCEPT` for this many runs."""
    row = f"({', '.join('?' * len(RUN_COLUMNS))})"
    return f"insert into runs ({', '.join(RUN_COLUMNS)}) values {', '.join([row] * count)} on conflict do nothing"


def ends(count: int) -> str:
    """`FINISH` for this many runs, in SQLite."""
    row = f"({', '.join('?' * 16)})"
    return _ENDS.format(rows=", ".join([row] * count), open=_OPEN)


def run_row(run: Run) -> tuple[Any, ...]:
    """A run as parameters of `ACCEPT`."""
    row = list(_fields_of(run))
    row[_STATE] = str(run.state)
    row[_CANCEL_REQUESTED] = int(run.cancel_requested)
    row[_ERROR] = b"" if run.error is None else _encode(run.error)
    return tuple(row)


def leased_row(run: Run, lease: Lease) -> tuple[Any, ...]:
    """The parameters of `ACCEPT` for a new run with the lease that follows at once."""
    row = list(run_row(run))
    row[_STATE], row[_ATTEMPT], row[_WORKER], row[_ROUTING] = str(RunState.LEASED), lease.attempt, lease.worker_id, lease.routing
    row[_LEASED], row[_STARTED] = lease.at, run.started_at or lease.at
    return tuple(row)


def end_row(op: Finish) -> tuple[Any, ...]:
    """The parameters of `ends` for one end of a run."""
    *values, cost_nanos, _, run_id, attempt = _finish(op)[1]
    return (run_id, attempt, *values, cost_nanos)


def run_of(row: Sequence[Any]) -> Run:
    """A run from a row of `RUN_COLUMNS`."""
    fields = dict(zip(RUN_COLUMNS, row, strict=True))
    with readable("run", fields["id"]):
        fields["cancel_requested"] = bool(fields["cancel_requested"])
        fields["error"] = _decode_error(fields["error"]) if fields["error"] else None
        return checked(fields, Run)


SECRET_COLUMNS = ("owner", "endpoint", "name", "version", "sealed", "set_at", "set_by")
SECRETS = f"select {', '.join(SECRET_COLUMNS)} from secrets order by owner, endpoint, name, version"
ADD_SECRET = (
    f"insert into secrets ({', '.join(SECRET_COLUMNS)}) select ?, ?, ?, ?, ?, ?, ? where ? = "
    "(select count(*) + 1 from secrets where owner = ? and endpoint = ? and name = ?) on conflict do nothing"
)


def statement(op: Op) -> tuple[str, tuple[Any, ...]]:
    """The statement for an operation; it changes a row exactly when the operation happens."""
    build = _STATEMENTS[type(op)]
    return build(op)


def _accept(op: Accept) -> tuple[str, tuple[Any, ...]]:
    return ACCEPT, run_row(op.run)


def _lease(op: Lease) -> tuple[str, tuple[Any, ...]]:
    return LEASE, (op.attempt, op.worker_id, op.routing, op.at, op.at, op.run_id, op.attempt - 1)


def _requeue(op: Requeue) -> tuple[str, tuple[Any, ...]]:
    return REQUEUE, (op.not_before, int(op.executed), int(op.lost), op.suspicion, *_used(op.used), op.run_id, op.attempt)


def _finish(op: Finish) -> tuple[str, tuple[Any, ...]]:
    ending: Ending = op.ending
    error = _encode(ending.error) if ending.error is not None else b""
    was_canceled = ending.state is RunState.CANCELED
    return FINISH, (
        str(ending.state),
        ending.output if was_canceled else b"",
        ending.output,
        error if was_canceled else _CANCELED,
        error,
        ending.at,
        ending.metrics,
        ending.warnings,
        *_used(ending.used),
        op.run_id,
        op.attempt,
    )


def _used(used: Usage) -> tuple[int, ...]:
    """The parameters of `_USED`."""
    return (*msgspec.structs.astuple(used), used.cost_nanos)


def _request_cancel(op: RequestCancel) -> tuple[str, tuple[Any, ...]]:
    return REQUEST_CANCEL, (op.run_id,)


def _append(op: AppendEvents) -> tuple[str, tuple[Any, ...]]:
    values = (op.run_id, op.attempt, op.first_seq, op.last_seq, op.events, op.instance_id, op.wire_seq)
    return APPEND, (*values, op.run_id, op.attempt)


def delivery_row(delivery: Delivery) -> tuple[Any, ...]:
    return (*msgspec.structs.astuple(delivery)[:-1], _encode(delivery.tries))


def delivery_of(row: Sequence[Any]) -> Delivery:
    fields = dict(zip(Delivery.__struct_fields__, row, strict=True))
    with readable("delivery", row[0]):
        return checked({**fields, "tries": _decode_tries(row[6])}, Delivery)


def _add_delivery(op: AddDelivery) -> tuple[str, tuple[Any, ...]]:
    return ADD_DELIVERY, delivery_row(op.delivery)


def _record_delivery(op: RecordDelivery) -> tuple[str, tuple[Any, ...]]:
    delivery = op.delivery
    return RECORD_DELIVERY, (delivery.state, delivery.next_at, _encode(delivery.tries), delivery.id)


_STATEMENTS: Mapping[type, Callable[[Any], tuple[str, tuple[Any, ...]]]] = {
    Accept: _accept,
    Lease: _lease,
    Requeue: _requeue,
    Finish: _finish,
    RequestCancel: _request_cancel,
    AppendEvents: _append,
    AddDelivery: _add_delivery,
    RecordDelivery: _record_delivery,
}


def consequence(op: Op) -> tuple[str, tuple[Any, ...]] | None:
    """What is written after an operation that happened, in the same transaction."""
    return (ADD_DELIVERY, delivery_row(op.delivery)) if isinstance(op, Finish) and op.delivery is not None else None


def subject(op: Op) -> tuple[str, tuple[Any, ...]]:
    """The query for the run that made an operation fail."""
    if isinstance(op, Accept):
        if op.run.idempotency_key:
            same = f"{_SELECT} where id = ? or (owner = ? and idempotency_key = ?) order by case when id = ? then 0 else 1 end"
            return same, (op.run.id, op.run.owner, op.run.idempotency_key, op.run.id)
        return GET, (op.run.id,)
    return GET, (op.run_id,)


def list_query(query: RunFilter) -> tuple[str, tuple[Any, ...]]:
    """The query behind `list_runs`."""
    where: list[str] = []
    values: list[Any] = []
    for column in ("owner", "endpoint", "function"):
        if value := getattr(query, column):
            where.append(f"{column} = ?")
            values.append(value)
    if query.states:
        where.append(f"state in ({', '.join('?' * len(query.states))})")
        values += query.states
    if query.cursor:
        where.append("(created_at, id) < (select created_at, id from runs where id = ?)")
        values.append(query.cursor)
    newest = f"from runs{' where ' + ' and '.join(where) if where else ''} order by created_at desc, id desc limit ?"
    if not query.max_bytes:
        return f"select {', '.join(RUN_COLUMNS)} {newest}", (*values, query.limit)
    text = (
        f"with newest as (select id, created_at, length(payload) + length(output) as size_bytes {newest}), "
        "page as (select id, sum(size_bytes) over (order by created_at desc, id desc) - size_bytes as bytes_before from newest) "
        f"{_SELECT} where id in (select id from page where bytes_before <= ?) order by created_at desc, id desc"
    )
    return text, (*values, query.limit, query.max_bytes)


def release_row(release: Release) -> tuple[Any, ...]:
    return msgspec.structs.astuple(release)


def tag_move(tag: Tag) -> tuple[Any, ...]:
    return (*msgspec.structs.astuple(tag), tag.version, tag.owner, tag.endpoint, tag.function, tag.tag, tag.release_id)


def release_of(row: Sequence[Any]) -> Release:
    with readable("release", row[0]):
        return checked(dict(zip(Release.__struct_fields__, row, strict=True)), Release)


def tag_of(row: Sequence[Any]) -> Tag:
    """A tag from a row. If its target cannot be a release, it points at none: calls report that, and it can be moved."""
    fields = dict(zip(Tag.__struct_fields__, row, strict=True))
    if not isinstance(fields["release_id"], str):
        fields["release_id"] = ""
    with readable("tag", "/".join(map(str, row[:4]))):
        return checked(fields, Tag)


def key_row(key: Key) -> tuple[Any, ...]:
    """A key as parameters of `ADD_KEY`."""
    values = {name: getattr(key, name) for name in KEY_COLUMNS}
    return tuple({**values, "scopes": _encode(key.scopes), "budgets": _encode(key.budgets)}.values())


def key_of(row: Sequence[Any]) -> Key:
    values = dict(zip(KEY_COLUMNS, row, strict=True))
    with readable("key", values["key_id"]):
        scopes = msgspec.json.decode(values["scopes"], type=tuple[str, ...])
        said = msgspec.json.decode(values["budgets"] or b"{}", type=Budgets)
        budgets = budgets_from(said.rate, said.concurrency or None, said.gpu_seconds)
        return checked({**values, "scopes": scopes, "budgets": budgets}, Key)


def audit_row(row: AuditRow) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in AUDIT_COLUMNS)


def audit_of(row: Sequence[Any]) -> AuditRow:
    with readable("audit row", row[0]):
        return checked(dict(zip(AUDIT_COLUMNS, row, strict=True)), AuditRow)


def secret_row(secret: StoredSecret) -> tuple[Any, ...]:
    """A secret as parameters of `ADD_SECRET`."""
    return (*(getattr(secret, name) for name in SECRET_COLUMNS), secret.version, secret.owner, secret.endpoint, secret.name)


def secret_of(row: Sequence[Any]) -> StoredSecret:
    values = dict(zip(SECRET_COLUMNS, row, strict=True))
    return StoredSecret(**{**values, "sealed": bytes(values["sealed"])})


def chunk_of(row: Sequence[Any]) -> EventChunk:
    with readable("event chunk", row[:3]):
        return checked(dict(zip(EventChunk.__struct_fields__, row, strict=True)), EventChunk)


def leader_of(row: Sequence[Any]) -> Leader:
    return Leader(row[0], row[1], row[2], row[3])
