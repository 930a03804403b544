"""Payload and output Structs to JSON Schema, with the bounds that Clamp declares."""

import hashlib
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from gen_worker.authoring.constraints import Clamp

Schema = dict[str, Any]


def json_schema(struct: type[msgspec.Struct]) -> Schema:
    """JSON Schema (2020-12, with `$defs`) of a Struct; `ValueError` names a type that JSON cannot carry."""
    refs, components = schema_components([struct], "#/$defs/{name}")
    return {**refs[0], "$defs": components}


def schema_components(structs: Sequence[type[msgspec.Struct]], ref_template: str) -> tuple[list[Schema], dict[str, Schema]]:
    """A `$ref` for each Struct, and the named schemas that they lead to. Equal names in different modules are kept apart."""
    everything = list(dict.fromkeys(found for struct in structs for found in _reachable(struct)))
    try:
        refs, components = msgspec.json.schema_components(everything, ref_template=ref_template)
    except (TypeError, NotImplementedError) as exc:
        names = ", ".join(struct.__name__ for struct in structs)
        raise ValueError(f"{names} cannot be described in JSON Schema: {exc}") from exc
    by_struct = dict(zip(everything, refs, strict=True))
    for each, ref in by_struct.items():
        schema = components[ref["$ref"].rsplit("/", 1)[1]]
        hints = typing.get_type_hints(each, include_extras=True)
        for field in msgspec.structs.fields(each):
            if field.encode_name in schema.get("properties", {}):
                _publish_clamps(hints[field.name], schema["properties"][field.encode_name])
    return [by_struct[struct] for struct in structs], components


def compact_json(value: Any) -> bytes:
    """Compact JSON with sorted keys: the bytes that hashes are taken of."""
    return msgspec.json.encode(value, order="sorted")


def schema_sha256(schema: Schema) -> str:
    return hashlib.sha256(compact_json(schema)).hexdigest()


def _reachable(struct: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    found: list[type[msgspec.Struct]] = []

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
            if annotation not in found:
                found.append(annotation)
                for hint in typing.get_type_hints(annotation, include_extras=True).values():
                    visit(hint)
            return
        for arg in get_args(annotation):
            visit(arg)

    visit(struct)
    return found


def _publish_clamps(annotation: Any, schema: Schema) -> None:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extras = get_args(annotation)
        _publish_clamps(inner, schema)
        for clamp in (extra for extra in extras if isinstance(extra, Clamp)):
            for branch in _numeric_branches(schema):
                branch["minimum"], branch["maximum"] = float(clamp.min), float(clamp.max)
        return
    args = [arg for arg in get_args(annotation) if arg is not Ellipsis]
    if origin in (Union, types.UnionType):
        for arg in args:
            for branch in schema.get("anyOf", [schema]):
                if get_origin(arg) is Annotated and branch.get("type") in ("integer", "number"):
                    _publish_clamps(arg, branch)
    elif origin in (list, set, frozenset, tuple):
        parts = schema.get("prefixItems") or [schema.get("items")] * len(args)
        for arg, part in zip(args, parts, strict=False):
            if isinstance(part, dict):
                _publish_clamps(arg, part)
    elif origin is dict and isinstance(schema.get("additionalProperties"), dict):
        _publish_clamps(args[1], schema["additionalProperties"])


def _numeric_branches(schema: Schema) -> list[Schema]:
    return [branch for branch in schema.get("anyOf", [schema]) if branch.get("type") in ("integer", "number")]
