"""Makes a project's manifest from its functions, and reads it back; `contract/manifest.py` has its shape."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from gen_worker.authoring.functions import ResourceRequirements
from gen_worker.authoring.signature import FunctionSpec, SignatureError
from gen_worker.contract.manifest import (
    FunctionEntry,
    InjectionEntry,
    Manifest,
    ModelRefEntry,
    ModelTable,
    RepoSelector,
    TypeName,
    WebsocketEntry,
)
from gen_worker.injection import ModelRefSource
from gen_worker.names import did_you_mean
from gen_worker.project.cozy_toml import CozyToml
from gen_worker.project.schemas import json_schema, schema_sha256, with_choices
from gen_worker.refs import ModelSpec

MAX_MANIFEST_BYTES = 16 << 20


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
        raise ValueError(f"manifest {path} contains no functions, so there is nothing to serve; mark one with @worker_function()")
    return manifest


def manifest_of(project: CozyToml, specs: Sequence[FunctionSpec]) -> Manifest:
    """The manifest of a project's functions; `SignatureError` for an undeclared model key."""
    keyspaces = {spec.name: keyspace_of(project, spec) for spec in specs}
    sockets = tuple(_websocket_entry(spec, project.function_settings.get(spec.name, {})) for spec in specs if spec.kind == "websocket")
    models: dict[str, ModelTable] = {name: dict(keyspace) for name, keyspace in keyspaces.items() if keyspace}
    return Manifest(
        endpoint_name=project.endpoint_name,
        functions=tuple(
            function_entry(spec, project.function_settings.get(spec.name, {}), keyspaces[spec.name])
            for spec in specs
            if spec.kind == "function"
        ),
        websockets=sockets or UNSET,
        resources=project.resources or UNSET,
        scaling=project.scaling or UNSET,
        env=project.env or UNSET,
        secrets=project.secrets or UNSET,
        models_by_function=models or UNSET,
    )


def with_settings(spec: FunctionSpec, settings: Mapping[str, Any]) -> FunctionSpec:
    """A spec with the settings of its function from cozy.toml, or from a manifest's `resources`."""
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
    """The model keys that a function may use: those of cozy.toml, and those declared in its own signature."""
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


def function_entry(spec: FunctionSpec, settings: Mapping[str, Any], keyspace: Mapping[str, ModelSpec]) -> FunctionEntry:
    """A function's entry in a manifest. `settings` are cozy.toml's for it; `keyspace` are the models that its payload may select."""
    payload, output = _schema(spec, spec.payload_type), _schema(spec, spec.output_type)
    name = payload["$ref"].rsplit("/", 1)[1]
    payload["$defs"][name] = with_choices(payload["$defs"][name], spec, list(keyspace))
    output_type, output_sha256 = _type_name(spec.output_type), schema_sha256(output)
    streams = spec.output_mode == "incremental"
    batch = {} if spec.batch is None else {"batch": {"max_size": spec.batch.max_size, "max_wait_ms": spec.batch.max_wait_ms}}
    return FunctionEntry(
        name=spec.name,
        python_name=spec.python_name,
        module=spec.module,
        resources={**spec.resources.to_dict(), **batch, **settings},
        payload_type=_type_name(spec.payload_type),
        payload_schema_sha256=schema_sha256(payload),
        input_schema=payload,
        output_mode=spec.output_mode,
        output_type=output_type,
        output_schema_sha256=output_sha256,
        output_schema=output,
        incremental_output=streams,
        injection_json=_injections(spec),
        required_keys=spec.required_keys,
        payload_repo_selectors=tuple(RepoSelector(field) for field in spec.selecting_fields),
        delta_type=output_type if streams else UNSET,
        delta_schema_sha256=output_sha256 if streams else UNSET,
        delta_output_schema=output if streams else UNSET,
        task=spec.task or UNSET,
        description=inspect.getdoc(spec.function) or UNSET,
    )


def _websocket_entry(spec: FunctionSpec, settings: Mapping[str, Any]) -> WebsocketEntry:
    return WebsocketEntry(
        name=spec.name,
        python_name=spec.python_name,
        module=spec.module,
        resources={**spec.resources.to_dict(), **settings},
        injection_json=_injections(spec),
        required_keys=spec.required_keys,
        description=inspect.getdoc(spec.function) or UNSET,
    )


def _injections(spec: FunctionSpec) -> tuple[InjectionEntry, ...]:
    return tuple(
        InjectionEntry(each.param, _dotted(each.type), ModelRefEntry(ref.source.value, ref.key, ref.ref or "", tuple(ref.dtypes)))
        for each in spec.injections
        for ref in [each.model_ref]
    )


def _dotted(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)


def _type_name(struct: type[msgspec.Struct]) -> TypeName:
    return TypeName(struct.__module__, struct.__qualname__)


def _schema(spec: FunctionSpec, struct: type[msgspec.Struct]) -> dict[str, Any]:
    try:
        return json_schema(struct)
    except ValueError as exc:
        raise SignatureError(
            spec.function, str(exc), "use JSON types: str, int, float, bool, list, dict, Structs, Asset for files"
        ) from None
