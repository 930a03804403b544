"""The caller of a request and its permissions. A key belongs to one owner and sees only that one; an operator's key (`*`) sees all."""

from typing import Literal, get_args

import msgspec

from gen_orchestrator.domain.budgets import NO_BUDGETS, Budgets
from gen_worker.names import did_you_mean

Scope = Literal["invoke", "publish", "promote", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ALL_OWNERS = "*"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as stored: only the SHA-256 of its secret, in hexadecimal. Times are unix seconds; 0 means not set."""

    key_id: str
    owner: str
    name: str
    scopes: tuple[str, ...]
    secret_sha256: str
    created_at: float
    expires_at: float = 0.0
    revoked_at: float = 0.0
    budgets: Budgets = NO_BUDGETS

    def holds(self, now_s: float) -> bool:
        """Whether the key may be used now."""
        return not self.revoked_at and (not self.expires_at or now_s < self.expires_at)


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One change of permissions or of what is served: who did what to what. `row_id` sorts by time."""

    row_id: str
    at: float
    owner: str
    actor: str
    action: str
    subject: str
    detail: str = ""


class Caller(msgspec.Struct, frozen=True):
    """The sender of a request. `name` is for the audit: `key:<id>`, or `local` when no key is required."""

    owner: str
    scopes: tuple[str, ...]
    name: str

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def sees(self, owner: str) -> bool:
        """Whether the caller may know that this owner's things exist."""
        return self.owner in (ALL_OWNERS, owner)

    def own(self, asked: str = "") -> str:
        """The owner for filtering a list: the caller's own, or for an operator the requested one; "" for all."""
        return asked if self.owner == ALL_OWNERS else self.owner


EVERYBODY = Caller(ALL_OWNERS, SCOPES, "local")


def checked_scopes(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The scopes, sorted; `ValueError` names an unknown one."""
    for scope in wanted:
        if scope not in SCOPES:
            raise ValueError(f"no scope {scope[:40]!r}.{did_you_mean(scope[:40], SCOPES)} Scopes: {', '.join(SCOPES)}")
    if not wanted:
        raise ValueError(f"a key needs a scope: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in wanted)
