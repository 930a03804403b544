"""Which models a function may use, and which of them a call asks for."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gen_worker.authoring.signature import FunctionSpec, Injection
from gen_worker.errors import FatalError, FieldError, ValidationError
from gen_worker.injection import ModelRefSource
from gen_worker.names import did_you_mean, nearest
from gen_worker.refs import DEFAULT_DTYPES, ModelSpec, canonical_ref

MAX_SHOWN_KEYS = 20


class Keyspace:
    """Model keys by function slug, as declared by cozy.toml, the manifest or a release. `allowed` restricts them to
    these canonical refs.
    """

    def __init__(self, models_by_function: Mapping[str, Mapping[str, ModelSpec]], allowed: frozenset[str] | None = None) -> None:
        self._models = models_by_function
        self._allowed = allowed

    def adopted(
        self,
        models_by_function: Mapping[str, Mapping[str, ModelSpec]],
        supported_refs: Iterable[str],
        ref_by_key: Mapping[str, str],
        functions: Iterable[str],
    ) -> "Keyspace":
        """This keyspace with the configuration of a release applied.

        A table by function replaces ours and is the allow-list. `supported_refs` restricts what is declared and never
        extends it; empty or `*` restricts nothing. `ref_by_key` is the older flat table, for manifests that declare no
        models.
        """
        table = models_by_function or self._models
        if not any(table.values()) and ref_by_key:
            flat = {key: ModelSpec(ref) for key, ref in ref_by_key.items()}
            table = dict.fromkeys(functions, flat)
        supported = [ref for ref in supported_refs if ref]
        if not supported or "*" in supported:
            return Keyspace(table)
        return Keyspace(table, frozenset(canonical_ref(ref) for ref in supported))

    def keys_of(self, function: str) -> Mapping[str, ModelSpec]:
        """The keys of one function."""
        return self._models.get(function, {})

    def refs(self) -> dict[str, tuple[str, ModelSpec]]:
        """Every declared ref, with one of its keys and its spec."""
        return {spec.ref: (key, spec) for table in self._models.values() for key, spec in table.items()}

    def find(self, name: str) -> tuple[str, ModelSpec] | None:
        """The key and spec of a model, given by its key or by its ref in any form."""
        by_ref = {canonical_ref(ref): found for ref, found in self.refs().items()}
        by_key = {key: (key, spec) for key, spec in by_ref.values()}
        return by_key.get(name) or by_ref.get(canonical_ref(name))

    def find_ref(self, spec: FunctionSpec, ref: str) -> tuple[str, ModelSpec]:
        """A model of this function by its ref; `FatalError` when the function may not use it."""
        for key, model in self.keys_of(spec.name).items():
            if canonical_ref(model.ref) == canonical_ref(ref):
                return self._permitted(key, model)
        raise FatalError(f"model {ref[:200]!r} is not one that {spec.name!r} may use. {_shown(self.keys_of(spec.name))}")

    def takers(self, functions: Iterable[FunctionSpec], key: str) -> list[tuple[FunctionSpec, Injection]]:
        """The parameters that take the model of a key, one for each type."""
        found: dict[Any, tuple[FunctionSpec, Injection]] = {}
        for spec in functions:
            for injection in spec.injections:
                ref = injection.model_ref
                # A payload reference's key is a field's name, which may happen to equal a model's key.
                if ref.key == key if ref.source is ModelRefSource.FIXED else key in self.keys_of(spec.name):
                    found.setdefault(injection.type, (spec, injection))
        return list(found.values())

    def select(self, spec: FunctionSpec, injection: Injection, payload: msgspec.Struct) -> tuple[str, ModelSpec]:
        """The key and model for one parameter of this call; `ValidationError` names the invalid key and the allowed ones."""
        table = self.keys_of(spec.name)
        ref = injection.model_ref
        if ref.source is ModelRefSource.FIXED:
            if ref.key in table:
                return self._permitted(ref.key, table[ref.key])
            if ref.ref:
                return self._permitted(ref.key, ModelSpec(ref.ref, ref.dtypes or DEFAULT_DTYPES))
            raise FatalError(
                f"model key {ref.key!r} of '{injection.param}' is not configured.{did_you_mean(ref.key, table)} {_shown(table)}"
            )
        key = getattr(payload, ref.key)
        if not isinstance(key, str) or not key.strip():
            raise _refused(ref.key, f"field {ref.key!r} must name a model. {_shown(table)}", table, str(key))
        if key not in table:
            raise _refused(ref.key, f"no model {key[:100]!r}.{did_you_mean(key, table)} {_shown(table)}", table, key)
        return self._permitted(key, table[key])

    def _permitted(self, key: str, spec: ModelSpec) -> tuple[str, ModelSpec]:
        if self._allowed is not None and canonical_ref(spec.ref) not in self._allowed:
            raise FatalError(f"model {key!r} ({spec.ref}) is not allowed in this release; its supported models do not name it")
        return key, spec


def _refused(field: str, message: str, table: Mapping[str, ModelSpec], got: str) -> ValidationError:
    error = FieldError(f"/{field}", message, f"one of {', '.join(list(table)[:MAX_SHOWN_KEYS])}", got[:100], nearest(got, table))
    return ValidationError(message, errors=(error,))


def _shown(table: Mapping[str, ModelSpec]) -> str:
    if not table:
        return "No models are configured: declare them under [models] in cozy.toml."
    keys = sorted(table)
    more = f" and {len(keys) - MAX_SHOWN_KEYS} more" if len(keys) > MAX_SHOWN_KEYS else ""
    return f"Allowed keys: {', '.join(keys[:MAX_SHOWN_KEYS])}{more}."
