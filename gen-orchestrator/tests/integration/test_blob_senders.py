"""Blobs of models are there for an owner who sent them or has them in a version, and for no other."""

import os
import secrets
from pathlib import Path

from blake3 import blake3

from gen_orchestrator.hub.model_records import ModelFile
from gen_orchestrator.hub.models import ModelStore

CONTENT = b"weights of ann"
FILE = ModelFile("a.txt", len(CONTENT), blake3(CONTENT).hexdigest())


def send(store: ModelStore, owner: str, content: bytes = CONTENT) -> bool:
    saving = store.receive(blake3(CONTENT).hexdigest(), owner)
    try:
        saving.write(content)
        return saving.finish()
    finally:
        saving.drop()


def missing(folder: Path) -> dict[str, bool]:
    """Whether the file is missing for an owner, as a platform says that was just started."""
    return {owner: bool(ModelStore(folder).missing([FILE], owner)) for owner in ("ann", "bob", "*")}


def test_a_blob_is_there_for_whom_sent_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert (send(store, "ann"), send(store, "bob", b"another")) == (True, False)
    assert missing(tmp_path) == {"ann": False, "bob": True, "*": False}
    store.commit("ann", "toy", "latest", [FILE])
    assert store.collect(young_s=-1).blobs == 0
    assert list((tmp_path / "senders").glob("*/*")) == [], "the version tells it from now on"
    assert missing(tmp_path) == {"ann": False, "bob": True, "*": False}
    upper = ModelFile("a.txt", FILE.size_bytes, FILE.blake3.upper())
    assert (store.missing([upper], "ann"), store.missing([upper], "bob")) == ([], [upper.blake3])
    store.remove("ann", "toy")
    assert send(store, "bob")
    assert missing(tmp_path) == {"ann": True, "bob": False, "*": False}, "who deletes a model no longer has its files"
    store.collect(young_s=-1)
    assert missing(tmp_path) == {"ann": True, "bob": True, "*": True}


def test_bytes_handed_by_the_inbox_are_their_owners(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.inbox.offer()

    def lay(owner: str, *, linked: bool) -> None:
        name, source = secrets.token_hex(16), tmp_path / f"of-{owner}"
        source.write_bytes(CONTENT)
        (tmp_path / "inbox" / name).hardlink_to(source)
        if not linked:
            source.unlink()
        assert store.take_laid(FILE.blake3, name, linked=linked, owner=owner)

    lay("ann", linked=True)
    assert missing(tmp_path) == {"ann": False, "bob": True, "*": False}
    lay("bob", linked=False)
    kept = store.blob_path(FILE.blake3)
    assert not kept.samefile(tmp_path / "of-ann"), "bob's bytes do not depend on ann's file"
    inode = kept.stat().st_ino
    lay("carol", linked=True)
    assert kept.stat().st_ino == inode, "what is whole is not replaced by a link, which its author may change"
    (tmp_path / "of-carol").chmod(0o644)
    (tmp_path / "of-carol").write_bytes(b"x" * len(CONTENT))
    assert kept.read_bytes() == CONTENT
    assert not store.is_changed(FILE.blake3)
    os.link(kept, tmp_path / "worker")
    assert send(store, "dan")
    assert kept.samefile(tmp_path / "worker"), "one copy, also with a worker's"
