"""Records of the model store, and its errors."""

import msgspec

ANY = "any"  # the precision of a version whose weights do not tell theirs


class PushError(ValueError):
    """A refused version; the message names the file and says why."""


class DamagedStoreError(OSError):
    """A record is unreadable, so it is unknown which blobs are needed."""


class UnknownModelError(LookupError):
    """No such repository, tag or version here."""


class NoVariantError(LookupError):
    """The tag has no version in a requested precision."""


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
