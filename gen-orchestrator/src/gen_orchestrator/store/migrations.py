"""The schema, as a list of steps. Steps are only ever added. A store records how many it has taken.

`{blob}` and `{real}` stand for the type names of the dialect.
"""

from collections.abc import Mapping

SQLITE: Mapping[str, str] = {"blob": "blob", "real": "real", "empty": "x''"}
POSTGRES: Mapping[str, str] = {"blob": "bytea", "real": "double precision", "empty": "''"}

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "create table leader (shard integer primary key, epoch bigint not null, node_id text not null, address text not null, "
        "lease_until {real} not null)",
        "create table runs (id text primary key, owner text not null, endpoint text not null, function text not null, tag text not null, "
        "release_id text not null, payload {blob} not null, created_at {real} not null, state text not null, attempt integer not null, "
        "executions integer not null, lost_workers integer not null, max_attempts integer not null, priority text not null, "
        "timeout_ms bigint not null, expires_at {real} not null, not_before {real} not null, worker_id text not null, "
        "cancel_requested integer not null, invoker_id text not null, parent_id text not null, idempotency_key text not null, "
        "fingerprint text not null, webhook {blob} not null, started_at {real} not null, finished_at {real} not null, "
        "routing {blob} not null, output {blob} not null, error {blob} not null, metrics {blob} not null)",
        "create unique index runs_key on runs (owner, idempotency_key) where idempotency_key <> ''",
        "create index runs_created on runs (created_at, id)",
        "create index runs_open on runs (created_at) where state in ('queued', 'leased')",
        "create table run_events (run_id text not null, attempt integer not null, first_seq bigint not null, "
        "last_seq bigint not null, events {blob} not null, instance_id text not null, wire_seq bigint not null, "
        "primary key (run_id, attempt, first_seq))",
        "create table releases (release_id text primary key, owner text not null, endpoint text not null, manifest {blob} not null, "
        "source text not null, created_at {real} not null, digest text not null, message text not null)",
        "create table tags (owner text not null, endpoint text not null, function text not null, tag text not null, "
        "release_id text not null, version integer not null, moved_at {real} not null, "
        "primary key (owner, endpoint, function, tag, version))",
    ),
    (
        "alter table leader add column http_url text not null default ''",
        # The details of a finished run are deleted before the run itself: this marks runs that still have theirs.
        "alter table runs add column trimmed integer not null default 0",
        "create index runs_to_trim on runs (finished_at) where trimmed = 0 and finished_at > 0",
    ),
    (
        "alter table runs add column warnings {blob} not null default {empty}",
        "alter table runs add column traceparent text not null default ''",
        "create table deliveries (id text primary key, run_id text not null, moment text not null, created_at {real} not null, "
        "state text not null, next_at {real} not null, tries {blob} not null)",
        "create index deliveries_due on deliveries (next_at, id) where state = 'pending'",
        "create index deliveries_of on deliveries (run_id)",
    ),
    ("alter table runs add column suspicion integer not null default 0",),
    (
        "create table access_keys (key_id text primary key, owner text not null, name text not null, scopes {blob} not null, "
        "secret_sha256 text not null, created_at {real} not null, expires_at {real} not null, revoked_at {real} not null)",
        "create table audit (row_id text primary key, at {real} not null, owner text not null, actor text not null, action text not null, "
        "subject text not null, detail text not null)",
        "create index audit_of on audit (owner, row_id)",
    ),
    (
        "create table goldens (golden_id text primary key, owner text not null, endpoint text not null, function text not null, "
        "run_id text not null, input {blob} not null, output {blob} not null, tolerance {real} not null, created_at {real} not null)",
        "create index goldens_of on goldens (owner, endpoint)",
        "create index goldens_run on goldens (run_id)",
        "create table gate_results (release_id text not null, function text not null, kind text not null, subject text not null, "
        "owner text not null, passed integer not null, detail {blob} not null, at {real} not null, "
        "primary key (release_id, function, kind, subject))",
    ),
    (
        "create table secrets (owner text not null, endpoint text not null, name text not null, version integer not null, "
        "sealed {blob} not null, set_at {real} not null, set_by text not null, primary key (owner, endpoint, name, version))",
    ),
    (
        "create table candidates (owner text not null, endpoint text not null, function text not null, tag text not null, "
        "release_id text not null, percent {real} not null, since {real} not null, primary key (owner, endpoint, function, tag))",
    ),
    ("alter table access_keys add column budgets {blob} not null default {empty}",),
    (
        "create table shadows (owner text not null, endpoint text not null, function text not null, tag text not null, "
        "release_id text not null, against text not null, percent {real} not null, tolerance {real} not null, runs integer not null, "
        "since {real} not null, ended_at {real} not null, why text not null, tally {blob} not null, "
        "primary key (owner, endpoint, function, tag))",
    ),
    (
        "alter table runs add column leased_at {real} not null default 0",
        *(f"alter table runs add column {name} bigint not null default 0" for name in ("gpu_ms", "cpu_ms", "cold_ms")),
        *(f"alter table runs add column {name} bigint not null default 0" for name in ("downloaded_bytes", "loaded_bytes")),
        # Runs of earlier versions have no price.
        "alter table runs add column cost_nanos bigint not null default -1",
        # Contains everything that usage is summed from, so that payloads are not read for it.
        "create index runs_ended on runs (finished_at, owner, invoker_id, endpoint, function, state, created_at, gpu_ms, cpu_ms, cold_ms, "
        "downloaded_bytes, loaded_bytes, cost_nanos) where finished_at > 0",
        "create table usage_days (day integer not null, owner text not null, invoker_id text not null, endpoint text not null, "
        "function text not null, runs {real} not null, failed {real} not null, unpriced {real} not null, total_ms {real} not null, "
        "gpu_ms {real} not null, cpu_ms {real} not null, cold_ms {real} not null, downloaded_bytes {real} not null, "
        "loaded_bytes {real} not null, cost_nanos {real} not null, primary key (day, owner, invoker_id, endpoint, function))",
    ),
    tuple(f"alter table releases add column {name} {{real}} not null default 0" for name in ("deleted_at", "cleared_at")),
)


def pending(version: int, dialect: Mapping[str, str]) -> list[list[str]]:
    """The steps after `version`, each as statements of the dialect."""
    return [[statement.format_map(dialect) for statement in step] for step in STEPS[version:]]


def newer_version(where: str, version: int) -> str:
    """The message about a store that was changed by a later version of this program."""
    return (
        f"{where} has schema version {version}; this gen-orchestrator knows {len(STEPS)}. Nothing was changed: "
        "start the newer gen-orchestrator, or take another data folder"
    )
