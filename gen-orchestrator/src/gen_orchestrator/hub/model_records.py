"""Records of the model store, its errors, and the checks of what is pushed."""

from collections.abc import Iterable, Sequence

import msgspec

from gen_worker.content.listing import Listing, RemoteFile, checked_listing
from gen_worker.errors import FatalError
from gen_worker.refs import CozyRef, parse_model_ref
from gen_worker.sources.weight_files import is_unsafe

SHARED_OWNER = "hf"  # its models, mirrors of Hugging Face, are readable by all owners
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


def repo_of(text: str) -> CozyRef:
    """The repository and tag of `owner/repo:tag`; `PushError`."""
    try:
        ref = parse_model_ref(text)
    except ValueError as exc:
        raise PushError(str(exc)) from None
    if not isinstance(ref, CozyRef) or ref.digest is not None:
        raise PushError(f"{text[:100]!r}: expected owner/repo:tag")
    return ref


def listing_of(files: Sequence[ModelFile]) -> Listing:
    """The files of a push with normalized paths and digests; `PushError`."""
    try:
        listing = Listing("", tuple(RemoteFile(file.path, file.size_bytes, f"blake3:{file.blake3}") for file in files))
        return checked_listing(listing, "this push")
    except FatalError as exc:
        raise PushError(str(exc)) from None
