"""The models of a release, for workers that join: which models they may use, by function and key, and which to fetch now."""

from gen_worker.contract.manifest import Manifest
from gen_worker.refs import canonical_ref
from gen_worker.wire.messages import ModelRefSpec, ModelsByKey, ReleaseConfig


def release_config(manifest: Manifest) -> ReleaseConfig | None:
    """The configuration that follows from a manifest; None for a release without models.

    Models that every run of a function needs are fetched ahead. Models that callers choose are fetched when they are
    chosen.
    """
    tables = {entry.name: manifest.models_of(entry.name) for entry in manifest.entries}
    if not any(tables.values()):
        return None
    supported: dict[str, None] = {}
    required: dict[str, None] = {}
    for entry in manifest.entries:
        table = tables[entry.name]
        supported |= dict.fromkeys(canonical_ref(spec.ref) for spec in table.values())
        required |= dict.fromkeys(canonical_ref(table[key].ref) for key in entry.required_keys if key in table)
    return ReleaseConfig(
        supported_refs=tuple(supported),
        required_refs=tuple(required),
        models_by_function={
            name: ModelsByKey({key: ModelRefSpec(spec.ref, tuple(spec.dtypes)) for key, spec in table.items()})
            for name, table in tables.items()
            if table
        },
    )
