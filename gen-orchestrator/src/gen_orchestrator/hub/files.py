"""Files of runs. Each attempt's files are separate, and only those of the winning attempt are visible.

    <files>/<owner>/<run>/<attempt>/<ref>      a record: size, digest, and which blob has the bytes.
                                               attempt 0: what its caller sent with it, `runs/<run>/inputs/...`
    blobs: runs/<owner>/<run>/<random>         each written once, in a folder or in a bucket

The bytes come first, then the record gets its name, by one rename, if its attempt is still the present one: the end of an attempt is a
seal, and what comes later changes nothing. A ref under `runs/<run_id>/` is looked up by that run first, then, as any other ref, by the
run that saved it last and won.
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
MODELS_OF = "-"  # in the place of a run: such a token asks for models, and neither saves files nor reads them
MAX_TOKEN_LENGTH = 2048
INPUTS = 0  # in the place of an attempt


class NotLeadingError(Exception):
    """Whether an attempt goes on is for the next leader to say."""


class FileToken(msgspec.Struct, frozen=True):
    """What a run's file token allows: saves of this attempt, reads of its owner's files."""

    owner: str
    run_id: str
    attempt: int


class FileTokens:
    """Signs and checks file tokens, by a secret that all nodes share: a run that goes on under the next leader goes on saving.

    A token is issued for every lease, so it is the cheapest thing that holds: the fields and a keyed BLAKE2 digest of them, both in
    URL-safe base64. (A JWT takes ten times as long, and nobody but us reads it.)
    """

    def __init__(self, secret: bytes, now_s: Callable[[], float]) -> None:
        self._secret = secret
        self._now_s = now_s

    def issue(self, token: FileToken, life_s: int = TOKEN_LIFE_S) -> str:
        fields = _encode((token, int(self._now_s()) + life_s))
        return f"{_base64(fields)}.{_base64(self._sign(fields))}"

    def verify(self, text: str) -> FileToken | None:
        """What the token allows; None when it is none of ours, or over."""
        fields, _, signature = text.partition(".")
        if len(text) > MAX_TOKEN_LENGTH:
            return None
        try:
            signed, given = _unbase64(fields), _unbase64(signature)
        except (ValueError, binascii.Error):
            return None
        is_ours = hmac.compare_digest(self._sign(signed), given)
        if not is_ours or text != f"{_base64(signed)}.{_base64(given)}":  # one spelling: base64 has spare bits
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
    """A file on its way in. `write`, `keep`, `publish`, and in each case `drop`."""

    def __init__(self, blobs: Blobs, kept: KeptFile, record: Path, index: Path | None = None) -> None:
        """`kept` lacks its size and digest. `index` is an empty file whose time says when this was published."""
        record.parent.mkdir(parents=True, exist_ok=True)  # before the blob: what is removed with a run is found by this folder
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
        """It is complete: bring it to where blobs lie, and its record beside its name. Blocking, and to be called before `publish`."""
        digest = self._receiving.close()
        self._kept = msgspec.structs.replace(self._kept, size_bytes=self._receiving.size_bytes, sha256=digest)
        with self._new.open("xb") as file:
            file.write(msgspec.json.encode(self._kept))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # what cannot be read names no blob
            old = _record_at(self._record)
            self._replaced = old.blob if old is not None else ""

    def publish(self, *, create: bool) -> KeptFile | None:
        """Give it its name; None where `create` meets an existing file. Takes microseconds: one rename."""
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
        """Leave nothing of what was not published, or of what was replaced. Blocking."""
        self._new.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what is left goes with its run
            if not self._is_published:
                self._receiving.abort()
                if self._receiving.is_kept:
                    self._blobs.delete(self._kept.blob)
            elif self._replaced:
                self._blobs.delete(self._replaced)


class RunFiles:
    """The files of all owners. `winner` says which attempt of a run counts (0: none yet), `is_open` whether an attempt goes on, or
    `NotLeadingError`. Methods may raise `OSError`: records and bytes lie on disks and servers."""

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

    def saving(self, token: FileToken, ref: str) -> Saving:
        """Begin to save a file of this attempt; `ValueError` for a ref that is no path."""
        name = normalize_output_ref(ref)
        index = self._index(token.owner, name)
        index.parent.mkdir(parents=True, exist_ok=True)
        with clashes_named(ref):
            return self._saving(token, name, index.with_name(f"{index.name}.{token.run_id}"))

    def keep_input(self, owner: str, run_id: str, ref: str, source: BinaryIO) -> str:
        """Keep a file that came with a run's request; its sha256."""
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
        """A file that this attempt has saved; `DamagedError` where its record cannot be read."""
        try:
            return _record_at(self._attempt(token.owner, token.run_id, token.attempt) / normalize_output_ref(ref))
        except ValueError:
            return None

    def find(self, owner: str, ref: str) -> KeptFile | None:
        """A file that its owner may read: of the attempt that won, or sent with a run. `DamagedError` where its record cannot be read."""
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
        """Owners and ids of runs that have files here and whose id begins so. Blocking."""
        return [(path.parent.name, path.name) for path in self._folder.glob(f"*/{prefix}*") if path.is_dir()]

    def remove(self, owner: str, run_id: str) -> None:
        """Delete the files of all attempts of a run. A second call, or one after a call that was cut off, does the rest."""
        folder = self._attempt(owner, run_id, 0).parent
        if not folder.is_dir() or folder == self._folder:
            return
        self.blobs.delete_below(f"runs/{owner}/{run_id}")  # first: as long as records are there, this is asked for again
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
        if not folder.is_dir():  # of a run that saved nothing the store need not be asked
            return None
        attempt = self._winner(owner, run_id)
        return _record_at(folder / str(attempt) / name) if attempt else None

    def _savers(self, owner: str, name: str) -> list[str]:
        """Runs that saved this ref, the last one first."""
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
    """What a record says; None where there is none, `DamagedError` for what is no record."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    try:
        return msgspec.json.decode(data, type=KeptFile)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DamagedError(f"the record {path} is damaged: {len(data)} bytes that are no record of a file") from None
