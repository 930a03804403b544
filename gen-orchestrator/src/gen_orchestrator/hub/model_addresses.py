"""Signed download URLs for models that this platform stores.

A worker gets URLs only for models that its release names, in the precisions that the release asks for.
"""

from collections.abc import Mapping

from gen_orchestrator.hub.model_records import NoVariantError, UnknownModelError
from gen_orchestrator.hub.models import ModelStore
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.hub.signed_urls import SignedUrls
from gen_worker.contract.manifest import Manifest
from gen_worker.refs import CozyRef, canonical_ref, parse_model_ref
from gen_worker.wire.messages import ResolvedFile, ResolvedModel


class ModelAddresses:
    """Over one store of models. Blocking; any thread."""

    def __init__(self, store: ModelStore, urls: SignedUrls) -> None:
        self._store = store
        self._urls = urls

    def resolve(self, manifest: Manifest, model_id: str) -> ResolvedModel | None:
        """The files of a model with fresh URLs; None when the release does not name it, or it is not here."""
        wanted = canonical_ref(model_id)
        for ref, dtypes in _models_of(manifest).items():
            if ref == wanted:
                return self._resolved(ref, dtypes)
        return None

    def all_of(self, manifest: Manifest) -> dict[str, ResolvedModel]:
        """The models of a release that are here, by canonical ref."""
        found = {ref: self._resolved(ref, dtypes) for ref, dtypes in _models_of(manifest).items()}
        return {ref: model for ref, model in found.items() if model is not None}

    def _resolved(self, text: str, dtypes: tuple[str, ...]) -> ResolvedModel | None:
        ref = parse_model_ref(text)
        if not isinstance(ref, CozyRef):
            return None
        try:
            version = self._store.resolve(ref, dtypes)
        except (UnknownModelError, NoVariantError):
            return None
        if self._store.changed_link(version):  # no URL could be used
            return None
        files = [
            ResolvedFile(file.path, file.size_bytes, file.blake3, self._urls.sign(f"/v1/blobs/blake3:{file.blake3}"))
            for file in version.files
        ]
        return ResolvedModel(version.digest, tuple(files))


def _models_of(manifest: Manifest) -> Mapping[str, tuple[str, ...]]:
    return {canonical_ref(spec.ref): tuple(spec.dtypes) for entry in manifest.entries for spec in manifest.models_of(entry.name).values()}


class AddressesByRelease:
    """For the models of each release; nothing for an unknown release."""

    def __init__(self, addresses: ModelAddresses, registry: Registry) -> None:
        self._addresses = addresses
        self._registry = registry

    def resolve(self, release_id: str, model_id: str) -> ResolvedModel | None:
        try:
            return self._addresses.resolve(self._registry.manifest(release_id), model_id)
        except LookupError:
            return None

    def all_of(self, release_id: str) -> dict[str, ResolvedModel]:
        try:
            return self._addresses.all_of(self._registry.manifest(release_id))
        except LookupError:
            return {}
