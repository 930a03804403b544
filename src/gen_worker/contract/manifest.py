"""The manifest: printed by discovery, baked into an image, stored by a hub and read back by a worker.

The same Structs write and read it. Writing: fields appear in declaration order and `UNSET` ones are left out, so equal
projects give equal bytes. Reading: an entry of a function may contain just `name`, `python_name` and `module`; unknown
keys are ignored; a model may be a plain ref.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gen_worker.refs import ModelSpec

BAKED_MANIFEST = Path("/app/.cozy/manifest.json")  # in every worker image
Schema = dict[str, Any]
ModelTable = dict[str, ModelSpec | str]


class TypeName(msgspec.Struct, frozen=True):
    """A Struct of the author's, with the module that defines it."""

    module: str
    qualname: str


class ModelRefEntry(msgspec.Struct, frozen=True):
    """Which model a parameter receives. `key`: a key in `[models]` (`fixed`), or the payload's field that names one (`payload`)."""

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
    """A payload field that chooses a model by its key."""

    field: str
    kind: str = "short_key"


class FunctionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A function. `resources` also contains its limits: `max_concurrency`, `batch`, `timeout_s` and so on.

    Schemas are JSON Schema (2020-12) with `$defs`; their hashes are SHA-256 of the compact JSON with sorted keys, 64
    hexadecimal digits. `delta_*` repeat `output_*` for a function that streams. `task`: what kind of function it is
    (`gen_worker.tasks`), if declared. `description`: its docstring.
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
    # keys of `[models]`; the file calls them `required_models`
    required_keys: tuple[str, ...] = msgspec.field(name="required_models", default=())
    payload_repo_selectors: tuple[RepoSelector, ...] = ()
    delta_type: TypeName | UnsetType | None = UNSET
    delta_schema_sha256: str | UnsetType = UNSET
    delta_output_schema: Schema | UnsetType = UNSET
    task: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class WebsocketEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A websocket handler, which has no payload and no output. `description`: its docstring."""

    name: str
    python_name: str
    module: str
    resources: dict[str, Any] = {}
    injection_json: tuple[InjectionEntry, ...] = ()
    # keys of `[models]`; the file calls them `required_models`
    required_keys: tuple[str, ...] = msgspec.field(name="required_models", default=())
    description: str | UnsetType = UNSET


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A whole manifest. `websockets`, `scaling`, `env` and `secrets` are our additions, which older readers ignore.
    `models` comes from older writers and applies to all functions. `scaling` holds cozy.toml's `min` and `max` workers,
    and `idle_s`, the seconds for which an idle one is kept. `secrets` are names of environment variables that the
    functions need, without values. `env` are variables with values, which a worker sets before it imports the
    functions.
    """

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
    def callables(self) -> tuple[FunctionEntry, ...]:
        """Functions, and websocket handlers as functions without payload and output: for things that both have, such as tags."""
        sockets = [
            FunctionEntry(
                name=each.name,
                python_name=each.python_name,
                module=each.module,
                resources=each.resources,
                injection_json=each.injection_json,
                required_keys=each.required_keys,
                description=each.description,
            )
            for each in self.websockets or ()
        ]
        return (*self.functions, *sockets)

    def is_websocket(self, name: str) -> bool:
        """Whether this is a websocket handler."""
        return any(each.name == name for each in self.websockets or ())

    @property
    def modules(self) -> tuple[str, ...]:
        """Distinct modules to import, in order."""
        return tuple(dict.fromkeys(entry.module for entry in self.entries))

    def models_of(self, function: str) -> dict[str, ModelSpec]:
        """The keyspace of one function, by its slug."""
        table = (self.models_by_function or {}).get(function) or self.models or {}
        return {key: spec if isinstance(spec, ModelSpec) else ModelSpec(spec) for key, spec in table.items()}
