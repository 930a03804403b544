"""The store's Protocols. Every implementation passes one contract suite (tests/contract).

Calls block and may come from any thread; one thread at a time writes. What the store answers is durable: `apply` returns after the
commit, and a process that dies before has promised nothing.
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

FIRST = (-1.0, "")  # before all deliveries, by time and id
SKEW_S = 60.0  # a lease that ends later than that after a new one would: the clock was set back since, and nobody holds it


class StoreError(Exception):
    """The store cannot do what was asked; the message says why and what helps."""


class DamagedRowError(StoreError):
    """A row that no program of ours wrote: who reads many leaves it out, who asked for it is told."""


class DeposedError(StoreError):
    """Somebody else leads: this epoch may write no more."""


class StoreUnavailableError(StoreError):
    """The database does not answer. `unknown`: the batch in flight may have been written; asking again is safe for every operation."""

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class StoreMovedError(StoreUnavailableError):
    """The files of the database are no longer where they were: no other process can take over, and nothing may be acknowledged."""


class StoreFullError(StoreError):
    """There is no room to write to; nothing of this batch was written."""


class Leader(msgspec.Struct, frozen=True):
    """Who leads. `epoch` grows with every change; workers reach it at `address` (host:port), other nodes at `http_url`."""

    node_id: str
    epoch: int
    address: str
    http_url: str = ""


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs to list: newest first, those before `cursor` (a run's id, "" from the newest).

    At most `limit`; and of `max_bytes` of payloads and outputs (0: no bound) those up to the first that goes beyond, that one too.
    """

    owner: str = ""
    endpoint: str = ""
    function: str = ""
    states: tuple[str, ...] = ()
    cursor: str = ""
    limit: int = 50
    max_bytes: int = 0


class EventChunk(msgspec.Struct, frozen=True):
    """As `AppendEvents` wrote it."""

    attempt: int
    first_seq: int
    last_seq: int
    events: bytes
    instance_id: str = ""
    wire_seq: int = 0


class OldRun(msgspec.Struct, frozen=True):
    """A run that may be forgotten, and whose it is."""

    run_id: str
    owner: str


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable release. `manifest` is JSON; `source` says where its code is (for a folder: its path). `deleted_at`: when somebody
    deleted it, and `cleared_at`: when its files were gone, too; 0 where that has not happened. Its row stays, for runs that name it."""

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
    """A function's tag now. `version` counts its moves; a move names the version that it replaces. `release_id` is `NO_RELEASE` where the
    tag was taken away: a move as others are, so that its history goes on."""

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
        """Do these operations in order, in one transaction. `DeposedError` when `epoch` no longer leads, `StoreFullError` and
        `StoreUnavailableError` when nothing, or nothing known, was written."""
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
        """Webhook deliveries that are not made yet, the one that is due first first; beyond this time and id."""
        ...

    def deliveries_of(self, run_id: str) -> list[Delivery]:
        """All webhook deliveries of a run, oldest first."""
        ...

    def trim(self, finished_before: float, limit: int) -> int:
        """Delete the events and idempotency keys of runs that ended before then, of at most `limit` of them; of how many. The runs stay,
        and their keys may be used again."""
        ...

    def accepted_since(self, invoker_id: str, created_after: float, limit: int) -> dict[str, float]:
        """When the runs of this invoker were made, by their ids: those after a time, the newest `limit` of them."""
        ...

    def old_runs(self, finished_before: float, limit: int) -> list[OldRun]:
        """Final runs that ended before then, oldest first, without those that golden requests are made of."""
        ...

    def forget(self, run_ids: Sequence[str]) -> int:
        """Delete these runs with all that belongs to them, unless one is open; how many went."""
        ...


class UsageStore(Protocol):
    """What runs that are over have used, those that are forgotten, too. `forget` keeps their sums."""

    def usage(self, begin_day: int, end_day: int, owner: str = "") -> list[UsageRow]:
        """Of the days from `begin_day` to before `end_day`, counted from 1970-01-01 in UTC; of all owners where `owner` is empty."""
        ...

    def gpu_ms_since(self, invoker_id: str, begin_s: float, cut_s: float) -> tuple[int, dict[str, int]]:
        """GPU milliseconds of an invoker's runs that ended since `begin_s`, the beginning of a day: the sum of those before `cut_s`, and
        each after it by its id."""
        ...


class ReleaseStore(Protocol):
    """Releases, and the tags that point at them."""

    def add_release(self, release: Release) -> None:
        """Keep it. One that is there stays as it is; one that was deleted is there again, as it is now."""
        ...

    def delete_release(self, epoch: int, release_id: str, at: float) -> bool:
        """Mark it deleted, in one step with the conditions: `epoch` leads, no tag points at it, it is no candidate, no shadow that goes
        on copies runs to it, and no run of it is open. Whether that was so, and it was not deleted before."""
        ...

    def clear_release(self, release_id: str, at: float) -> bool:
        """The files of a deleted release are gone; whether there is one that still had some."""
        ...

    def release(self, release_id: str) -> Release | None: ...

    def releases(self, owner: str = "", endpoint: str = "") -> list[Release]:
        """Newest first."""
        ...

    def move_tag(self, tag: Tag) -> Tag | None:
        """Point a tag at a release if its version is the one before `tag.version` (1: it does not exist yet), and the release is not
        deleted; else None."""
        ...

    def tags(self, owner: str = "", endpoint: str = "") -> list[Tag]: ...

    def tag_history(self, owner: str, endpoint: str, function: str, tag: str) -> list[Tag]:
        """Every target the tag has had, newest first."""
        ...

    def set_candidate(self, candidate: Candidate) -> None:
        """Keep it in the place of the tag's earlier candidate."""
        ...

    def drop_candidate(self, owner: str, endpoint: str, function: str, tag: str) -> bool:
        """Whether the tag had one."""
        ...

    def candidates(self) -> list[Candidate]:
        """Of all tags, by owner, endpoint, function and tag."""
        ...

    def set_shadow(self, shadow: Shadow) -> None:
        """Keep it in the place of the tag's earlier one."""
        ...

    def shadows(self) -> list[Shadow]:
        """The last of each tag, by owner, endpoint, function and tag."""
        ...


class KeyStore(Protocol):
    """Keys of callers, and the audit: rows that are only ever added."""

    def add_key(self, key: Key) -> None: ...

    def revoke_key(self, key_id: str, at: float) -> bool:
        """Revoke a key that is not revoked yet; whether it was so."""
        ...

    def set_budgets(self, key_id: str, budgets: Budgets) -> bool:
        """Whether there is such a key."""
        ...

    def list_keys(self) -> list[Key]: ...

    def add_audit(self, row: AuditRow) -> None: ...

    def audit(self, owner: str, limit: int) -> list[AuditRow]:
        """Newest first; of all owners where `owner` is empty."""
        ...


class GateStore(Protocol):
    """Golden requests, and the latest result of each gate."""

    def add_golden(self, golden: Golden) -> None:
        """Keep it, and its run for as long: `old_runs` leaves that out."""
        ...

    def goldens(self, owner: str = "", endpoint: str = "") -> list[Golden]:
        """Oldest first."""
        ...

    def remove_golden(self, golden_id: str) -> bool:
        """Forget it, and what came of it; whether it was there."""
        ...

    def save_results(self, results: Sequence[GateResult]) -> None:
        """Keep each in the place of the earlier one of its release, function, kind and subject."""
        ...

    def results(self, release_id: str) -> list[GateResult]:
        """Of a release, by kind, function and subject."""
        ...


class SecretStore(Protocol):
    """Secrets, sealed: the store never sees a value."""

    def add_secret(self, secret: StoredSecret) -> bool:
        """Add a version, if it is the next one; else False."""
        ...

    def secrets(self) -> list[StoredSecret]:
        """All versions of all secrets, oldest first."""
        ...


class Leadership(Protocol):
    """One leader at a time, by a lease row and a growing epoch in the same database."""

    def campaign(self, node_id: str, address: str, lease_s: float, http_url: str = "") -> Leader | None:
        """Become leader if nobody is, or if the leader's lease is over by the database's clock, or ends `SKEW_S` later than
        one of now would; else None."""
        ...

    def renew(self, leader: Leader, lease_s: float) -> bool:
        """Hold the lease longer; False when this epoch no longer leads."""
        ...

    def resign(self, leader: Leader) -> None: ...

    def leader(self) -> Leader | None:
        """Who leads now."""
        ...


class Store(RunStore, UsageStore, ReleaseStore, KeyStore, GateStore, SecretStore, Leadership, Protocol):
    """All of it, in one database."""

    def close(self) -> None: ...
