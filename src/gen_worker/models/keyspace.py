"""Which models a function may use, and which of them this call asks for."""

from collections.abc import Mapping

import msgspec

from gen_worker.authoring.signature import FunctionSpec, Injection
from gen_worker.errors import FatalError, FieldError, ValidationError
from gen_worker.injection import ModelRefSource
from gen_worker.names import did_you_mean, nearest
from gen_worker.refs import DEFAULT_DTYPES, ModelSpec

MAX_SHOWN_KEYS = 20


class Keyspace:
    """Model keys by function slug, as cozy.toml or the manifest declare them."""

    def __init__(self, models_by_function: Mapping[str, Mapping[str, ModelSpec]]) -> None:
        self._models = models_by_function

    def keys_of(self, function: str) -> Mapping[str, ModelSpec]:
        """The keys of one function."""
        return self._models.get(function, {})

    def refs(self) -> dict[str, tuple[str, ModelSpec]]:
        """Every declared ref, with one of its keys and its spec."""
        return {spec.ref: (key, spec) for table in self._models.values() for key, spec in table.items()}

    def select(self, spec: FunctionSpec, injection: Injection, payload: msgspec.Struct) -> tuple[str, ModelSpec]:
        """The key and model for one parameter of this call; `ValidationError` names the offending key and those allowed."""
        table = self.keys_of(spec.name)
        ref = injection.model_ref
        if ref.source is ModelRefSource.FIXED:
            if ref.key in table:
                return ref.key, table[ref.key]
            if ref.ref:
                return ref.key, ModelSpec(ref.ref, ref.dtypes or DEFAULT_DTYPES)
            raise FatalError(
                f"model key {ref.key!r} of '{injection.param}' is not configured.{did_you_mean(ref.key, table)} {_shown(table)}"
            )
        key = getattr(payload, ref.key)
        if not isinstance(key, str) or not key.strip():
            raise _refused(ref.key, f"field {ref.key!r} must name a model. {_shown(table)}", table, str(key))
        if key not in table:
            raise _refused(ref.key, f"no model {key[:100]!r}.{did_you_mean(key, table)} {_shown(table)}", table, key)
        return key, table[key]


def _refused(field: str, message: str, table: Mapping[str, ModelSpec], got: str) -> ValidationError:
    error = FieldError(f"/{field}", message, f"one of {', '.join(list(table)[:MAX_SHOWN_KEYS])}", got[:100], nearest(got, table))
    return ValidationError(message, errors=(error,))


def _shown(table: Mapping[str, ModelSpec]) -> str:
    if not table:
        return "No models are configured: declare them under [models] in cozy.toml."
    keys = sorted(table)
    more = f" and {len(keys) - MAX_SHOWN_KEYS} more" if len(keys) > MAX_SHOWN_KEYS else ""
    return f"Allowed keys: {', '.join(keys[:MAX_SHOWN_KEYS])}{more}."
