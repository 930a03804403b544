"""The tables as whole rows: what export and import move. A test compares this list with the schema."""

import base64
from typing import Any

import msgspec

from gen_orchestrator.domain.receipts import UNPRICED
from gen_orchestrator.store.sql import AUDIT_COLUMNS, KEY_COLUMNS, RUN_COLUMNS, SECRET_COLUMNS
from gen_orchestrator.store.sql_gates import CANDIDATE_COLUMNS, GOLDEN_COLUMNS, RESULT_COLUMNS, SHADOW_COLUMNS
from gen_orchestrator.store.sql_usage import USAGE_COLUMNS


class Table(msgspec.Struct, frozen=True):
    """A table's columns. Those in `blobs` contain bytes; `added` are later columns, with the value of older rows."""

    name: str
    columns: tuple[str, ...]
    blobs: frozenset[str] = frozenset()
    added: dict[str, Any] = {}

    @property
    def select(self) -> str:
        return f"select {', '.join(self.columns)} from {self.name}"  # noqa: S608 - names of ours alone

    @property
    def insert(self) -> str:
        marks = ", ".join("?" * len(self.columns))
        return f"insert into {self.name} ({', '.join(self.columns)}) values ({marks})"  # noqa: S608 - names of ours alone

    def value(self, column: str, value: Any) -> Any:
        """A column's value from an archive, where bytes are base64; None when the archive is older than the column."""
        if value is None:
            if column not in self.added:
                raise ValueError(f"{self.name}.{column} is missing")
            return self.added[column]
        return base64.b64decode(value, validate=True) if column in self.blobs else value


_USED_OF_OLD = {**dict.fromkeys(("gpu_ms", "cpu_ms", "cold_ms", "downloaded_bytes", "loaded_bytes"), 0), "cost_nanos": UNPRICED}
TABLES = (
    Table("leader", ("shard", "epoch", "node_id", "address", "lease_until", "http_url"), added={"http_url": ""}),
    Table(
        "releases",
        ("release_id", "owner", "endpoint", "manifest", "source", "created_at", "digest", "message", "deleted_at", "cleared_at"),
        frozenset({"manifest"}),
        {"deleted_at": 0.0, "cleared_at": 0.0},
    ),
    Table("tags", ("owner", "endpoint", "function", "tag", "release_id", "version", "moved_at")),
    Table(
        "runs",
        (*RUN_COLUMNS, "trimmed"),
        frozenset({"payload", "webhook", "routing", "output", "error", "metrics", "warnings"}),
        {"trimmed": 0, "warnings": b"", "traceparent": "", "suspicion": 0, "leased_at": 0.0, **_USED_OF_OLD},
    ),
    Table(
        "run_events",
        ("run_id", "attempt", "first_seq", "last_seq", "events", "instance_id", "wire_seq"),
        frozenset({"events"}),
    ),
    Table("deliveries", ("id", "run_id", "moment", "created_at", "state", "next_at", "tries"), frozenset({"tries"})),
    Table("access_keys", KEY_COLUMNS, frozenset({"scopes", "budgets"}), {"budgets": b""}),
    Table("audit", AUDIT_COLUMNS),
    Table("goldens", GOLDEN_COLUMNS, frozenset({"input", "output"})),
    Table("gate_results", RESULT_COLUMNS, frozenset({"detail"})),
    Table("secrets", SECRET_COLUMNS, frozenset({"sealed"})),
    Table("candidates", CANDIDATE_COLUMNS),
    Table("shadows", SHADOW_COLUMNS, frozenset({"tally"})),
    Table("usage_days", USAGE_COLUMNS),
)
IS_EMPTY = "select (select count(*) from runs) + (select count(*) from releases)"
NO_LEASE = "update leader set lease_until = 0"
