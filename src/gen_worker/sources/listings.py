"""Converts what a scheduler or caller says about a model's files into the downloaders' format."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gen_worker.content.listing import Listing, RemoteFile
from gen_worker.errors import ValidationError
from gen_worker.refs import canonical_ref
from gen_worker.wire.messages import ResolvedModel


def listing_of(resolved: ResolvedModel) -> Listing:
    """The files of a resolved model."""
    files = tuple(RemoteFile(file.path, file.size_bytes, file.blake3, file.url) for file in resolved.files)
    return Listing(resolved.snapshot_digest, files)


def listings_of(resolved: Mapping[str, ResolvedModel] | None) -> dict[str, Listing]:
    """Listings by canonical ref."""
    return {canonical_ref(ref): listing_of(model) for ref, model in (resolved or {}).items()}


def read_listings(given: Mapping[str, Any] | None) -> dict[str, Listing]:
    """The same from plain JSON values; `ValidationError` names the model whose entry is invalid."""
    found = {}
    for ref, value in (given or {}).items():
        try:
            found[canonical_ref(ref)] = listing_of(msgspec.convert(value, ResolvedModel))
        except msgspec.ValidationError as exc:
            raise ValidationError(f"resolved_cozy_models_by_id of {ref[:200]!r}: {exc}") from None
    return found
