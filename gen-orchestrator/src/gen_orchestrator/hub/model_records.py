"""Records of the model store, and its errors."""

from collections.abc import Iterable

import msgspec

from gen_worker.sources.weight_files import is_unsafe

ANY = "any"  # the precision of a version whose weights do not tell theirs


class PushError(ValueError):
    """A refused version; the message names the file and says why."""


class DamagedStoreError(OSError):
    """A record is unreadable, so it is unknown which blobs are needed."""


class UnknownModelError(LookupError):
    """No such repository, tag or version here."""


class NoVariantError(LookupError):
    """The tag has no version in a requested precision."""


def refusal_of(paths: Iterable[str]) -> str:
    """Why a push of these files is refused unless its author allows unsafe files; empty for files that run no code."""
    unsafe = [path for path in paths if is_unsafe(path) or path.endswith(".py")]
    if not unsafe:
        return ""
    more = f" (and {len(unsafe) - 1} more)" if len(unsafe) > 1 else ""
    return f"{unsafe[0]}{more}: such a file may run code when it is loaded; convert it to safetensors, or allow it (--allow-unsafe)"


class ModelFile(msgspec.Struct, frozen=True):
    """`blake3` in hexadecimal."""

    path: str
    size_bytes: int
    blake3: str


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` is the tree digest, `blake3:<hex>`; `precision` is that of most of its weights; `licence` names the licence file."""

    digest: str
    files: tuple[ModelFile, ...]
    precision: str = ANY
    message: str = ""
    licence: str = ""
    pushed_at: float = 0.0

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


class ModelTag(msgspec.Struct, frozen=True, kw_only=True):
    """Versions by precision, and when one of them last moved."""

    tag: str
    versions: dict[str, str]
    moved_at: float


class Repo(msgspec.Struct, frozen=True, kw_only=True):
    owner: str
    repo: str
    tags: tuple[ModelTag, ...]


class Collected(msgspec.Struct, frozen=True):
    """Blobs that were removed, and the bytes that this freed: none for blobs that workers on this disk have linked."""

    blobs: int
    freed_bytes: int
