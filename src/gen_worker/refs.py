"""Model refs: `hf:owner/repo[@revision]` and `cozy:owner/repo[:tag | @algo:digest]`, parsed and printed."""

import re
from collections.abc import Sequence
from typing import Self

import msgspec

DTYPES = ("fp16", "bf16", "fp8", "fp32", "int8", "int4")
DEFAULT_DTYPES = ("fp16", "bf16")
MAX_REF_LENGTH = 512

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?"
_REPO = re.compile(rf"{_NAME}/{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"(sha256|blake3):([0-9a-fA-F]{64})")  # the full digest, because the store looks for a folder with this name


class HuggingFaceRef(msgspec.Struct, frozen=True):
    """A repository on Hugging Face, at a branch, tag or commit."""

    repo_id: str
    revision: str | None = None

    def canonical(self) -> str:
        return f"hf:{self.repo_id}" + (f"@{self.revision}" if self.revision else "")


class CozyRef(msgspec.Struct, frozen=True):
    """A repository on the hub, at a tag, or pinned to a digest (`sha256:` or `blake3:` and 64 hexadecimal digits)."""

    owner: str
    repo: str
    tag: str = "latest"
    digest: str | None = None

    def repo_id(self) -> str:
        return f"{self.owner}/{self.repo}"

    def canonical(self) -> str:
        return f"cozy:{self.repo_id()}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


class ModelSpec(msgspec.Struct, frozen=True):
    """A model as declared by an author: a ref, and the allowed weight precisions in order of preference."""

    ref: str
    dtypes: tuple[str, ...] = DEFAULT_DTYPES

    @classmethod
    def checked(cls, ref: str, dtypes: Sequence[str] = DEFAULT_DTYPES) -> Self:
        """A spec whose ref was parsed and whose dtypes are known; `ValueError` names the invalid one."""
        parse_model_ref(ref)
        unknown = [name for name in dtypes if name not in DTYPES]
        if unknown:
            raise ValueError(f"invalid dtypes {', '.join(map(repr, unknown))}; allowed are {', '.join(DTYPES)}")
        return cls(ref, tuple(dtypes))


def parse_model_ref(text: str) -> HuggingFaceRef | CozyRef:
    """Parse a ref; `ValueError` names the text and the supported forms."""
    if len(text) > MAX_REF_LENGTH:
        raise ValueError(f"model ref of {len(text)} characters; at most {MAX_REF_LENGTH} are allowed")
    scheme, body = _split_scheme(text.strip())
    ref = _parse_hf(body) if scheme == "hf" else _parse_cozy(body)
    if ref is None:
        raise ValueError(
            f"cannot read model ref {text!r}; expected hf:owner/repo, hf:owner/repo@revision, "
            "cozy:owner/repo, cozy:owner/repo:tag, cozy:owner/repo@sha256:<64 hex digits> or @blake3:<64 hex digits>"
        )
    return ref


def canonical_ref(text: str) -> str:
    """The canonical spelling of a ref. Text that is not a ref is returned unchanged, because it may still serve as an id."""
    try:
        return parse_model_ref(text).canonical()
    except ValueError:
        return text


def _split_scheme(text: str) -> tuple[str, str]:
    scheme, colon, body = text.partition(":")
    match scheme.lower():
        case "hf" if colon:
            return "hf", body[3:] if body[:3].lower() == "hf:" else body  # older tools write `hf:hf:`
        case "cozy" if colon:
            return "cozy", body
        case _:
            return "cozy", text


def _parse_hf(body: str) -> HuggingFaceRef | None:
    repo_id, at, revision = body.partition("@")
    if not _REPO.fullmatch(repo_id) or ".." in body:
        return None
    if at and not _REVISION.fullmatch(revision):
        return None
    return HuggingFaceRef(repo_id, revision or None)


def _parse_cozy(body: str) -> CozyRef | None:
    name, at, digest = body.partition("@")
    tag = "latest"
    if at:
        found = _DIGEST.fullmatch(digest)
        if found is None:
            return None
        digest = f"{found[1]}:{found[2].lower()}"
    elif ":" in name:
        name, _, tag = name.partition(":")
        if not _TAG.fullmatch(tag) or ".." in tag:
            return None
    if not _REPO.fullmatch(name) or ".." in name:
        return None
    owner, _, repo = name.partition("/")
    return CozyRef(owner, repo, tag, digest or None)
