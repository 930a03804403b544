"""Models by content: each blob is stored once, and snapshots are folders of links to blobs, published whole or not at
all. Blocking.

`blobs/blake3/ab/cd/<hex>` and `snapshots/<digest>/<path>` are laid out as published workers do it;
`manifests/<digest>.json` and `refs/` beside them are our own.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from gen_worker.content.blobs import copy_near, drop_damaged, fetch_blobs, is_present, link_near
from gen_worker.content.disk import admit, has_size, missing_bytes
from gen_worker.content.listing import Listing, RemoteFile, checked_listing
from gen_worker.content.progress import Progress
from gen_worker.content.seals import Seals
from gen_worker.errors import FatalError
from gen_worker.log import Log
from gen_worker.net.digests import checked_digest
from gen_worker.net.part_file import sync_folder
from gen_worker.net.range_client import Link, RangeClient
from gen_worker.net.wanted import Policy, Wanted
from gen_worker.shared_files import read_json, write_whole

LinkOf = Callable[[RemoteFile, bool], Link]


class Snapshot(msgspec.Struct, frozen=True):
    """A model version on this disk. `fetched_bytes` came over the network in this call."""

    path: Path
    listing: Listing
    fetched_bytes: int = 0


class _Ref(msgspec.Struct, frozen=True):
    """The snapshot that a ref resolved to. `form`: dtypes joined by commas, for example `fp16,bf16`, because one ref
    may resolve differently for each; empty when a scheduler chose. `owner`: whose workers resolved it, on a platform
    with several owners.
    """

    ref: str
    digest: str
    form: str = ""
    owner: str = ""


class Cas:
    """A store in one folder. Several processes may use it. `on_blob` is called in download threads for each blob that
    has arrived.

    `near` is the blob folder of a hub on this machine, laid out like ours. Its blobs are linked, so they are neither
    fetched nor copied.
    """

    def __init__(
        self,
        root: Path,
        *,
        floor_bytes: int = 0,
        log: Log | None = None,
        seals: Seals | None = None,
        on_blob: Callable[[Path], None] = lambda path: None,
        near: Path | None = None,
        owner: str = "",
    ) -> None:
        """`owner`: whose refs are found here. The content is shared by all, but what a ref means is found out by each
        owner, because one may not have what another has.
        """
        self.root = root
        self.owner = owner
        self._near = near
        self.seals = seals or Seals(root.parent / "seals")
        self._log = log or Log()
        self._skipped: set[Path] = set()
        self._floor_bytes = floor_bytes
        self._on_blob = on_blob
        self.blobs = root / "blobs" / "blake3"
        self.snapshots = root / "snapshots"
        self.manifests = root / "manifests"
        self.refs = root / "refs"
        self.locks = root / "locks"

    def blob_path(self, digest: str) -> Path:
        """The path where a blob is stored; `ValueError` when the text is not a blake3 digest."""
        algorithm, _, hexadecimal = checked_digest(digest).partition(":")
        if algorithm != "blake3":
            raise ValueError(f"digest {digest!r}: blobs are named by blake3")
        return self.blobs / hexadecimal[:2] / hexadecimal[2:4] / hexadecimal

    def find(self, digest: str) -> Snapshot | None:
        """The snapshot, if everything is on this disk."""
        try:
            name = snapshot_name(digest)
            path = self.manifests / f"{name}.json"
            listing = read_json(path, Listing)
            if listing is None:
                self._skip(path)
                return None
            for file in checked_listing(listing, name).files:
                self.blob_path(file.digest)
        except (ValueError, FatalError):  # a file of the store is torn or damaged: it is fetched again
            return None
        folder = self.snapshots / name
        complete = all(has_size(folder / file.path, file.size_bytes) for file in listing.files)
        return Snapshot(folder, listing) if complete else None

    def find_ref(self, ref: str, form: str = "") -> Snapshot | None:
        """What a ref meant when it was last resolved here in this form, if the whole snapshot is here."""
        known = self._read_ref(self._ref_path(ref, form))
        if known is None or known.ref != ref or known.owner != self.owner:
            return None
        self.touch(ref, form)
        return self.find(known.digest)

    def touch(self, ref: str, form: str = "") -> None:
        """Record a use."""
        with contextlib.suppress(OSError):
            os.utime(self._ref_path(ref, form), follow_symlinks=False)

    def used_s(self, ref: str) -> float:
        """When a ref was last used in any form, as a Unix time."""
        return max((_modified_s(path) for path, known in self._known() if known.ref == ref), default=0.0)

    def fetch(
        self,
        ref: str,
        form: str,
        listing: Listing,
        link: LinkOf,
        client: RangeClient,
        policy: Policy,
        progress: Progress,
        cancel: threading.Event,
    ) -> Snapshot:
        """Fetch a snapshot: first the missing blobs, then its folder of links. The listing was checked, and every file
        has a blake3 digest.
        """
        found = self.find(listing.digest)
        fetched = 0
        if found is None:
            wanted = {file.digest: self._wanted(file, link) for file in listing.files}
            drop_damaged(wanted.values(), self.seals, unsealed=True)
            if self._near is not None:
                link_near(wanted.values(), self._near, self.seals)
            missing = [file for file in wanted.values() if not is_present(file)]
            total = sum(file.size_bytes for file in wanted.values())
            need, growth = self.missing_bytes(listing)
            admit(self.root, growth, self._floor_bytes, ref)
            progress.begin("downloading", total)
            progress.add(total - need)
            if self._near is not None and missing:
                missing = self._copied(ref, missing, self._near, progress, cancel)
            fetched = fetch_blobs(missing, self.locks, client, policy, progress, cancel, self._on_blob, self.seals)
            found = self._publish(listing)
        self._remember(_Ref(ref, listing.digest, form, self.owner))
        return Snapshot(found.path, found.listing, fetched)

    def _copied(self, ref: str, missing: list[Wanted], near: Path, progress: Progress, cancel: threading.Event) -> list[Wanted]:
        """Copy what a neighbour has on another file system; returns what is still missing."""
        copied = copy_near(missing, near, self.seals, progress, self._on_blob, cancel)
        if copied.files:
            why = "the hub's files are on another file system, so they are copied; use one disk for both to avoid that"
            self._log.info("models.copied", ref=ref, files=copied.files, shared=copied.shared, size_bytes=copied.size_bytes, why=why)
        return [file for file in missing if not is_present(file)]

    def missing_bytes(self, listing: Listing) -> tuple[int, int]:
        """Bytes of files that are not here in full, and the bytes that the disk still has to provide for them: partial
        downloads count as provided.
        """
        return missing_bytes({self.blob_path(file.digest): file.size_bytes for file in listing.files})

    def inventory(self) -> Iterator[tuple[str, Snapshot]]:
        """Every ref whose snapshot is here in full; a ref of several forms appears once for each."""
        for _, known in self._known():
            found = self.find(known.digest)
            if found is not None:
                yield known.ref, found

    def forget(self, ref: str) -> None:
        """Forget a ref in all its forms, and its snapshots unless another ref uses them. The blobs are removed by the next `gc`."""
        others = {known.digest for _, known in self._known() if known.ref != ref}
        for path, known in self._known():
            if known.ref != ref:
                continue
            path.unlink(missing_ok=True)
            if known.digest not in others:
                name = snapshot_name(known.digest)
                gone = self.find(known.digest)
                (self.manifests / f"{name}.json").unlink(missing_ok=True)
                with self.seals.keeping(self._blobs_of(gone.listing) if gone is not None else {}):
                    shutil.rmtree(self.snapshots / name, ignore_errors=True)

    def _known(self) -> list[tuple[Path, _Ref]]:
        read = [(path, self._read_ref(path)) for path in sorted(self.refs.glob("*.json"))]
        return [(path, known) for path, known in read if known is not None]

    def _read_ref(self, path: Path) -> _Ref | None:
        """The content of a file in `refs/`; None when it is missing or unusable."""
        known = read_json(path, _Ref)
        try:
            if known is not None:
                checked_digest(known.digest)
                return known
        except ValueError:
            pass
        self._skip(path)
        return None

    def _skip(self, path: Path) -> None:
        """A bad file costs only its own entry: the entry counts as absent and is logged once."""
        if path not in self._skipped and os.path.lexists(path):
            self._skipped.add(path)
            self._log.warning("store.file_skipped", path=str(path), error="not a record of this store; remove it, or fetch the model again")

    def _blobs_of(self, listing: Listing) -> dict[Path, str]:
        return {self.blob_path(file.digest): file.digest for file in listing.files}

    def _wanted(self, file: RemoteFile, link: LinkOf) -> Wanted:
        return Wanted(self.blob_path(file.digest), file.size_bytes, file.digest, lambda expired: link(file, expired), file.path)

    def _publish(self, listing: Listing) -> Snapshot:
        name = snapshot_name(listing.digest)
        final = self.snapshots / name
        building = self.snapshots / f"{name}.building.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            with self.seals.keeping(self._blobs_of(listing)):
                for file in listing.files:
                    target = building / file.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link_or_copy(self.blob_path(file.digest), target)
            self.manifests.mkdir(parents=True, exist_ok=True)
            plain = Listing(listing.digest, tuple(RemoteFile(f.path, f.size_bytes, f.digest) for f in listing.files))
            write_whole(self.manifests / f"{name}.json", msgspec.json.encode(plain))
            if final.exists() and self.find(listing.digest) is None:
                with self.seals.keeping(self._blobs_of(listing)):
                    shutil.rmtree(final)  # left unfinished by an earlier process
            try:
                building.rename(final)
            except OSError:
                if self.find(listing.digest) is None:  # otherwise another process published the same snapshot first
                    raise
            sync_folder(self.snapshots)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return Snapshot(final, plain)

    def _remember(self, ref: _Ref) -> None:
        self.refs.mkdir(parents=True, exist_ok=True)
        write_whole(self._ref_path(ref.ref, ref.form), msgspec.json.encode(ref))

    def _ref_path(self, ref: str, form: str) -> Path:
        name = f"{ref}|{form}|{self.owner}" if self.owner else f"{ref}|{form}"
        return self.refs / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def snapshot_name(digest: str) -> str:
    """A snapshot digest as a folder name: as given, in lower case; `ValueError` when it is not a digest."""
    checked = checked_digest(digest)
    return checked if ":" in digest else checked.partition(":")[2]


def tree_digest(listing: Listing) -> str:
    """The digest of a snapshot: BLAKE3 over `path TAB size TAB blake3hex LF`, sorted by the paths' bytes."""
    from blake3 import blake3

    hasher = blake3()
    for file in sorted(listing.files, key=lambda f: f.path.encode()):
        hasher.update(f"{file.path}\t{file.size_bytes}\t{file.digest.partition(':')[2]}\n".encode())
    return f"blake3:{hasher.hexdigest()}"


def _link_or_copy(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target)
        return
    except OSError:
        pass
    try:
        target.symlink_to(os.path.relpath(blob, target.parent))
    except OSError:
        shutil.copyfile(blob, target)


def _modified_s(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:  # another process removed it
        return 0.0
