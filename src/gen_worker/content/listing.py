"""The files of a model as a source lists them, checked before any of them reaches this disk."""

from collections.abc import Iterable

import msgspec

from gen_worker.errors import FatalError
from gen_worker.net.digests import checked_digest

MAX_FILES = 20_000
MAX_PATH_BYTES = 1024
MAX_PART_BYTES = 240  # common file systems allow 255; our suffixes need the rest


class RemoteFile(msgspec.Struct, frozen=True):
    """A file of a model. `digest` is `algorithm:hex`, or empty when the source gives none. `url` is set when the source
    already gives one.
    """

    path: str
    size_bytes: int
    digest: str = ""
    url: str = ""


class Listing(msgspec.Struct, frozen=True):
    """All files of one version of a model. `digest` names the version: a snapshot digest or a commit."""

    digest: str
    files: tuple[RemoteFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def safe_path(text: str) -> str:
    """A relative path with forward slashes; `ValueError` when it points outside the folder."""
    path = text.replace("\\", "/").lstrip("/")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(ord(char) < 32 for char in path):
        raise ValueError(f"file name {text[:120]!r}: expected a relative path without '..'")
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        raise ValueError(f"file name {text[:60]!r}...: too long")
    return path


def checked_listing(listing: Listing, model_id: str) -> Listing:
    """The listing with normalised paths and digests; `FatalError` says what is wrong with a hostile or broken one."""
    try:
        return _checked(listing)
    except ValueError as exc:
        raise FatalError(f"the file list of {model_id} cannot be used: {exc}") from None


def _checked(listing: Listing) -> Listing:
    if not listing.files:
        raise ValueError("it is empty")
    if len(listing.files) > MAX_FILES:
        raise ValueError(f"{len(listing.files)} files; at most {MAX_FILES} are taken")
    files = []
    for file in listing.files:
        if file.size_bytes < 0:
            raise ValueError(f"{file.path[:120]!r} has {file.size_bytes} bytes")
        digest = checked_digest(file.digest) if file.digest else ""
        files.append(RemoteFile(safe_path(file.path), file.size_bytes, digest, file.url))
    _refuse_clashes(file.path for file in files)
    return Listing(listing.digest, tuple(files))


def _refuse_clashes(paths: Iterable[str]) -> None:
    """Refuse duplicate names, also when they differ only in case, and a file where another path needs a folder."""
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        folded = path.casefold()
        if folded in seen:
            other = seen[folded]
            raise ValueError(f"{path!r} is listed twice" if other == path else f"{other!r} and {path!r} differ only by case")
        seen[folded] = path
        for end in (at for at, char in enumerate(folded) if char == "/"):
            folders.setdefault(folded[:end], path)
    for folder, path in folders.items():
        if folder in seen:
            raise ValueError(f"{seen[folder]!r} is a file, and a folder in {path!r}")
