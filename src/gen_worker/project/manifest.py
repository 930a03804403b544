"""The manifest: what discovery prints, an image bakes in, and a hub stores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.authoring.functions import ResourceRequirements
from gen_worker.authoring.signature import FunctionSpec, SignatureError
from gen_worker.injection import ModelRefSource
from gen_worker.names import did_you_mean
from gen_worker.project.cozy_toml import CozyToml
from gen_worker.project.schemas import json_schema, schema_sha256
from gen_worker.refs import ModelSpec

MAX_MANIFEST_BYTES = 16 << 20


class ManifestFunction(msgspec.Struct, frozen=True):
    """The part of a function entry that a reader needs; it tolerates entries with nothing more."""

    name: str
    python_name: str
    module: str
    resources: dict[str, Any] = msgspec.field(default_factory=dict)


class ManifestWebsocket(ManifestFunction, frozen=True):
    """A websocket handler."""


class Manifest(msgspec.Struct, frozen=True):
    """A manifest as read back. `websockets` is our addition; older readers skip it."""

    endpoint_name: str = ""
    functions: tuple[ManifestFunction, ...] = ()
    websockets: tuple[ManifestWebsocket, ...] = ()
    models: dict[str, ModelSpec | str] = msgspec.field(default_factory=dict)
    models_by_function: dict[str, dict[str, ModelSpec | str]] = msgspec.field(default_factory=dict)

    @property
    def modules(self) -> tuple[str, ...]:
        """Distinct modules to import, in order."""
        return tuple(dict.fromkeys(entry.module for entry in (*self.functions, *self.websockets)))

    def models_of(self, function: str) -> dict[str, ModelSpec]:
        """The keyspace of one function."""
        table = self.models_by_function.get(function) or self.models
        return {key: spec if isinstance(spec, ModelSpec) else ModelSpec(spec) for key, spec in table.items()}


def read_manifest(path: Path) -> Manifest:
    """Read a baked manifest; `ValueError` names the file and what is wrong with it."""
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"manifest {path} is larger than {MAX_MANIFEST_BYTES} bytes")
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as exc:
        raise ValueError(f"manifest {path} cannot be read: {exc.strerror}; bake it with: python -m gen_worker.discover > {path}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise ValueError(f"manifest {path} is not a manifest: {exc}; bake it again with: python -m gen_worker.discover > {path}") from None
    if not manifest.modules:
        raise ValueError(f"manifest {path} names no functions, so there is nothing to serve; mark one with @worker_function()")
    return manifest


def manifest_of(project: CozyToml, specs: Sequence[FunctionSpec]) -> dict[str, Any]:
    """The manifest of a project's functions, as plain JSON values; `SignatureError` for a model key that nobody declares."""
    for spec in specs:
        keyspace_of(project, spec)
    tasks = [spec for spec in specs if spec.kind == "function"]
    sockets = [spec for spec in specs if spec.kind == "websocket"]
    models = {spec.name: _models_json(keyspace_of(project, spec)) for spec in specs}
    manifest: dict[str, Any] = {
        "endpoint_name": project.endpoint_name,
        "functions": [_function_json(spec, project.function_settings.get(spec.name, {})) for spec in tasks],
    }
    if sockets:
        manifest["websockets"] = [_websocket_json(spec) for spec in sockets]
    if project.resources:
        manifest["resources"] = project.resources
    if any(models.values()):
        manifest["models_by_function"] = {name: table for name, table in models.items() if table}
    return manifest


def with_settings(spec: FunctionSpec, settings: Mapping[str, Any]) -> FunctionSpec:
    """A spec under the settings that cozy.toml, or a manifest's `resources`, gives its function."""
    limit, timeout_s = settings.get("max_concurrency"), settings.get("timeout_s")
    if limit:
        spec = msgspec.structs.replace(spec, resources=ResourceRequirements(int(limit)))
    if batch := settings.get("batch"):
        if spec.batch is None:
            raise SignatureError(
                spec.function,
                f"[functions.{spec.python_name}] sets batch, but the function takes one payload at a time",
                "write @worker_function(batch=Batch()) and take list[Input], or remove batch from cozy.toml",
            )
        spec = msgspec.structs.replace(spec, batch=msgspec.structs.replace(spec.batch, **batch))
    return msgspec.structs.replace(spec, timeout_ms=round(timeout_s * 1000)) if timeout_s else spec


def keyspace_of(project: CozyToml, spec: FunctionSpec) -> dict[str, ModelSpec]:
    """The model keys that a function may use: cozy.toml's, and those its own signature declares."""
    keyspace = dict(project.models_of(spec.name))
    for injection in spec.injections:
        ref = injection.model_ref
        if ref.source is ModelRefSource.PAYLOAD:
            if not keyspace:
                raise SignatureError(
                    spec.function,
                    f"'{injection.param}' is selected by the payload, but no models are declared",
                    'declare them in cozy.toml: [models] small = "hf:owner/repo"',
                )
            continue
        if ref.ref:
            try:
                keyspace[ref.key] = ModelSpec.checked(ref.ref, ref.dtypes or ModelSpec(ref.ref).dtypes)
            except ValueError as exc:
                raise SignatureError(spec.function, f"ModelRef of '{injection.param}': {exc}", "correct ref= or dtypes=") from None
        elif ref.key not in keyspace:
            known = ", ".join(keyspace) or "none"
            raise SignatureError(
                spec.function,
                f"'{injection.param}' needs the model key {ref.key!r}, which cozy.toml does not declare."
                f"{did_you_mean(ref.key, keyspace)} Declared keys: {known}",
                f'add to cozy.toml: [models] {ref.key} = "hf:owner/repo"',
            )
    return keyspace


def _function_json(spec: FunctionSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    payload = _schema(spec, spec.payload_type)
    output = _schema(spec, spec.output_type)
    incremental = spec.output_mode == "incremental"
    entry: dict[str, Any] = {
        "name": spec.name,
        "python_name": spec.python_name,
        "module": spec.module,
        "resources": {**spec.resources.to_dict(), **_batch_json(spec), **settings},
        "payload_type": _type_json(spec.payload_type),
        "payload_schema_sha256": schema_sha256(payload),
        "input_schema": payload,
        "output_mode": spec.output_mode,
        "output_type": _type_json(spec.output_type),
        "output_schema_sha256": schema_sha256(output),
        "output_schema": output,
        "incremental_output": incremental,
        "injection_json": [_injection_json(spec, index) for index in range(len(spec.injections))],
        "required_models": list(spec.required_models),
        "payload_repo_selectors": [{"field": field, "kind": "short_key"} for field in _selector_fields(spec)],
    }
    if incremental:
        entry["delta_type"] = entry["output_type"]
        entry["delta_schema_sha256"] = entry["output_schema_sha256"]
        entry["delta_output_schema"] = output
    return entry


def _batch_json(spec: FunctionSpec) -> dict[str, Any]:
    return {} if spec.batch is None else {"batch": {"max_size": spec.batch.max_size, "max_wait_ms": spec.batch.max_wait_ms}}


def _websocket_json(spec: FunctionSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "python_name": spec.python_name,
        "module": spec.module,
        "resources": spec.resources.to_dict(),
        "injection_json": [_injection_json(spec, index) for index in range(len(spec.injections))],
        "required_models": list(spec.required_models),
    }


def _injection_json(spec: FunctionSpec, index: int) -> dict[str, Any]:
    injection = spec.injections[index]
    ref = injection.model_ref
    return {
        "param": injection.param,
        "type": f"{injection.type.__module__}.{injection.type.__qualname__}" if isinstance(injection.type, type) else str(injection.type),
        "model_ref": {"source": ref.source.value, "key": ref.key, "ref": ref.ref or "", "dtypes": list(ref.dtypes)},
    }


def _selector_fields(spec: FunctionSpec) -> list[str]:
    return list(dict.fromkeys(i.model_ref.key for i in spec.injections if i.model_ref.source is ModelRefSource.PAYLOAD))


def _models_json(keyspace: Mapping[str, ModelSpec]) -> dict[str, Any]:
    return {key: {"ref": spec.ref, "dtypes": list(spec.dtypes)} for key, spec in keyspace.items()}


def _type_json(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"module": struct.__module__, "qualname": struct.__qualname__}


def _schema(spec: FunctionSpec, struct: type[msgspec.Struct]) -> dict[str, Any]:
    try:
        return json_schema(struct)
    except ValueError as exc:
        raise SignatureError(
            spec.function, str(exc), "use JSON types: str, int, float, bool, list, dict, Structs, Asset for files"
        ) from None
