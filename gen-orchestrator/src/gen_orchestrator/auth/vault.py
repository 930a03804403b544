"""Encrypts secrets of endpoints in the store with a key of the data folder (AES-256-GCM). Owner, endpoint and name are authenticated with
it.

A value is never shown again. A worker of the endpoint gets the secrets that its release declares; they are removed from everything it
reports.
"""

import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gen_orchestrator.auth.folder_keys import folder_key
from gen_orchestrator.domain.access import Caller
from gen_orchestrator.domain.redaction import Redactor
from gen_orchestrator.domain.secrets import StoredSecret, checked

KEY_NAME = "secrets.key"
KEY_BYTES = 32
NONCE_BYTES = 12
MAX_PER_ENDPOINT = 100


class SecretStore(Protocol):
    """The part of a store that is needed here."""

    def add_secret(self, secret: StoredSecret) -> bool:
        """Add a version if it is the next one; False otherwise."""
        ...

    def secrets(self) -> list[StoredSecret]:
        """All versions of all secrets, oldest first."""
        ...


class Audit(Protocol):
    """Records who did what."""

    def note(self, by: Caller, owner: str, action: str, subject: str, detail: str = "") -> None: ...


class SecretInfo(msgspec.Struct, frozen=True):
    """A secret as shown to people. `readable` is false when it was encrypted with another data folder's key."""

    name: str
    version: int
    set_at: float
    set_by: str
    readable: bool


class Vault:
    """One for each leader. Any thread may read; `put` and `remove` block and belong in one thread."""

    def __init__(self, store: SecretStore, key: bytes, audit: Audit, now_s: Callable[[], float]) -> None:
        self._store = store
        self._cipher = AESGCM(key)
        self._audit = audit
        self._now_s = now_s
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._known: dict[tuple[str, str], dict[str, list[tuple[StoredSecret, str | None]]]] = {}
        self._redactors: dict[tuple[str, str], dict[tuple[str, ...], Redactor]] = {}  # made on first use, by the names that come first
        for secret in store.secrets():
            self._take(secret)

    @staticmethod
    def key_of(folder: Path) -> bytes:
        """The key of this data folder, created if it is missing."""
        return folder_key(folder / KEY_NAME, lambda: secrets.token_bytes(KEY_BYTES))

    def put(self, by: Caller, owner: str, endpoint: str, name: str, value: str) -> SecretInfo:
        """Set a secret. `ValueError` for an invalid name or value."""
        checked(name, value)
        with self._writing:
            known = self._known.get((owner, endpoint), {})
            if name not in known and len(known) >= MAX_PER_ENDPOINT:
                raise ValueError(f"{owner}/{endpoint} has {len(known)} secrets; at most {MAX_PER_ENDPOINT} are allowed")
            secret = self._add(by, owner, endpoint, name, value.encode())
        self._audit.note(by, owner, "secret.set", f"{endpoint} {name}", f"version {secret.version}")
        return _info(secret, value)

    def remove(self, by: Caller, owner: str, endpoint: str, name: str) -> bool:
        """Give the secret to no worker any more; False when there is none."""
        with self._writing:
            if name not in {each.name for each in self.list(owner, endpoint)}:
                return False
            self._add(by, owner, endpoint, name, None)
        self._audit.note(by, owner, "secret.removed", f"{endpoint} {name}")
        return True

    def list(self, owner: str, endpoint: str) -> list[SecretInfo]:
        """The secrets currently set, by name."""
        known = self._known.get((owner, endpoint), {})
        return [_info(*versions[-1]) for _, versions in sorted(known.items()) if versions[-1][0].sealed]

    def environment(self, owner: str, endpoint: str, names: Iterable[str]) -> dict[str, str]:
        """The values of those of these names that are set."""
        known = self._known.get((owner, endpoint), {})
        return {name: value for name in names if name in known and (value := known[name][-1][1]) is not None}

    def missing(self, owner: str, endpoint: str, names: Iterable[str]) -> Sequence[str]:
        """Those of these names that have no usable value."""
        there = self.environment(owner, endpoint, names)
        return [name for name in names if name not in there]

    def redactor(self, owner: str, endpoint: str, declared: tuple[str, ...] = ()) -> Redactor:
        """Removes every current and earlier secret value of this endpoint from texts. Where several secrets have the
        same value, the text names one of `declared`, then one that has the value now.
        """
        made = self._redactors.get((owner, endpoint))
        if made is None:
            return _NONE
        return made.get(declared) or self._make_redactor((owner, endpoint), declared)

    def _make_redactor(self, place: tuple[str, str], declared: tuple[str, ...]) -> Redactor:
        with self._lock:
            values = [
                (name not in declared, number < len(versions), name, value)
                for name, versions in self._known[place].items()
                for number, (_, value) in enumerate(versions, start=1)
                if value is not None
            ]
            made = self._redactors[place][declared] = Redactor((name, value) for *_, name, value in sorted(values))
        return made

    def _add(self, by: Caller, owner: str, endpoint: str, name: str, value: bytes | None) -> StoredSecret:
        version = len(self._known.get((owner, endpoint), {}).get(name, ())) + 1
        secret = StoredSecret(owner=owner, endpoint=endpoint, name=name, version=version, sealed=b"", set_at=self._now_s(), set_by=by.name)
        if value is not None:
            nonce = secrets.token_bytes(NONCE_BYTES)
            secret = msgspec.structs.replace(secret, sealed=nonce + self._cipher.encrypt(nonce, value, _label(secret)))
        if not self._store.add_secret(secret):
            raise ValueError(f"another leader has just changed {name}; try again")
        self._take(secret)
        return secret

    def _take(self, secret: StoredSecret) -> None:
        value = self._opened(secret)
        with self._lock:
            place = secret.owner, secret.endpoint
            known = {name: list(versions) for name, versions in self._known.get(place, {}).items()}
            known.setdefault(secret.name, []).append((secret, value))
            self._known[place] = known
            self._redactors[place] = {}

    def _opened(self, secret: StoredSecret) -> str | None:
        if not secret.sealed:
            return None
        nonce, data = secret.sealed[:NONCE_BYTES], secret.sealed[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, data, _label(secret)).decode()
        except (InvalidTag, ValueError):  # the store was copied without its data folder's key
            return None


_NONE = Redactor()


def _label(secret: StoredSecret) -> bytes:
    return msgspec.json.encode((secret.owner, secret.endpoint, secret.name, secret.version))


def _info(secret: StoredSecret, value: str | None) -> SecretInfo:
    return SecretInfo(secret.name, secret.version, secret.set_at, secret.set_by, value is not None)
