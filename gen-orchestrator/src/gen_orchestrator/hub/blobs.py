"""Where the bytes of files lie: blobs by key, in a folder of this machine or in a bucket.

A blob is complete from the moment that it has its key, and never changes. Blocking, any thread.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

PIECE_BYTES = 1 << 20


class BlobError(OSError):
    """The place of the blobs refused, or did not answer."""


class BlobInfo(msgspec.Struct, frozen=True):
    """What is known of a blob. `modified_at`: unix seconds."""

    key: str
    size_bytes: int
    modified_at: float


class Blobs(Protocol):
    """Keys are parts joined by `/`, of letters, digits, `.`, `_` and `-`; none begins with a dot. All methods may raise `OSError`."""

    def put(self, key: str, file: Path) -> None:
        """Keep a complete file's bytes under a key that is free. The file is taken: it may be gone afterwards."""
        ...

    def head(self, key: str) -> BlobInfo | None:
        """What is known of a blob; None where there is none."""
        ...

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to before `end`, both within its size, in pieces of a few MB. `FileNotFoundError` where there is none."""
        ...

    def path(self, key: str) -> Path | None:
        """The file that holds it, where blobs are files of this machine."""
        ...

    def delete(self, key: str) -> None:
        """Forget a blob; nothing happens where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Blobs whose keys lie below a prefix of whole parts, in no order."""
        ...


class FolderBlobs:
    """In a folder. Files that are put should lie on the same disk: then they are renamed, not copied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, file: Path) -> None:
        target = self._place(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.replace(target)
        except OSError:
            if file.stat().st_dev == target.parent.stat().st_dev:
                raise
            new = target.with_name(f".{target.name}.new")  # another disk: nobody sees half of it
            shutil.copyfile(file, new)
            new.replace(target)
            file.unlink()

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

    def path(self, key: str) -> Path | None:
        return self._place(key)

    def delete(self, key: str) -> None:
        self._place(key).unlink(missing_ok=True)

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
            raise ValueError(f"{key[:200]!r} is no key of a blob")
        return self._folder.joinpath(*parts)


def open_blobs(name: str, folder: Path) -> Blobs:
    """The folder where `name` is empty, else `s3://bucket[/prefix]`. `ValueError` for anything else, or where `obstore` is missing."""
    if not name:
        return FolderBlobs(folder)
    if not name.startswith("s3://") or not name.removeprefix("s3://").partition("/")[0]:
        raise ValueError(f"--blobs {name[:200]}: expected s3://bucket/prefix, or nothing for the data folder")
    try:
        from gen_orchestrator.hub.s3_blobs import S3Blobs
    except ImportError as exc:
        raise ValueError(f"--blobs {name[:200]} needs obstore ({exc}): pip install 'gen-orchestrator[s3]'") from None
    return S3Blobs.from_env(name)
