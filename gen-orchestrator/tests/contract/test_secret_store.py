"""Behaviour of every store for secrets."""

from collections.abc import Callable

import msgspec

from gen_orchestrator.domain.secrets import StoredSecret
from gen_orchestrator.store.base import Store


def test_secrets_are_versions_that_are_only_added(store: Store, make_store: Callable[[], Store]) -> None:
    def version(number: int, name: str = "KEY", owner: str = "ann") -> StoredSecret:
        sealed = bytes([0, 255, number])
        return StoredSecret(
            owner=owner, endpoint="e", name=name, version=number, sealed=sealed, set_at=float(number), set_by="key:k"
        )  # fmt: skip

    added = [version(1), version(2), version(1, "OTHER"), version(1, owner="bob")]
    assert [store.add_secret(each) for each in added] == [True] * 4
    assert [store.add_secret(each) for each in (version(2), version(4), version(1))] == [False] * 3
    assert store.add_secret(msgspec.structs.replace(version(3), sealed=b""))
    again = make_store()
    assert [(each.owner, each.name, each.version) for each in again.secrets()] == [
        ("ann", "KEY", 1), ("ann", "KEY", 2), ("ann", "KEY", 3), ("ann", "OTHER", 1), ("bob", "KEY", 1),
    ]  # fmt: skip
    assert again.secrets()[1] == version(2)
