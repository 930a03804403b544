"""Signed download URLs for models that this platform stores.

A worker gets URLs only for models that its release names, in the precisions that the release asks for.
"""

from collections.abc import Collection, Mapping

from gen_orchestrator.hub.model_records import NoVariantError, UnknownModelError
from gen_orchestrator.hub.models import ModelStore
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.hub.signed_urls import SignedUrls
from gen_worker.contract.manifest import Manifest
from gen_worker.refs import CozyRef, ModelSpec, canonical_ref, parse_model_ref
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

    def problems(self, manifest: Manifest, keys_elsewhere: Collection[str] = ()) -> list[str]:
        """Why workers will not get models of this release from here, in words, each once. `keys_elsewhere`: keys of models
        that come from elsewhere.
        """
        found: dict[str, None] = {}
        for entry in manifest.entries:
            for key, spec in manifest.models_of(entry.name).items():
                if key not in keys_elsewhere and (problem := self._problem(spec)):
                    found[problem] = None
        return list(found)

    def _problem(self, spec: ModelSpec) -> str:
        ref = parse_model_ref(spec.ref)
        if not isinstance(ref, CozyRef):
            return ""
        name = ref.canonical().removeprefix("cozy:")
        try:
            changed = self._store.changed_link(self._store.resolve(ref, spec.dtypes))
        except UnknownModelError:
            push = "" if ref.digest else f": cozyctl models push FOLDER {name}"
            return f"the model {ref.canonical()} is not stored on this platform{push}"
        except NoVariantError as exc:
            return f"the model {exc}"
        return f"the model {ref.canonical()} cannot be served, because {changed} has changed since its push by --link" if changed else ""

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
    """For the models of each release; nothing for an unknown release. `environment`: the variables that workers inherit,
    by which they may get models from elsewhere.
    """

    def __init__(self, addresses: ModelAddresses, registry: Registry, environment: Mapping[str, str]) -> None:
        self._addresses = addresses
        self._registry = registry
        self._has_another_hub = bool(environment.get("COZY_HUB_URL"))
        self._overridden = {each.partition("=")[0].strip() for each in environment.get("COZY_MODEL_OVERRIDES", "").split(",")}

    def resolve(self, release_id: str, model_id: str) -> ResolvedModel | None:
        try:
            return self._addresses.resolve(self._registry.manifest(release_id), model_id)
        except LookupError:
            return None

    def problems(self, release_id: str, keys_elsewhere: Collection[str] = ()) -> list[str]:
        """As of `ModelAddresses`; none where workers ask another hub."""
        if self._has_another_hub:
            return []
        try:
            return self._addresses.problems(self._registry.manifest(release_id), {*keys_elsewhere, *self._overridden})
        except LookupError:
            return []

    def all_of(self, release_id: str) -> dict[str, ResolvedModel]:
        try:
            return self._addresses.all_of(self._registry.manifest(release_id))
        except LookupError:
            return {}
