"""Files that callers upload, by owner and ref, until they expire.

    <folder>/records/<owner>/<sha256 of the ref>.json    facts about an upload, and which blob has its bytes
    blobs: uploads/<owner>/<random>                      each written once

The blob is written first, then the record that names it, by one rename: a reader sees the complete old file or the
complete new one. A blob without a record, from an interrupted or replaced upload, is deleted by the next sweep. The
leading node reads the records once; afterwards only this object changes them. Any thread.
"""

import contextlib
import hashlib
import mimetypes
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from gen_orchestrator.hub.blobs import Blobs, KeptFile
from gen_orchestrator.hub.receiving import Receiving
from gen_worker.files.local_outputs import normalize_output_ref
from gen_worker.shared_files import read_json

YOUNG_S = 3600.0  # a younger blob may belong to an upload in progress
OF_RUNS = "runs"  # the first part of refs saved by runs


class Upload(KeptFile, frozen=True, kw_only=True):
    """One file. `expires_at`: unix seconds; 0 means never."""

    expires_at: float


class UploadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one file and of all files of an owner, and how long a file is kept."""

    file_bytes: int
    owner_bytes: int
    keep_s: float


class TooLargeError(ValueError):
    """A single file exceeds the limit."""


class QuotaError(ValueError):
    """The owner has no room for it."""


def _accept(old: "Upload | None") -> None:
    """No condition."""


class Incoming:
    """An upload being received. Call `keep` and then `Uploads.publish`, or only `drop`."""

    def __init__(self, uploads: "Uploads", owner: str, ref: str, spare_bytes: int) -> None:
        self.owner = owner
        self.ref = ref
        self.blob = f"uploads/{owner}/{secrets.token_hex(16)}"
        self.size_bytes = 0
        self.is_published = False
        self._uploads = uploads
        self._receiving = Receiving(uploads.blobs, self.blob)
        self._spare_bytes = spare_bytes

    def write(self, data: bytes) -> None:
        """Write the next bytes; `TooLargeError` or `QuotaError` when there is no room for them."""
        self._uploads.reserve(self.owner, self.size_bytes, len(data), self._spare_bytes)
        self.size_bytes += len(data)
        self._receiving.write(data)

    def keep(self) -> str:
        """The upload is complete: its bytes are safe from now on. Returns its sha256."""
        return self._receiving.close()

    def drop(self) -> None:
        """Remove what was not published. Does nothing after `publish`."""
        if self.is_published:
            return
        self._uploads.release(self.owner, self.size_bytes)
        with contextlib.suppress(OSError):  # the sweep will find it
            self._receiving.abort()
            if self._receiving.is_kept:
                self._uploads.blobs.delete(self.blob)


class _Owned:
    """One owner's uploads by ref, and their bytes, including unfinished ones."""

    def __init__(self, uploads: list[Upload]) -> None:
        self.by_ref = {upload.ref: upload for upload in uploads}
        self.used_bytes = sum(upload.size_bytes for upload in uploads)


class Uploads:
    """For all owners. `earliest_s`: the time by which the age of uploads and blobs is judged (`SteadyCalendar`);
    `now_s` if it is not given.
    """

    def __init__(
        self, folder: Path, blobs: Blobs, limits: UploadLimits, now_s: Callable[[], float], earliest_s: Callable[[], float] | None = None
    ) -> None:
        self.blobs = blobs
        self.limits = limits
        self._folder = folder
        self._now_s = now_s
        self._earliest_s = earliest_s or now_s
        self._lock = threading.Lock()
        self._owners: dict[str, _Owned] = {}

    def receive(self, owner: str, ref: str, *, create: bool, declared_bytes: int = 0) -> Incoming:
        """An upload being received. `ValueError` for a ref that is not a path or belongs to runs, `TooLargeError` or
        `QuotaError` when its declared size does not fit.
        """
        name = upload_ref(ref)
        owned = self._of(owner)
        with self._lock:
            old = owned.by_ref.get(name)
        spare_bytes = old.size_bytes if old is not None and not create else 0  # the size of the file it replaces
        self.reserve(owner, 0, declared_bytes, spare_bytes)
        self.release(owner, declared_bytes)  # its bytes are counted when they arrive
        return Incoming(self, owner, name, spare_bytes)

    def publish(
        self, incoming: Incoming, sha256: str, *, create: bool, check: Callable[[Upload | None], None] = _accept
    ) -> tuple[Upload | None, str]:
        """Give a kept upload its name; returns it with the blob that is no longer named (empty: none). None when
        `create` finds an existing file. `check` gets the file that would be replaced, and raises to keep it.
        """
        now_s = self._now_s()
        upload = Upload(
            ref=incoming.ref,
            owner=incoming.owner,
            blob=incoming.blob,
            size_bytes=incoming.size_bytes,
            sha256=sha256,
            mime_type=mimetypes.guess_type(incoming.ref)[0] or "application/octet-stream",
            created_at=now_s,
            expires_at=now_s + self.limits.keep_s if self.limits.keep_s else 0.0,
        )
        owned = self._of(upload.owner)
        with self._lock:
            old = owned.by_ref.get(upload.ref)
            present = old if old is not None and not self._is_over(old) else None
            if create and present is not None:
                return None, ""
            check(present)
            self._write(upload)
            owned.by_ref[upload.ref] = upload
            incoming.is_published = True
            owned.used_bytes -= old.size_bytes if old is not None else 0
        return upload, old.blob if old is not None else ""

    def find(self, owner: str, ref: str) -> Upload | None:
        """An upload that has not expired."""
        try:
            name = upload_ref(ref)
        except ValueError:
            return None
        owned = self._of(owner)
        with self._lock:
            found = owned.by_ref.get(name)
        return found if found is not None and not self._is_over(found) else None

    def page(self, owners: Sequence[str], prefix: str, after: tuple[str, str], limit: int) -> tuple[list[Upload], bool]:
        """Uploads whose refs begin with `prefix`, by owner and ref, after `after`; and whether there are more."""
        found: list[Upload] = []
        for owner in owners:
            if owner < after[0]:
                continue
            owned = self._of(owner)
            with self._lock:
                refs = sorted(ref for ref in owned.by_ref if ref.startswith(prefix))
                for ref in refs:
                    if (owner, ref) <= after or self._is_over(owned.by_ref[ref]):
                        continue
                    if len(found) == limit:
                        return found, True
                    found.append(owned.by_ref[ref])
        return found, False

    def remove(self, owner: str, ref: str, check: Callable[[Upload | None], None] = _accept) -> Upload | None:
        """Delete an upload; returns it. `check` gets it first, and raises to keep it."""
        while (found := self.find(owner, ref)) is not None:
            check(found)
            if self._forget(found):
                return found
        return None

    def owners(self) -> list[str]:
        """Owners of uploads, by name."""
        records = self._folder / "records"
        return sorted(path.name for path in records.iterdir()) if records.is_dir() else []

    def sweep(self) -> int:
        """Delete expired uploads, then unnamed blobs; returns the number of uploads deleted."""
        expired = 0
        for owner in self.owners():
            over = [upload for upload in self._all_of(owner) if self._is_over(upload)]
            for upload in over:
                self._forget(upload)
            expired += len(over)
        before_s = self._earliest_s() - YOUNG_S
        old = [blob.key for blob in self.blobs.list("uploads") if blob.modified_at < before_s]
        named = {upload.blob for owner in self.owners() for upload in self._all_of(owner)}
        for key in old:
            if key not in named:
                self.blobs.delete(key)
        self.blobs.forget_halves("uploads", before_s)
        return expired

    def used_bytes(self, owner: str) -> int:
        """Bytes of an owner's uploads, including unfinished ones."""
        return self._of(owner).used_bytes

    def reserve(self, owner: str, had_bytes: int, more_bytes: int, spare_bytes: int) -> None:
        """Count arriving bytes; `TooLargeError` or `QuotaError` when they do not fit."""
        most = self.limits.file_bytes
        if had_bytes + more_bytes > most:
            raise TooLargeError(f"a file of more than {most} bytes; at most {most} are accepted (GEN_ORCHESTRATOR_UPLOAD_BYTES)")
        owned = self._of(owner)
        with self._lock:
            used, quota = owned.used_bytes, self.limits.owner_bytes
            if used + more_bytes > quota + spare_bytes:
                text = f"uploads of {owner!r} have {used - had_bytes} of {quota} allowed bytes (GEN_ORCHESTRATOR_OWNER_BYTES)"
                raise QuotaError(f"{text}: there is no room for this one; delete unneeded files: cozyctl files rm REF")
            owned.used_bytes += more_bytes

    def release(self, owner: str, size_bytes: int) -> None:
        """Uncount bytes that do not arrive."""
        owned = self._of(owner)
        with self._lock:
            owned.used_bytes -= size_bytes

    def _forget(self, upload: Upload) -> bool:
        """Delete this upload; False when it was replaced or deleted meanwhile."""
        owned = self._of(upload.owner)
        with self._lock:
            if owned.by_ref.get(upload.ref) is not upload:
                return False
            self._record(upload.owner, upload.ref).unlink(missing_ok=True)
            del owned.by_ref[upload.ref]
            owned.used_bytes -= upload.size_bytes
        with contextlib.suppress(OSError):  # the sweep will find it
            self.blobs.delete(upload.blob)
        return True

    def _all_of(self, owner: str) -> Sequence[Upload]:
        owned = self._of(owner)
        with self._lock:
            return tuple(owned.by_ref.values())

    def _of(self, owner: str) -> _Owned:
        found = self._owners.get(owner)
        if found is None:
            if not owner or "/" in owner or owner.startswith("."):
                raise ValueError(f"{owner[:100]!r} is not an owner")
            with self._lock:
                found = self._owners.get(owner)
                if found is None:
                    folder = self._folder / "records" / owner
                    read = [read_json(path, Upload) for path in folder.glob("*.json")] if folder.is_dir() else []
                    found = self._owners[owner] = _Owned([upload for upload in read if upload is not None])
        return found

    def _is_over(self, upload: Upload) -> bool:
        return 0 < upload.expires_at <= self._earliest_s()

    def _write(self, upload: Upload) -> None:
        path = self._record(upload.owner, upload.ref)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{secrets.token_hex(6)}.new")
        with new.open("xb") as file:
            file.write(msgspec.json.encode(upload))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    def _record(self, owner: str, ref: str) -> Path:
        return self._folder / "records" / owner / f"{hashlib.sha256(ref.encode()).hexdigest()}.json"


def upload_ref(ref: str) -> str:
    """The ref of an upload as stored; `ValueError` when it is not a path, or is in the area of runs."""
    name = normalize_output_ref(ref)
    if "\ufffd" in name:  # what stands for bytes that are not UTF-8: other bytes would name the same file
        raise ValueError(f"{name[:200]!r} is not a name in UTF-8")
    if name.split("/")[0] == OF_RUNS:
        raise ValueError(f"{name[:200]!r}: refs below {OF_RUNS}/ belong to runs; choose another name, such as 'uploads/x.png'")
    return name


def exact_ref(ref: str) -> str:
    """A ref under which to upload; `ValueError` also when it would be stored under another one. Readers and saves of
    workers may write a ref in several ways, but an upload must not replace a file that has another name.
    """
    name = upload_ref(ref)
    if name != ref:
        raise ValueError(
            f"{ref[:200]!r} would replace {name[:200]!r}: expected a ref without white space at its ends, backslashes, "
            "empty parts or '.' between slashes"
        )
    return name
