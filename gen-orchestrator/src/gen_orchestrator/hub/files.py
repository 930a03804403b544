"""Files of runs. Each attempt's files are separate, and only those of the winning attempt are visible.

    <files>/<owner>/<run>/<attempt>/<ref>      a record: size, digest, and which blob has the bytes.
                                               attempt 0: files that the caller sent with the run, `runs/<run>/inputs/...`
    blobs: runs/<owner>/<run>/<random>         each written once, in a folder or in a bucket

The bytes are written first. Then the record gets its name by one rename, if its attempt is still the current one: the
end of an attempt seals its files, and later writes have no effect. A ref under `runs/<run_id>/` is first looked up in
that run, then, like any other ref, in the last winning run that saved it.
"""

import base64
import binascii
import contextlib
import errno
import hashlib
import hmac
import mimetypes
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from gen_orchestrator.hub.blobs import Blobs, DamagedError, KeptFile
from gen_orchestrator.hub.receiving import Receiving
from gen_worker.files.local_outputs import clashes_named, normalize_output_ref

TOKEN_LIFE_S = 24 * 3600
MODELS_OF = "-"  # instead of a run: such a token requests models, and neither saves nor reads files
MAX_TOKEN_LENGTH = 2048
INPUTS = 0  # instead of an attempt


class NotLeadingError(Exception):
    """Only the next leader knows whether an attempt is still active."""


class FileToken(msgspec.Struct, frozen=True):
    """What a run's file token allows: saves of this attempt, reads of its owner's files."""

    owner: str
    run_id: str
    attempt: int


class FileTokens:
    """Signs and checks file tokens with a secret that all nodes share, so that a run that continues under the next
    leader can still save.

    A token is issued for every lease, so its format is the cheapest that is safe: the fields and a keyed BLAKE2 digest
    of them, both in URL-safe base64. (A JWT takes ten times as long, and nobody but us reads the token.)
    """

    def __init__(self, secret: bytes, now_s: Callable[[], float]) -> None:
        self._secret = secret
        self._now_s = now_s

    def issue(self, token: FileToken, life_s: int = TOKEN_LIFE_S) -> str:
        fields = _encode((token, int(self._now_s()) + life_s))
        return f"{_base64(fields)}.{_base64(self._sign(fields))}"

    def verify(self, text: str) -> FileToken | None:
        """What the token allows; None when it is not ours or has expired."""
        fields, _, signature = text.partition(".")
        if len(text) > MAX_TOKEN_LENGTH:
            return None
        try:
            signed, given = _unbase64(fields), _unbase64(signature)
        except (ValueError, binascii.Error):
            return None
        is_ours = hmac.compare_digest(self._sign(signed), given)
        if not is_ours or text != f"{_base64(signed)}.{_base64(given)}":  # accept one spelling only, because base64 has unused bits
            return None
        token, expires_s = _decode(signed)
        return token if expires_s > self._now_s() else None

    def _sign(self, fields: bytes) -> bytes:
        return hashlib.blake2b(fields, key=self._secret, digest_size=32, person=b"file token").digest()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[FileToken, int]).decode


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii", "replace"), altchars=b"-_", validate=True)


class Saving:
    """A file being saved. Call `write`, `keep`, `publish`, and in any case `drop`."""

    def __init__(self, blobs: Blobs, kept: KeptFile, record: Path, index: Path | None = None) -> None:
        """`kept` lacks its size and digest. `index` is an empty file whose time records when this file was published."""
        # before the blob, because files of a run are found by this folder when the run is deleted
        record.parent.mkdir(parents=True, exist_ok=True)
        self._blobs = blobs
        self._kept = kept
        self._record = record
        self._new = record.with_name(f".saving-{secrets.token_hex(6)}")
        self._index = index
        self._receiving = Receiving(blobs, kept.blob)
        self._is_published = False
        self._replaced = ""

    def write(self, data: bytes) -> None:
        self._receiving.write(data)

    def keep(self) -> None:
        """The file is complete: move it to the blob store, and write its record beside its name. Blocking; call it before `publish`."""
        digest = self._receiving.close()
        self._kept = msgspec.structs.replace(self._kept, size_bytes=self._receiving.size_bytes, sha256=digest)
        with self._new.open("xb") as file:
            file.write(msgspec.json.encode(self._kept))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # an unreadable record names no blob
            old = _record_at(self._record)
            self._replaced = old.blob if old is not None else ""

    def publish(self, *, create: bool) -> KeptFile | None:
        """Give the file its name; None when `create` finds an existing file. Takes microseconds: one rename."""
        if create:
            try:
                os.link(self._new, self._record)
            except FileExistsError:
                return None
        else:
            self._new.replace(self._record)
        self._is_published = True
        if self._index is not None:
            self._index.write_bytes(b"")
        return self._kept

    def drop(self) -> None:
        """Remove what was not published, or what was replaced. Blocking."""
        self._new.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the rest is deleted with its run
            if not self._is_published:
                self._receiving.abort()
                if self._receiving.is_kept:
                    self._blobs.delete(self._kept.blob)
            elif self._replaced:
                self._blobs.delete(self._replaced)


class RunFiles:
    """The files of all owners. `winner` returns the attempt of a run that counts (0: none yet), `is_open` whether an
    attempt is active, or raises `NotLeadingError`. Methods may raise `OSError`: records and bytes are on disks and
    servers.
    """

    def __init__(
        self,
        folder: Path,
        blobs: Blobs,
        winner: Callable[[str, str], int],
        now_s: Callable[[], float],
        is_open: Callable[[FileToken], bool] = lambda token: True,
    ) -> None:
        self.blobs = blobs
        self._folder = folder
        self._winner = winner
        self._now_s = now_s
        self.is_open = is_open

    def forget_halves(self) -> None:
        """Delete what saves have left whose process was killed; otherwise it stays as long as its run. Blocking."""
        self.blobs.forget_halves("runs", 0.0)

    def saving(self, token: FileToken, ref: str) -> Saving:
        """Begin to save a file of this attempt; `ValueError` for a ref that is not a path."""
        name = normalize_output_ref(ref)
        index = self._index(token.owner, name)
        index.parent.mkdir(parents=True, exist_ok=True)
        with clashes_named(ref):
            return self._saving(token, name, index.with_name(f"{index.name}.{token.run_id}"))

    def keep_input(self, owner: str, run_id: str, ref: str, source: BinaryIO) -> str:
        """Store a file that came with a run's request; returns its sha256."""
        saving = self._saving(FileToken(owner, run_id, INPUTS), normalize_output_ref(ref), None)
        try:
            while chunk := source.read(1 << 20):
                saving.write(chunk)
            saving.keep()
            kept = saving.publish(create=False)
            return kept.sha256 if kept is not None else ""
        finally:
            saving.drop()

    def find_own(self, token: FileToken, ref: str) -> KeptFile | None:
        """A file saved by this attempt; `DamagedError` when its record is unreadable."""
        try:
            return _record_at(self._attempt(token.owner, token.run_id, token.attempt) / normalize_output_ref(ref))
        except ValueError:
            return None

    def find(self, owner: str, ref: str) -> KeptFile | None:
        """A file that its owner may read: of the winning attempt, or sent with a run. `DamagedError` when its record is unreadable."""
        try:
            name = normalize_output_ref(ref)
        except ValueError:
            return None
        parts = name.split("/")
        named = [parts[1]] if len(parts) > 2 and parts[0] == "runs" else []
        if len(parts) > 3 and named and parts[2] == "inputs":
            sent = _record_at(self._attempt(owner, parts[1], INPUTS) / name)
            if sent is not None:
                return sent
        found = (self._of_winner(owner, run_id, name) for runs in (named, self._savers(owner, name)) for run_id in runs)
        return next((kept for kept in found if kept is not None), None)

    def runs_named(self, prefix: str) -> list[tuple[str, str]]:
        """Owners and ids of runs that have files here and whose id has this prefix. Blocking."""
        return [(path.parent.name, path.name) for path in self._folder.glob(f"*/{prefix}*") if path.is_dir()]

    def remove(self, owner: str, run_id: str) -> None:
        """Delete the files of all attempts of a run. A second call completes an interrupted one."""
        folder = self._attempt(owner, run_id, 0).parent
        if not folder.is_dir() or folder == self._folder:
            return
        self.blobs.delete_below(f"runs/{owner}/{run_id}")  # first, because this is called again as long as records exist
        for attempt in folder.iterdir():
            for path in attempt.rglob("*"):
                if path.is_file():
                    index = self._index(owner, path.relative_to(attempt).as_posix())
                    index.with_name(f"{index.name}.{run_id}").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _saving(self, token: FileToken, name: str, index: Path | None) -> Saving:
        record = self._attempt(token.owner, token.run_id, token.attempt) / name
        if record.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder of saved files", name)
        kept = KeptFile(
            ref=name,
            owner=token.owner,
            blob=f"runs/{token.owner}/{token.run_id}/{secrets.token_hex(16)}",
            size_bytes=0,
            sha256="",
            mime_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
            created_at=self._now_s(),
        )
        return Saving(self.blobs, kept, record, index)

    def _of_winner(self, owner: str, run_id: str, name: str) -> KeptFile | None:
        folder = self._attempt(owner, run_id, INPUTS).parent
        if not folder.is_dir():  # for a run that saved nothing there is no need to ask the store
            return None
        attempt = self._winner(owner, run_id)
        return _record_at(folder / str(attempt) / name) if attempt else None

    def _savers(self, owner: str, name: str) -> list[str]:
        """Runs that saved this ref, the latest first."""
        index = self._index(owner, name)
        found = list(index.parent.glob(f"{index.name}.*")) if index.parent.is_dir() else []
        return [path.name.partition(".")[2] for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)]

    def _attempt(self, owner: str, run_id: str, attempt: int) -> Path:
        for part in (owner, run_id):
            if not part or "/" in part or part.startswith("."):
                return self._folder / "nowhere"
        return self._folder / owner / run_id / str(attempt)

    def _index(self, owner: str, name: str) -> Path:
        return self._folder / owner / ".refs" / hashlib.sha256(name.encode()).hexdigest()


def _record_at(path: Path) -> KeptFile | None:
    """The content of a record; None when there is none, `DamagedError` when it is invalid."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    try:
        return msgspec.json.decode(data, type=KeptFile)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DamagedError(f"the record {path} is damaged: {len(data)} bytes that are not a file's record") from None
