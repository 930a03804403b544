"""The manifest: what discovery prints, an image bakes in, a hub stores and a worker reads back.

The same Structs write and read it. Writing: the fields stand in the order of their declaration, and what is `UNSET` is left out, so equal
projects give equal bytes. Reading: an entry of a function may hold nothing but `name`, `python_name` and `module`; unknown keys are
skipped; a model may be a plain ref.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gen_worker.refs import ModelSpec

BAKED_MANIFEST = Path("/app/.cozy/manifest.json")  # in every image that a worker runs in
Schema = dict[str, Any]
ModelTable = dict[str, ModelSpec | str]


class TypeName(msgspec.Struct, frozen=True):
    """A Struct of the author's, by the module that holds it."""

    module: str
    qualname: str


class ModelRefEntry(msgspec.Struct, frozen=True):
    """What a parameter is filled with. `key`: of `[models]` (`fixed`), or the payload's field that names one (`payload`)."""

    source: str
    key: str
    ref: str = ""
    dtypes: tuple[str, ...] = ()


class InjectionEntry(msgspec.Struct, frozen=True):
    """A parameter that receives a model; `type` is its dotted class name."""

    param: str
    type: str
    model_ref: ModelRefEntry


class RepoSelector(msgspec.Struct, frozen=True):
    """A field of the payload that chooses a model by its key."""

    field: str
    kind: str = "short_key"


class FunctionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A function. `resources` holds its limits too: `max_concurrency`, `batch`, `timeout_s` and so on.

    Schemas are JSON Schema (2020-12) with `$defs`; their hashes are SHA-256 of the compact, key-sorted JSON, 64 hexadecimal digits.
    `delta_*` repeat `output_*` for a function that streams. `task`: what kind of function it is (`gen_worker.tasks`), where it says so;
    `description`: its docstring.
    """

    name: str
    python_name: str
    module: str
    resources: dict[str, Any] = {}
    payload_type: TypeName | None = None
    payload_schema_sha256: str = ""
    input_schema: Schema = {}
    output_mode: Literal["single", "incremental"] = "single"
    output_type: TypeName | None = None
    output_schema_sha256: str = ""
    output_schema: Schema = {}
    incremental_output: bool = False
    injection_json: tuple[InjectionEntry, ...] = ()
    required_keys: tuple[str, ...] = msgspec.field(name="required_models", default=())  # of `[models]`; the file says `required_models`
    payload_repo_selectors: tuple[RepoSelector, ...] = ()
    delta_type: TypeName | UnsetType | None = UNSET
    delta_schema_sha256: str | UnsetType = UNSET
    delta_output_schema: Schema | UnsetType = UNSET
    task: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class WebsocketEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A websocket handler, which has neither payload nor output."""

    name: str
    python_name: str
    module: str
    resources: dict[str, Any] = {}
    injection_json: tuple[InjectionEntry, ...] = ()
    required_keys: tuple[str, ...] = msgspec.field(name="required_models", default=())  # of `[models]`; the file says `required_models`


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A whole manifest. `websockets`, `scaling`, `env` and `secrets` are our additions, which older readers skip; `models` is of older
    writers, for all functions. `scaling` holds what cozy.toml says of `min` and `max` workers, and `idle_s`: for how long an idle one is
    kept. `secrets` are names of environment variables that the functions need, without their values;
    `env` are variables with their values, which a worker sets before it imports the functions."""

    endpoint_name: str = ""
    functions: tuple[FunctionEntry, ...] = ()
    websockets: tuple[WebsocketEntry, ...] | UnsetType = UNSET
    resources: dict[str, Any] | UnsetType = UNSET
    scaling: dict[str, Any] | UnsetType = UNSET
    env: dict[str, str] | UnsetType = UNSET
    secrets: tuple[str, ...] | UnsetType = UNSET
    models_by_function: dict[str, ModelTable] | UnsetType = UNSET
    models: ModelTable | UnsetType = UNSET

    @property
    def entries(self) -> tuple[FunctionEntry | WebsocketEntry, ...]:
        """Functions, then websocket handlers."""
        return (*self.functions, *(self.websockets or ()))

    @property
    def modules(self) -> tuple[str, ...]:
        """Distinct modules to import, in order."""
        return tuple(dict.fromkeys(entry.module for entry in self.entries))

    def models_of(self, function: str) -> dict[str, ModelSpec]:
        """The keyspace of one function, by its slug."""
        table = (self.models_by_function or {}).get(function) or self.models or {}
        return {key: spec if isinstance(spec, ModelSpec) else ModelSpec(spec) for key, spec in table.items()}
