"""The secrets that a release's manifest declares, and their values for its workers."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from gen_orchestrator.domain.redaction import Redactor
from gen_orchestrator.hub.registry import Registry

_NONE = Redactor()


class Vault(Protocol):
    """Holds the values."""

    def environment(self, owner: str, endpoint: str, names: Iterable[str]) -> dict[str, str]: ...

    def missing(self, owner: str, endpoint: str, names: Iterable[str]) -> Sequence[str]: ...

    def redactor(self, owner: str, endpoint: str, declared: tuple[str, ...]) -> Redactor: ...


class ReleaseSecrets:
    """By release."""

    def __init__(self, registry: Registry, vault: Vault) -> None:
        self._registry = registry
        self._vault = vault

    def declared(self, release_id: str) -> tuple[str, ...]:
        """The names in the release's cozy.toml."""
        try:
            return self._registry.manifest(release_id).secrets or ()
        except LookupError:
            return ()

    def environment(self, release_id: str) -> dict[str, str]:
        """Environment variables for a worker of this release."""
        names = self.declared(release_id)
        if not names:
            return {}
        release = self._registry.release(release_id)
        return self._vault.environment(release.owner, release.endpoint, names)

    def unset(self, release_id: str) -> list[str]:
        """The secrets that must be set before a worker of this release can start."""
        names = self.declared(release_id)
        if not names:
            return []
        release = self._registry.release(release_id)
        return list(self._vault.missing(release.owner, release.endpoint, names))

    def missing(self, release_id: str) -> str:
        """The same as text for people; empty when nothing is missing."""
        lacking = self.unset(release_id)
        if not lacking:
            return ""
        release = self._registry.release(release_id)
        where = f"{release.owner}/{release.endpoint}"
        listed = f"secret {lacking[0]} is" if len(lacking) == 1 else f"secrets {', '.join(lacking)} are"
        commands = "; ".join(f"cozyctl secrets set {where} {name}" for name in lacking[:3])
        return f"the {listed} declared in cozy.toml but not set for {where}, so no worker was started. Set with: {commands}"

    def redactor(self, release_id: str) -> Redactor:
        """Redacts what a worker of this release reports."""
        try:
            release = self._registry.release(release_id)
        except LookupError:
            return _NONE
        return self._vault.redactor(release.owner, release.endpoint, self.declared(release_id))

    def users_of(self, owner: str, endpoint: str, name: str) -> list[str]:
        """The releases that declare this secret."""
        return [each.release_id for each in self._registry.releases(owner, endpoint) if name in self.declared(each.release_id)]
