"""Requests to a hub about models, and its answers.

POST /api/v1/public/models/request                   ModelRequest -> ModelAnswer, or 202 while the hub fetches it: ask again
POST /api/v1/repos/{owner}/{repo}/resolve_artifact   ArtifactRequest -> ModelAnswer
GET  /api/v1/repos/{owner}/{repo}/resolve?tag=       -> ResolvedTag; for older hubs, which do not know resolve_artifact
GET  /api/v1/repos/{owner}/{repo}/snapshots/{digest}/manifest, /api/v1/objects/{digest}/manifest   -> SnapshotManifest
"""

import msgspec


class HubFile(msgspec.Struct, frozen=True):
    """One file: a relative path, bytes, blake3 in hexadecimal, and a URL that expires. Older hubs use `size`, `digest`
    or `blake3_hex`.
    """

    path: str
    url: str
    size_bytes: int | None = None
    blake3: str | None = None
    size: int | None = None
    digest: str | None = None
    blake3_hex: str | None = None

    @property
    def bytes(self) -> int | None:
        """Its size in bytes, from either field."""
        return self.size_bytes if self.size_bytes is not None else self.size

    @property
    def blob(self) -> str | None:
        """Its digest, from any of the fields."""
        return next((name for name in (self.blake3, self.digest, self.blake3_hex) if name is not None), None)


class SnapshotManifest(msgspec.Struct, frozen=True):
    """A version of a repository. Older hubs list `root_files` and `objects`: folders by their digests, with their own manifests."""

    files: list[HubFile] | None = None
    root_files: list[HubFile] | None = None
    objects: dict[str, str] | None = None


class ModelAnswer(msgspec.Struct, frozen=True):
    """A model that was found: its version and its files."""

    snapshot_digest: str | None = None
    snapshot_manifest: SnapshotManifest | None = None


class ResolvedTag(msgspec.Struct, frozen=True):
    """The version that a tag points at."""

    digest: str | None = None
    snapshot_digest: str | None = None


class ModelConstraints(msgspec.Struct, frozen=True):
    """Which forms of a model can be used. `dtypes`: best first."""

    dtypes: tuple[str, ...]
    file_types: tuple[str, ...] = ("safetensors",)
    file_layouts: tuple[str, ...] = ("diffusers",)


class ModelRequest(msgspec.Struct, frozen=True):
    """Request a public model, which the hub may have to fetch first."""

    model_ref: str
    constraints: ModelConstraints
    include_urls: bool = True


class ArtifactPreferences(msgspec.Struct, frozen=True):
    """What to prefer when a repository has several forms."""

    quantization_preference: tuple[str, ...]
    file_type_preference: tuple[str, ...] = ("safetensors",)
    file_layout_preference: tuple[str, ...] = ("diffusers",)


class ArtifactRequest(msgspec.Struct, frozen=True):
    """Ask for the version and files that a tag points at."""

    tag: str
    preferences: ArtifactPreferences
    include_urls: bool = True
    capabilities: dict[str, str] = {}
