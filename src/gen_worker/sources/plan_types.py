"""Input and output types of file planning."""

from collections.abc import Mapping
from typing import Any

import msgspec

MAX_MODEL_BYTES = 30_000_000_000


class PlanError(ValueError):
    """The repository has no set of files that may be used; the message says which setting would change that."""


class NotKnownError(Exception):
    """The plan depends on the content of these files. Used between the planners only: `plan_files` answers with `Needs`."""

    def __init__(self, documents: tuple[str, ...] = (), headers: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.documents = documents
        self.headers = headers


class SelectionPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may be taken, according to COZY_HF_* and the model's `dtypes`.

    `precisions` in order of preference. `takers`: the classes that functions load this model as, with their module, for
    example `transformers.models.auto.modeling_auto.AutoModel`. Empty: unknown; then the repository itself decides.
    """

    precisions: tuple[str, ...] = ("fp16", "bf16")
    components: tuple[str, ...] = ()
    optional_components: bool = False
    root_json: bool = False
    full_repo: bool = False
    max_bytes: int = MAX_MODEL_BYTES
    takers: tuple[str, ...] = ()


class Knowledge(msgspec.Struct, frozen=True):
    """What is known about a repository. `documents` are parsed JSON files by path. `precisions` are those of
    safetensors files by path; None for a file whose weights have no precision that we name.
    """

    sizes: Mapping[str, int]
    documents: Mapping[str, Any] = {}
    precisions: Mapping[str, str | None] = {}

    def object(self, path: str) -> dict[str, Any]:
        """A JSON object whose keys are names; `PlanError` names a file that contains something else."""
        found = self.document(path)
        if not isinstance(found, dict):
            raise PlanError(f"{path} is not a JSON object; it contains {_kind(found)}")
        return found

    def document(self, path: str) -> Any:
        if path not in self.documents:
            raise NotKnownError(documents=(path,))
        return self.documents[path]

    def precision(self, path: str) -> str | None:
        if path not in self.precisions:
            raise NotKnownError(headers=(path,))
        return self.precisions[path]


class Needs(msgspec.Struct, frozen=True):
    """What planning must know before it can decide."""

    documents: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


class Component(msgspec.Struct, frozen=True):
    """A part of the model: its files, and the precision of its weights (None when it has none)."""

    name: str
    files: tuple[str, ...]
    precision: str | None = None


class FilePlan(msgspec.Struct, frozen=True):
    """The files to fetch. `kind` says what the repository is; `left_out` names unsafe weights beside those taken."""

    kind: str
    components: tuple[Component, ...]
    left_out: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path for component in self.components for path in component.files))


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null", bool: "true or false"}.get(type(value), "a number")
