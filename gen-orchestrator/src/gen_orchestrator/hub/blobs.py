"""Stores the bytes of files: blobs by key, in a local folder or a bucket.

A blob is complete as soon as its key exists, and never changes. Blocking; callable from any thread.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from gen_orchestrator.hub.half_files import begin, forget
from gen_worker.net.writing_out import WritingOut

PIECE_BYTES = 1 << 20


class BlobError(OSError):
    """The blob store refused, or did not answer."""


class DamagedError(BlobError):
    """A stored file differs from what was put there: its record, or its bytes."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EIO, why)


class BlobInfo(msgspec.Struct, frozen=True):
    """Facts about a blob. `modified_at`: unix seconds."""

    key: str
    size_bytes: int
    modified_at: float


class KeptFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file's record: its owner, and the blob with its bytes. `sha256` in hex; `created_at`: unix seconds."""

    ref: str
    owner: str
    blob: str
    size_bytes: int
    sha256: str
    mime_type: str
    created_at: float


def checked(pieces: Iterator[bytes], kept: KeptFile) -> Iterator[bytes]:
    """The pieces of a whole file. If the bytes are not the stored ones, `DamagedError` replaces the last piece: a
    reader never gets all of a damaged file.
    """
    digest, held = hashlib.sha256(), b""
    for piece in pieces:
        digest.update(piece)
        if held:
            yield held
        held = piece
    if (found := digest.hexdigest()) != kept.sha256:
        raise DamagedError(f"{kept.blob} has the sha256 {found}; expected {kept.sha256}")
    if held:
        yield held


class BlobWriter(Protocol):
    """A blob that is written piece by piece, in constant memory. All methods may raise `OSError`."""

    def write(self, data: bytes) -> None:
        """The next bytes."""
        ...

    def close(self) -> None:
        """The blob is complete: it is safe on disk, and has its key."""
        ...

    def abort(self) -> None:
        """Abandon the blob and leave nothing. Does nothing after `close` or a first `abort`."""
        ...


class Blobs(Protocol):
    """Keys are parts joined by `/`, of letters, digits, `.`, `_` and `-`; none begins with a dot. All methods may raise
    `OSError`. `name` says where the blobs are, for people.
    """

    name: str

    def writer(self, key: str) -> BlobWriter:
        """Begin a blob under an unused key."""
        ...

    def head(self, key: str) -> BlobInfo | None:
        """Facts about a blob; None when it does not exist."""
        ...

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to before `end`, both within its size, in pieces of a few MB. `FileNotFoundError` when
        it does not exist, `DamagedError` when it ends before `end`.
        """
        ...

    def path(self, key: str) -> Path | None:
        """The local file of the blob, if blobs are local files."""
        ...

    def delete(self, key: str) -> None:
        """Delete a blob; does nothing when it does not exist."""
        ...

    def delete_below(self, prefix: str) -> None:
        """Delete all blobs whose keys are below a prefix of whole parts, and unfinished ones there."""
        ...

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Blobs whose keys are below a prefix of whole parts, in no order."""
        ...

    def forget_halves(self, prefix: str, before_s: float) -> None:
        """Delete unfinished blobs below a prefix whose writer died, as far as that can be told, and those that were not
        continued since a unix second.
        """
        ...


_HALF = ".half-"


class _FolderWriter:
    """A file under a temporary name, until it is complete and on the disk."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._new = target.with_name(f"{_HALF}{target.name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = begin(self._new)
        self._out = WritingOut(self._file)
        self._is_closed = False

    def write(self, data: bytes) -> None:
        self._out.write(data)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._new.replace(self._target)
        self._is_closed = True
        self._file.close()

    def abort(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):  # closing writes the rest, and there may be no room for it
            self._file.close()
        self._new.unlink(missing_ok=True)


class FolderBlobs:
    """Blobs in a local folder."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def writer(self, key: str) -> BlobWriter:
        return _FolderWriter(self._place(key))

    def head(self, key: str) -> BlobInfo | None:
        try:
            found = self._place(key).stat()
        except FileNotFoundError:
            return None
        return BlobInfo(key, found.st_size, found.st_mtime)

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        with self._place(key).open("rb") as file:
            file.seek(start)
            while start < end and (piece := file.read(min(PIECE_BYTES, end - start))):
                start += len(piece)
                yield piece
        if start < end:
            raise DamagedError(f"{self._place(key)} ends after {start} bytes; expected at least {end}")

    def path(self, key: str) -> Path | None:
        return self._place(key)

    def delete(self, key: str) -> None:
        self._place(key).unlink(missing_ok=True)

    def delete_below(self, prefix: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._place(prefix))

    def forget_halves(self, prefix: str, before_s: float) -> None:
        halves = list(self._place(prefix).rglob(f"{_HALF}*"))
        forget(halves)
        for path in halves:
            with contextlib.suppress(FileNotFoundError):  # it was completed meanwhile
                if path.stat().st_mtime < before_s:
                    path.unlink()

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        for folder, _, names in os.walk(self._place(prefix)):
            for name in names:
                if name.startswith("."):
                    continue
                path = Path(folder, name)
                info = self.head(path.relative_to(self._folder).as_posix())
                if info is not None:
                    yield info

    def _place(self, key: str) -> Path:
        parts = key.split("/")
        if not all(parts) or any(part.startswith(".") for part in parts):
            raise ValueError(f"{key[:200]!r} is not the key of a blob")
        return self._folder.joinpath(*parts)


def open_blobs(name: str, folder: Path, env: Mapping[str, str]) -> Blobs:
    """The folder if `name` is empty, else `s3://bucket[/prefix]`; `env` has the bucket's credentials. `ValueError` for
    anything else, or when `obstore` is missing.
    """
    if not name:
        return FolderBlobs(folder)
    if not name.startswith("s3://") or not name.removeprefix("s3://").partition("/")[0]:
        raise ValueError(f"--blobs {name[:200]}: expected s3://bucket/prefix, or nothing for the data folder")
    try:
        from gen_orchestrator.hub.s3_blobs import S3Blobs
    except ImportError as exc:
        raise ValueError(f"--blobs {name[:200]} needs obstore ({exc}): pip install 'gen-orchestrator[s3]'") from None
    return S3Blobs.from_env(name, env)
