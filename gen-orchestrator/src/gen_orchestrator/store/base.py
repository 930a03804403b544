"""The store's Protocols. Every implementation passes one contract suite (tests/contract).

Calls block and may come from any thread; one thread at a time writes. Answers of the store are durable: `apply` returns
after the commit, and a process that dies before that has promised nothing.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from gen_orchestrator.domain.access import AuditRow, Key
from gen_orchestrator.domain.budgets import Budgets
from gen_orchestrator.domain.canary import Candidate
from gen_orchestrator.domain.gates import GateResult, Golden
from gen_orchestrator.domain.receipts import UsageRow
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.secrets import StoredSecret
from gen_orchestrator.domain.shadow import Shadow
from gen_orchestrator.domain.webhooks import Delivery
from gen_orchestrator.store.ops import Op, Result

FIRST = (-1.0, "")  # sorts before all deliveries, by time and id
SKEW_S = 60.0  # a lease that ends this much later than a new one would was given before the clock was set back, and nobody holds it


class StoreError(Exception):
    """The store cannot do what was asked; the message says why and what helps."""


class DamagedRowError(StoreError):
    """A row that no program of ours wrote. Readers of many rows skip it; a reader of this row gets the error."""


class DeposedError(StoreError):
    """Another node leads: this epoch must not write any more."""


class StoreUnavailableError(StoreError):
    """The database does not answer. `unknown`: the batch in flight may have been written; every operation may safely be repeated."""

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class StoreMovedError(StoreUnavailableError):
    """The database's files are no longer at their path: another process can take over, so nothing may be acknowledged."""


class StoreHeldError(StoreUnavailableError):
    """Another program has the database locked; nothing of this batch was written."""


class StoreFullError(StoreError):
    """The disk is full; nothing of this batch was written."""


class Leader(msgspec.Struct, frozen=True):
    """The current leader. `epoch` grows with every change; workers reach it at `address` (host:port), other nodes at `http_url`."""

    node_id: str
    epoch: int
    address: str
    http_url: str = ""


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs to list: newest first, those before `cursor` (a run's id, "" from the newest).

    At most `limit` runs. `max_bytes` limits payloads and outputs (0: no limit): the list ends with the first run that
    exceeds it.
    """

    owner: str = ""
    endpoint: str = ""
    function: str = ""
    states: tuple[str, ...] = ()
    cursor: str = ""
    limit: int = 50
    max_bytes: int = 0


class EventChunk(msgspec.Struct, frozen=True):
    """As written by `AppendEvents`."""

    attempt: int
    first_seq: int
    last_seq: int
    events: bytes
    instance_id: str = ""
    wire_seq: int = 0


class OldRun(msgspec.Struct, frozen=True):
    """A run that may be deleted, and its owner."""

    run_id: str
    owner: str


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable release. `manifest` is JSON; `source` says where its code is (for a folder: its path). `deleted_at`:
    when it was deleted; `cleared_at`: when its files were gone; 0 means not yet. Its row stays for runs that name it.
    """

    release_id: str
    owner: str
    endpoint: str
    manifest: bytes
    source: str
    created_at: float
    digest: str = ""
    message: str = ""
    deleted_at: float = 0.0
    cleared_at: float = 0.0


NO_RELEASE: Final = "-"


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """A function's tag now. `version` counts its moves; a move names the version that it replaces. `release_id` is
    `NO_RELEASE` after the tag was removed: that is a move like any other, so its history continues.
    """

    owner: str
    endpoint: str
    function: str
    tag: str
    release_id: str
    version: int
    moved_at: float


class RunStore(Protocol):
    """Runs and their events."""

    def apply(self, epoch: int, ops: Sequence[Op]) -> list[Result]:
        """Apply these operations in order, in one transaction. `DeposedError` when `epoch` no longer leads,
        `StoreFullError` when nothing was written, `StoreUnavailableError` when that is unknown.
        """
        ...

    def get(self, run_id: str) -> Run | None: ...

    def by_key(self, owner: str, key: str) -> Run | None:
        """The run behind an idempotency key."""
        ...

    def open_runs(self) -> list[Run]:
        """All runs that are not final, oldest first: what a new leader reads."""
        ...

    def list_runs(self, query: RunFilter) -> list[Run]: ...

    def events_of(self, run_id: str) -> list[EventChunk]:
        """All kept events, by attempt and number."""
        ...

    def pending_deliveries(self, limit: int, after: tuple[float, str] = FIRST) -> list[Delivery]:
        """Webhook deliveries still to be made, earliest due first; after this time and id."""
        ...

    def deliveries_of(self, run_id: str) -> list[Delivery]:
        """All webhook deliveries of a run, oldest first."""
        ...

    def trim(self, finished_before: float, limit: int) -> int:
        """Delete the events and idempotency keys of at most `limit` runs that ended before then; returns their number.
        The runs stay, and their keys may be used again.
        """
        ...

    def accepted_since(self, invoker_id: str, created_after: float, limit: int) -> dict[str, float]:
        """When this invoker's runs were created, by id: those after a time, the newest `limit` of them."""
        ...

    def old_runs(self, finished_before: float, limit: int) -> list[OldRun]:
        """Final runs that ended before then, oldest first, except those that golden requests are made from."""
        ...

    def forget(self, run_ids: Sequence[str]) -> int:
        """Delete these runs with everything that belongs to them, except open ones; returns the number deleted."""
        ...


class UsageStore(Protocol):
    """The usage of finished runs, including deleted ones: `forget` keeps their sums."""

    def usage(self, begin_day: int, end_day: int, owner: str = "") -> list[UsageRow]:
        """Usage on the days from `begin_day` to before `end_day`, counted from 1970-01-01 in UTC; of all owners when `owner` is empty."""
        ...

    def gpu_ms_since(self, invoker_id: str, begin_s: float, cut_s: float) -> tuple[int, dict[str, int]]:
        """GPU milliseconds of an invoker's runs that ended since `begin_s`, the beginning of a day: the sum of those
        before `cut_s`, and each later one by its id.
        """
        ...


class ReleaseStore(Protocol):
    """Releases, and the tags that point at them."""

    def add_release(self, release: Release) -> None:
        """Store it. An existing release is unchanged; a deleted one is restored with these values."""
        ...

    def delete_release(self, epoch: int, release_id: str, at: float) -> bool:
        """Mark it deleted if, in the same step, all conditions hold: `epoch` leads, no tag points at it, it is no
        candidate, no active shadow copies runs to it, and no run of it is open. Returns whether that was so and it was
        not already deleted.
        """
        ...

    def clear_release(self, release_id: str, at: float) -> bool:
        """The files of a deleted release are gone; returns whether there was one that still had some."""
        ...

    def release(self, release_id: str) -> Release | None: ...

    def releases(self, owner: str = "", endpoint: str = "") -> list[Release]:
        """Newest first."""
        ...

    def move_tag(self, tag: Tag) -> Tag | None:
        """Point a tag at a release if its version is the one before `tag.version` (1: it does not exist yet) and the
        release is not deleted; else None.
        """
        ...

    def tags(self, owner: str = "", endpoint: str = "") -> list[Tag]: ...

    def tag_history(self, owner: str, endpoint: str, function: str, tag: str) -> list[Tag]:
        """Every target that the tag has had, newest first."""
        ...

    def set_candidate(self, candidate: Candidate) -> None:
        """Store it, replacing the tag's earlier candidate."""
        ...

    def drop_candidate(self, owner: str, endpoint: str, function: str, tag: str) -> bool:
        """Remove it; whether the tag had one."""
        ...

    def candidates(self) -> list[Candidate]:
        """All candidates, by owner, endpoint, function and tag."""
        ...

    def set_shadow(self, shadow: Shadow) -> None:
        """Store it, replacing the tag's earlier one."""
        ...

    def shadows(self) -> list[Shadow]:
        """The last one of each tag, by owner, endpoint, function and tag."""
        ...


class KeyStore(Protocol):
    """Keys of callers, and the audit, whose rows are only ever added."""

    def add_key(self, key: Key) -> None: ...

    def revoke_key(self, key_id: str, at: float) -> bool:
        """Revoke a key; False when it does not exist or is already revoked."""
        ...

    def set_budgets(self, key_id: str, budgets: Budgets) -> bool:
        """Returns whether the key exists."""
        ...

    def list_keys(self) -> list[Key]: ...

    def add_audit(self, row: AuditRow) -> None: ...

    def audit(self, owner: str, limit: int) -> list[AuditRow]:
        """Newest first; of all owners when `owner` is empty."""
        ...


class GateStore(Protocol):
    """Golden requests, and the latest result of each gate."""

    def add_golden(self, golden: Golden) -> None:
        """Store it, and keep its run as long: `old_runs` leaves that run out."""
        ...

    def goldens(self, owner: str = "", endpoint: str = "") -> list[Golden]:
        """Oldest first."""
        ...

    def remove_golden(self, golden_id: str) -> bool:
        """Delete it with its results; whether it existed."""
        ...

    def save_results(self, results: Sequence[GateResult]) -> None:
        """Store each, replacing the earlier result for its release, function, kind and subject."""
        ...

    def results(self, release_id: str) -> list[GateResult]:
        """The results of a release, by kind, function and subject."""
        ...


class SecretStore(Protocol):
    """Encrypted secrets: the store never sees a value."""

    def add_secret(self, secret: StoredSecret) -> bool:
        """Add a version if it is the next one; False otherwise."""
        ...

    def secrets(self) -> list[StoredSecret]:
        """All versions of all secrets, oldest first."""
        ...


class Leadership(Protocol):
    """One leader at a time, by a lease row and a growing epoch in the same database. `is_alone`: no other process can
    write the database, so a leader that cannot renew its lease has not lost it.
    """

    is_alone: bool

    def campaign(self, node_id: str, address: str, lease_s: float, http_url: str = "") -> Leader | None:
        """Become leader if there is none, if the leader's lease has expired by the database's clock, or if it ends
        `SKEW_S` later than a new one would; else None.
        """
        ...

    def renew(self, leader: Leader, lease_s: float) -> bool:
        """Extend the lease; False when this epoch no longer leads."""
        ...

    def resign(self, leader: Leader) -> None: ...

    def leader(self) -> Leader | None:
        """Who leads now."""
        ...


class Store(RunStore, UsageStore, ReleaseStore, KeyStore, GateStore, SecretStore, Leadership, Protocol):
    """All of it in one database."""

    def close(self) -> None: ...
