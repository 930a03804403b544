"""The functions in a release's manifest, read once."""

import hashlib

import msgspec

from gen_orchestrator.domain.runs import MAX_ATTEMPTS
from gen_orchestrator.domain.scaling import ScalingLimits
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.hub.registry_errors import NotFoundError
from gen_orchestrator.store.base import Release
from gen_worker.contract.manifest import FunctionEntry, Manifest
from gen_worker.durations import parse_duration
from gen_worker.refs import canonical_ref


def identity(endpoint: str, manifest: bytes, source: str, owner: str = "") -> tuple[str, str]:
    """A release's id and digest, by its content. `owner`: given when another owner has a release of the same content,
    because a release belongs to one owner.
    """
    digest = hashlib.blake2b(b"\0".join((manifest + source.encode(), *([owner.encode()] if owner else []))), digest_size=16).hexdigest()
    return f"{endpoint}-{digest[:12]}", digest


class Resolved(msgspec.Struct, frozen=True):
    """What a name points at now. `takes_bytes`: its payload has a field for bytes, which JSON represents as base64."""

    release_id: str
    tag: str
    entry: FunctionEntry
    settings: FunctionSettings
    takes_bytes: bool = False


class _Settings(msgspec.Struct, frozen=True):
    timeout_s: float = 0.0
    start_timeout_s: float = 0.0
    max_attempts: int = MAX_ATTEMPTS
    queue_max: int = 1000
    durable: bool = True
    memo: str = ""


def read_manifest(release: Release) -> Manifest:
    """Its manifest, completely checked; `NotFoundError` when the store has something else in its place."""
    try:
        manifest = msgspec.json.decode(release.manifest, type=Manifest)
        for entry in manifest.callables:
            settings_of(manifest, entry)
        scaling_of(manifest)
    except Exception as exc:  # noqa: BLE001 - whatever a damaged manifest does to its readers, it is one release that is not served
        raise NotFoundError(
            f"release {release.release_id} of {release.owner}/{release.endpoint} cannot be served: its manifest is damaged in the store "
            f"({exc}). Publish the same source again, or point its tags at another release (cozyctl promote)"
        ) from None
    return manifest


def scaling_of(manifest: Manifest) -> ScalingLimits:
    return msgspec.convert(manifest.scaling or {}, ScalingLimits)


def resolve_in(manifest: Manifest, release_id: str, tag: str, function: str) -> Resolved:
    entry = next(entry for entry in manifest.callables if entry.name == function)
    takes_bytes = b'"contentEncoding"' in msgspec.json.encode(entry.input_schema)
    return Resolved(release_id, tag, entry, settings_of(manifest, entry), takes_bytes)


def settings_of(manifest: Manifest, entry: FunctionEntry) -> FunctionSettings:
    known = {name: value for name, value in entry.resources.items() if name in _Settings.__struct_fields__}
    settings = msgspec.convert(known, _Settings)
    keys = {key: canonical_ref(spec.ref) for key, spec in manifest.models_of(entry.name).items()}
    return FunctionSettings(
        timeout_s=settings.timeout_s,
        start_timeout_s=settings.start_timeout_s,
        max_attempts=settings.max_attempts,
        queue_max=settings.queue_max,
        durable=settings.durable,
        memo_s=parse_duration(settings.memo) if settings.memo else 0,
        models=tuple(keys.get(key, canonical_ref(key)) for key in entry.required_keys),
        models_by_key=keys,
        model_fields=tuple(selector.field for selector in entry.payload_repo_selectors),
        is_session=manifest.is_websocket(entry.name),
    )
