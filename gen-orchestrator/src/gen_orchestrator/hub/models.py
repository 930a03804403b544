"""Models stored on the platform: blobs by content, versions as lists of blobs, tags that point at versions.

    <folder>/blobs/blake3/ab/cd/<hex>          each content once, for all owners; the layout of workers, who link instead of copying
    <folder>/repos/<owner>/<repo>/versions/<digest>.json     the files of a version; never changes
    <folder>/repos/<owner>/<repo>/tags/<tag>.json            the version that a tag points at, for each precision of its weights
    <folder>/senders/<owner>/<hex>                           which owner has sent which blob (`hub/blob_senders.py`)
    <folder>/inbox                                           where clients on this machine put files (`hub/inbox.py`)

A push sends the list first, gets the missing blobs as the answer, sends these, and sends the list again; so an
interrupted push can be resumed. A blob gets its name once its digest has been found correct. Versions are checked
before they exist: their weights must be safetensors with correct headers, unless the client allows unsafe files.
Blocking, any thread.
"""

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from gen_orchestrator.domain.access import ALL_OWNERS
from gen_orchestrator.hub.blob_saving import NEW, BlobSaving
from gen_orchestrator.hub.blob_senders import BlobSenders
from gen_orchestrator.hub.half_files import forget, hold
from gen_orchestrator.hub.inbox import Inbox
from gen_orchestrator.hub.model_records import (
    ANY,
    Collected,
    DamagedStoreError,
    ModelFile,
    ModelTag,
    NoVariantError,
    PushError,
    Repo,
    UnknownModelError,
    Version,
    listing_of,
    refusal_of,
    repo_of,
)
from gen_worker.content.cas import tree_digest
from gen_worker.content.listing import Listing
from gen_worker.content.seals import Seals
from gen_worker.net.digests import checked_digest
from gen_worker.refs import CozyRef
from gen_worker.shared_files import read_json, write_whole
from gen_worker.sources.weight_files import HeaderError, header_size, precision_of, read_header

READ_BYTES = 8 << 20
REMOVED = ".removed"
YOUNG_S = 3600.0  # a younger blob may belong to a push in progress
LICENCE_NAMES = ("license", "licence", "copying", "notice")


class ModelStore:
    """In one folder. `earliest_s`: the unix time by which the age of blobs is judged (`SteadyCalendar`)."""

    def __init__(self, folder: Path, earliest_s: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._earliest_s = earliest_s
        self._lock = threading.Lock()  # what is referred to, and what goes because nothing refers to it
        self.blobs = folder / "blobs" / "blake3"
        self._senders = BlobSenders(folder / "senders", folder / "repos")
        self.inbox = Inbox(folder / "inbox")
        self._seals = Seals(folder / "seals")  # for blobs that their authors may still write to

    def blob_path(self, digest: str) -> Path:
        """The path of a blob; `ValueError` when the text is not a blake3 digest."""
        algorithm, _, name = checked_digest(digest).partition(":")
        if algorithm != "blake3":
            raise ValueError(f"digest {digest[:100]!r}: blobs are named by blake3")
        return self.blobs / name[:2] / name[2:4] / name

    def receive(self, digest: str, owner: str = ALL_OWNERS) -> BlobSaving:
        """A blob being received from an owner."""
        target = self.blob_path(digest)
        return BlobSaving(target, lambda new: self._keep(new, target, owner))

    def adopt(self, file: Path, path: str) -> ModelFile:
        """Store a file on this disk as a blob by a hard link: nothing is copied, and the file must not change any more.
        `path` is its path in the model.
        """
        whole = file.resolve(strict=True)
        hasher, size_bytes = blake3(max_threads=blake3.AUTO), whole.stat().st_size
        if size_bytes:
            hasher.update_mmap(whole)
        found = ModelFile(path, size_bytes, hasher.hexdigest())
        target = self.blob_path(found.blake3)
        if self.missing([found]):
            target.parent.mkdir(parents=True, exist_ok=True)
            new = target.with_name(f"{NEW}{secrets.token_hex(6)}")
            os.link(whole, new)
            with new.open("rb") as linked:
                hold(linked.fileno())
                new.chmod(0o444)
                new.replace(target)
        return found

    def take_laid(self, digest: str, name: str, *, linked: bool = False, owner: str = ALL_OWNERS) -> bool:
        """Store a file of the inbox as a blob of an owner; False if its content has another digest. `NotLaidError`, and
        `ValueError` for an invalid digest. `linked`: the author still has the file under another name, so it is sealed,
        and checked again before it is served.
        """
        target = self.blob_path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f"{NEW}{secrets.token_hex(6)}")
        try:
            self.inbox.take(name, new, linked=linked)
            new.chmod(0o444)
            hasher = blake3(max_threads=blake3.AUTO)
            with new.open("rb") as file:
                hold(file.fileno())  # as its client does, which may die
                while chunk := file.read(READ_BYTES):  # not mapped: if somebody shortened the file, this process would crash
                    hasher.update(chunk)
                if hasher.hexdigest() != target.name:
                    return False
                os.fsync(file.fileno())
                self._keep(new, target, owner, linked=linked)
            return True
        finally:
            new.unlink(missing_ok=True)

    def _keep(self, new: Path, target: Path, owner: str, *, linked: bool = False) -> None:
        """Give a complete file the name of its digest. A blob that is already here stays, since other owners and workers
        have it, unless it is a link: whoever sends the bytes does not depend on another's file.
        """
        name = f"blake3:{target.name}"
        with self._lock:
            if _size(target) == _size(new) and not self._seals.has_seal(target, name):
                os.utime(target)
            else:
                new.replace(target)
                if linked:
                    self._seals.seal(target, name)
        self._senders.note(owner, target.name)

    def missing(self, files: Sequence[ModelFile], owner: str = ALL_OWNERS) -> list[str]:
        """Digests whose blobs are missing here for this owner (`hub/blob_senders.py`), each once; a link that its author
        has changed counts as missing. The existing ones count as new from now on, so that they stay for the caller.
        """
        wanted = {file.blake3: file.size_bytes for file in files}
        held = self._senders.held(owner, {self.blob_path(digest).name for digest in wanted})
        found = []
        for digest, size_bytes in wanted.items():
            path = self.blob_path(digest)
            if path.name not in held:  # and nothing is looked up: even the time must not tell whether others have it
                found.append(digest)
                continue
            is_changed = self.is_changed(digest)
            with self._lock:
                if is_changed or _size(path) != size_bytes:
                    found.append(digest)
                    continue
                with self._seals.keeping({path: f"blake3:{digest}"}):
                    os.utime(path)
        return found

    def is_changed(self, digest: str) -> bool:
        """Whether a blob is a link to a file that its author has changed. False for a blob that is not here."""
        path = self.blob_path(digest)
        return _size(path) is not None and self._seals.is_damaged(path, checked_digest(digest), unsealed=False)

    def changed_link(self, version: Version) -> str:
        """The first file of a version that is a link and was changed since the push; empty when there is none. Nobody
        can get such a version until it is pushed again.
        """
        return next((file.path for file in version.files if self.is_changed(file.blake3)), "")

    def commit(
        self,
        owner: str,
        repo: str,
        tag: str,
        files: Sequence[ModelFile],
        *,
        message: str = "",
        allow_unsafe: bool = False,
        asked: Sequence[str] = (),
    ) -> Version:
        """Make a version from blobs that are all here, and let the tag point at it for its precision. The same files
        are the same version.

        `asked`: precisions that this was chosen for. The tag also points at it for the first of them if its own
        precision differs (for weights that are narrowed on the device). `PushError` when it is refused.
        """
        name = repo_of(f"{owner}/{repo}:{tag}")
        listing = listing_of(files)
        if not allow_unsafe and (refusal := refusal_of(file.path for file in listing.files)):
            raise PushError(refusal)
        digest = tree_digest(listing)
        version = self._version(name, digest) or Version(
            digest=digest,
            files=tuple(ModelFile(file.path, file.size_bytes, file.digest.partition(":")[2]) for file in listing.files),
            precision=self._precision(listing),
            message=message,
            licence=next((file.path for file in listing.files if file.path.lower().startswith(LICENCE_NAMES)), ""),
            pushed_at=time.time(),
        )
        with self._lock:
            gone = [file.path for file in version.files if _size(self.blob_path(file.blake3)) != file.size_bytes]
            if gone:
                raise PushError(f"{gone[0]}: its blob is not here any more; push again")
            self._write(self._repo(name) / "versions" / f"{digest.partition(':')[2]}.json", version)
            path = self._repo(name) / "tags" / f"{name.tag}.json"
            before = read_json(path, ModelTag)
            versions = {**(before.versions if before else {}), version.precision: digest}
            if asked and version.precision not in (*asked, ANY):
                versions[asked[0]] = digest
            self._write(path, ModelTag(tag=name.tag, versions=versions, moved_at=time.time()))
        return version

    def resolve(self, ref: CozyRef, precisions: Sequence[str]) -> Version:
        """The version that a ref points at, in the first available one of these precisions; in any if none is
        requested.

        `UnknownModelError` names what is missing, `NoVariantError` the precisions that exist.
        """
        if ref.digest is not None:
            found = self._version(ref, ref.digest)
            if found is None:
                raise UnknownModelError(f"{ref.repo_id()} has no version {ref.digest}")
            return found
        tag = read_json(self._repo(ref) / "tags" / f"{ref.tag}.json", ModelTag)
        if tag is None:
            tags = sorted(path.stem for path in (self._repo(ref) / "tags").glob("*.json"))
            known = f"Tags: {', '.join(tags)}" if tags else "it has never been pushed"
            raise UnknownModelError(f"{ref.repo_id()} has no tag {ref.tag!r} here. {known}")
        for precision in (*precisions, ANY) if precisions else sorted(tag.versions):
            digest = tag.versions.get(precision)
            found = self._version(ref, digest) if digest else None
            if found is not None:
                return found
        raise NoVariantError(f"{ref.canonical()} exists as {', '.join(sorted(tag.versions))}, not as {' or '.join(precisions)}")

    def version(self, ref: CozyRef, digest: str) -> Version:
        """One version of a repository; `UnknownModelError`."""
        found = self._version(ref, digest)
        if found is None:
            raise UnknownModelError(f"{ref.repo_id()} has no version {digest[:100]}")
        return found

    def repos(self, owner: str = "") -> list[Repo]:
        """All repositories with their tags, sorted by name."""
        found = []
        for folder in sorted((self._folder / "repos").glob("*/*")):
            if owner not in ("", folder.parent.name):
                continue
            paths = sorted((folder / "tags").glob("*.json"))
            tags = [read_json(path, ModelTag) for path in paths]
            if paths:  # else its first push is not complete, or its last removal
                found.append(Repo(owner=folder.parent.name, repo=folder.name, tags=tuple(tag for tag in tags if tag is not None)))
        return found

    def remove(self, owner: str, repo: str, tag: str = "") -> int:
        """Delete a tag, or a whole repository, and everything that nothing else refers to; returns the bytes freed.
        `UnknownModelError`.
        """
        name = repo_of(f"{owner}/{repo}:{tag or 'latest'}")
        folder = self._repo(name)
        try:
            with self._lock:
                if tag:
                    record = folder / "tags" / f"{tag}.json"
                    record.rename(record.with_suffix(REMOVED))
                    self._finish_removal(folder)
                else:
                    self._throw_away(folder)
        except FileNotFoundError:
            raise UnknownModelError(f"{owner}/{repo}{':' + tag if tag else ''} is not here") from None
        try:
            return self.collect().freed_bytes
        except DamagedStoreError:  # the next collection reports it
            return 0

    def collect(self, young_s: float = YOUNG_S) -> Collected:
        """Remove blobs that no version uses and that are not recent. `DamagedStoreError` when that is unknown."""
        self.finish_removals()
        kept = {file.blake3 for version in self._versions() for file in version.files}
        self.inbox.sweep(young_s)
        self._seals.collect()

        def is_young(found: os.stat_result) -> bool:
            return self._earliest_s() - found.st_ctime <= young_s

        self._senders.collect(is_young)
        blobs = freed_bytes = 0
        for path in self.blobs.glob("*/*/*"):
            try:
                with self._lock:  # a push may find the blob here at this moment, and make it young
                    found = path.stat()
                    if path.name in kept or is_young(found):
                        continue
                    path.unlink()
                blobs += 1
                freed_bytes += found.st_size if found.st_nlink == 1 else 0  # a worker that linked it still has it
            except FileNotFoundError:
                continue
        return Collected(blobs, freed_bytes)

    def forget_halves(self) -> int:
        """Remove what pushes have left whose client or platform was killed; returns the number of files."""
        return self.inbox.forget_dead() + forget(self.blobs.glob(f"*/*/{NEW}*"))

    def finish_removals(self) -> None:
        """Complete the removals that a kill has interrupted."""
        with self._lock:
            for path in (self._folder / "repos").glob(f"*/*/tags/*{REMOVED}"):
                self._finish_removal(path.parent.parent)
            shutil.rmtree(self._folder / "trash", ignore_errors=True)

    def _finish_removal(self, folder: Path) -> None:
        """Remove what belonged to removed tags alone. While a tag cannot be read, every version may be needed, and stays."""
        tags = [read_json(path, ModelTag) for path in (folder / "tags").glob("*.json")]
        if not tags:
            self._throw_away(folder)
            return
        needed = {digest for tag in tags if tag is not None for digest in tag.versions.values()}
        for path in (folder / "versions").glob("*.json"):
            if None not in tags and f"blake3:{path.stem}" not in needed:
                path.unlink()
        for path in (folder / "tags").glob(f"*{REMOVED}"):
            path.unlink()

    def _throw_away(self, folder: Path) -> None:
        """Remove a repository: it leaves its place in one step."""
        trash = self._folder / "trash"
        trash.mkdir(parents=True, exist_ok=True)
        folder.rename(trash / secrets.token_hex(6))
        shutil.rmtree(trash, ignore_errors=True)

    def unused_bytes(self) -> int:
        """Bytes of blobs that no version uses, recent ones included. `DamagedStoreError` if that cannot be determined."""
        kept = {file.blake3 for version in self._versions() for file in version.files}
        total = 0
        for path in self.blobs.glob("*/*/*"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                total += found.st_size if path.name not in kept and found.st_nlink == 1 else 0
        return total

    def _versions(self) -> Iterator[Version]:
        for path in (self._folder / "repos").glob("*/*/versions/*.json"):
            found = read_json(path, Version)
            if found is not None:
                yield found
            elif path.exists():  # otherwise it was deleted just now
                raise DamagedStoreError(f"{path} is not a version's record; no blob is deleted until it is repaired or removed")

    def _version(self, ref: CozyRef, digest: str) -> Version | None:
        try:
            return read_json(self._repo(ref) / "versions" / f"{checked_digest(digest).partition(':')[2]}.json", Version)
        except ValueError:
            return None

    def _precision(self, listing: Listing) -> str:
        """The precision of all its safetensors together; `PushError` when a header contradicts its file."""
        entries = []
        for file in listing.files:
            if not file.path.endswith(".safetensors"):
                continue
            with self.blob_path(file.digest).open("rb") as blob:
                try:
                    head = blob.read(8)
                    entries += read_header(head + blob.read(header_size(head, file.size_bytes)), file.size_bytes)
                except HeaderError as exc:
                    raise PushError(f"{file.path}: {exc}") from None
        return precision_of(entries) or ANY

    def _repo(self, ref: CozyRef) -> Path:
        return self._folder / "repos" / ref.owner / ref.repo

    def _write(self, path: Path, value: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(value))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
