"""Keys of callers: `cz_<id>_<secret>`. The secret has 256 random bits, so its plain SHA-256 is what is stored; it is shown once."""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from gen_orchestrator.domain.access import AuditRow, Caller, Key, checked_scopes
from gen_orchestrator.domain.budgets import NO_BUDGETS, Budgets, told
from gen_orchestrator.store.base import KeyStore
from gen_worker.names import is_run_id

PREFIX = "cz"
INVOKER = "key:"  # prefix of a key's id in runs and in the audit
MAX_LENGTH = 200


class Keys:
    """Any thread may read. `create`, `revoke`, `set_budgets` and `note` block and belong in one thread."""

    def __init__(self, store: KeyStore, now_s: Callable[[], float]) -> None:
        self._store = store
        self._now_s = now_s
        self._lock = threading.Lock()
        self._keys = {key.key_id: key for key in store.list_keys()}

    def create(
        self, by: Caller, owner: str, name: str, scopes: tuple[str, ...], life_s: float = 0.0, budgets: Budgets = NO_BUDGETS
    ) -> tuple[Key, str]:
        """A new key and its text, which is shown only this once. `ValueError` for an invalid scope or owner."""
        if owner != "*" and not is_run_id(owner):
            raise ValueError(f"owner {owner[:60]!r}; expected letters, digits, '.', '_' or '-'")
        now_s, secret = self._now_s(), secrets.token_urlsafe(32)
        key = Key(
            key_id=secrets.token_hex(6),
            owner=owner,
            name=name,
            scopes=checked_scopes(scopes),
            secret_sha256=_digest(secret),
            created_at=now_s,
            expires_at=now_s + life_s if life_s else 0.0,
            budgets=budgets,
        )
        self._store.add_key(key)
        with self._lock:
            self._keys[key.key_id] = key
        self.note(by, owner, "key.created", key.key_id, f"{name} {','.join(key.scopes)} {told(budgets) if budgets else ''}".strip())
        return key, f"{PREFIX}_{key.key_id}_{secret}"

    def verify(self, text: str) -> Caller | None:
        """The caller with this key; None when the key is unknown or no longer valid."""
        prefix, _, rest = text.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self._keys.get(key_id)
        if len(text) > MAX_LENGTH or prefix != PREFIX or key is None:
            return None
        if not hmac.compare_digest(_digest(secret), key.secret_sha256) or not key.holds(self._now_s()):
            return None
        return Caller(key.owner, key.scopes, f"{INVOKER}{key.key_id}")

    def list(self, owner: str = "") -> list[Key]:
        """Newest first."""
        return sorted((key for key in self._keys.values() if owner in ("", key.owner)), key=lambda key: key.created_at, reverse=True)

    def get(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def budgets_of(self, invoker_id: str) -> Budgets | None:
        """The budgets of the key behind a run's or a caller's name; None when there is no key, or its runs are not counted."""
        key = self.behind(invoker_id)
        return key.budgets or None if key is not None else None

    def behind(self, invoker_id: str) -> Key | None:
        """The key behind a run's or a caller's name; None when there is none."""
        return self._keys.get(invoker_id[len(INVOKER) :]) if invoker_id.startswith(INVOKER) else None

    def set_budgets(self, by: Caller, key: Key, budgets: Budgets) -> Key:
        """Replace the key's budgets."""
        self._store.set_budgets(key.key_id, budgets)
        with self._lock:
            changed = self._keys[key.key_id] = msgspec.structs.replace(self._keys[key.key_id], budgets=budgets)
        self.note(by, key.owner, "key.budgets", key.key_id, told(budgets))
        return changed

    def revoke(self, by: Caller, key: Key) -> Key:
        """Accept this key no more. A revoked key is unchanged."""
        if key.revoked_at:
            return key
        at = self._now_s()
        self._store.revoke_key(key.key_id, at)
        with self._lock:
            revoked = self._keys[key.key_id] = msgspec.structs.replace(self._keys[key.key_id], revoked_at=at)
        self.note(by, key.owner, "key.revoked", key.key_id, key.name)
        return revoked

    def note(self, by: Caller, owner: str, action: str, subject: str, detail: str = "") -> None:
        """Write an audit row."""
        now_s = self._now_s()
        row_id = f"{time.time_ns():020d}-{secrets.token_hex(3)}"
        row = AuditRow(row_id=row_id, at=now_s, owner=owner, actor=by.name, action=action, subject=subject[:200], detail=detail[:500])
        self._store.add_audit(row)

    def audit(self, owner: str = "", limit: int = 100) -> Sequence[AuditRow]:
        """Newest first. Blocking."""
        return self._store.audit(owner, limit)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
