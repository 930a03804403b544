"""Payload and output Structs to JSON Schema, with the bounds that Clamp declares."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from gen_worker.authoring.clamp import Clamp
from gen_worker.authoring.shapes import Fixed, Items, OneOf, Record, Shape, Table, shape_of
from gen_worker.authoring.signature import FunctionSpec

Schema = dict[str, Any]


def json_schema(struct: type[msgspec.Struct]) -> Schema:
    """JSON Schema (2020-12, with `$defs`) of a Struct; `ValueError` names a type that JSON cannot represent."""
    refs, components = schema_components([struct], "#/$defs/{name}")
    return {**refs[0], "$defs": components}


def with_choices(schema: Schema, spec: FunctionSpec, keys: Sequence[str]) -> Schema:
    """The schema of a function's payload, with the model keys allowed in its selecting fields."""
    names = dict(zip(spec.payload_type.__struct_fields__, spec.payload_type.__struct_encode_fields__, strict=True))
    properties = schema.get("properties", {})
    chosen = {names[field]: _with_enum(properties[names[field]], keys) for field in spec.selecting_fields if names[field] in properties}
    return {**schema, "properties": {**properties, **chosen}} if chosen and keys else schema


def schema_components(structs: Sequence[type[msgspec.Struct]], ref_template: str) -> tuple[list[Schema], dict[str, Schema]]:
    """A `$ref` for each Struct, and the named schemas they lead to. Equal names from different modules are kept apart."""
    names = ", ".join(struct.__name__ for struct in structs)
    try:
        shapes = [shape_of(struct) for struct in structs]
        records = [*shapes, *_other_records(shapes)]
    except (NameError, AttributeError, SyntaxError) as exc:
        fix = "import the name at the top of its module, outside `if TYPE_CHECKING:`"
        raise ValueError(f"{names}: an annotation cannot be evaluated: {exc}; {fix}") from exc
    try:
        refs, components = msgspec.json.schema_components([record.annotation for record in records], ref_template=ref_template)
    except (TypeError, NotImplementedError) as exc:
        raise ValueError(f"{names} cannot be described in JSON Schema: {exc}") from exc
    for record, ref in zip(records, refs, strict=True):
        assert isinstance(record, Record)
        _publish_fields(record, components[ref["$ref"].rsplit("/", 1)[1]])
    return list(refs[: len(structs)]), components


def compact_json(value: Any) -> bytes:
    """Compact JSON with sorted keys: the bytes that are hashed."""
    return msgspec.json.encode(value, order="sorted")


def schema_sha256(schema: Schema) -> str:
    return hashlib.sha256(compact_json(schema)).hexdigest()


def _other_records(shapes: Sequence[Shape]) -> list[Record]:
    """The classes with fields that are reachable from payloads, each once, because each has one named schema."""
    found: dict[int, Record] = {}
    for shape in shapes:
        found |= {id(below): below for below in shape.everywhere() if isinstance(below, Record)}
    for shape in shapes:
        found.pop(id(shape), None)
    return list(found.values())


def _publish_fields(record: Record, schema: Schema) -> None:
    for field in record.fields:
        places = schema.get("prefixItems", ())
        place = places[field.index] if field.index < len(places) else schema.get("properties", {}).get(field.key)
        if isinstance(place, dict):
            _publish_clamps(field.shape, place)


def _publish_clamps(shape: Shape, schema: Schema) -> None:
    """Write the bounds of every Clamp below `shape` into its schema. Records have schemas of their own."""
    for clamp in (extra for extra in shape.extras if isinstance(extra, Clamp)):
        for branch in (branch for branch in _branches(schema) if branch.get("type") in ("integer", "number")):
            branch |= {name: float(bound) for name, bound in (("minimum", clamp.min), ("maximum", clamp.max)) if math.isfinite(bound)}
    match shape:
        case OneOf():
            for part in shape.parts:
                for branch in _branches(schema):
                    if isinstance(part, OneOf):
                        _publish_clamps(part, schema)
                    elif branch.get("type") == _json_type(part):
                        _publish_clamps(part, branch)
        case Items() if isinstance(schema.get("items"), dict):
            _publish_clamps(shape.item, schema["items"])
        case Fixed():
            for part, place in zip(shape.parts, schema.get("prefixItems", ()), strict=False):
                _publish_clamps(part, place)
        case Table() if isinstance(schema.get("additionalProperties"), dict):
            _publish_clamps(shape.value, schema["additionalProperties"])


def _with_enum(schema: Schema, keys: Sequence[str]) -> Schema:
    if "anyOf" in schema:
        return {**schema, "anyOf": [_with_enum(branch, keys) for branch in schema["anyOf"]]}
    return {**schema, "enum": sorted(keys)} if schema.get("type") == "string" and "enum" not in schema else schema


def _branches(schema: Schema) -> list[Schema]:
    found: list[Schema] = schema.get("anyOf", [schema])
    return found


def _json_type(shape: Shape) -> str | None:
    match shape:
        case Items() | Fixed():
            return "array"
        case Table():
            return "object"
    return {int: "integer", float: "number"}.get(shape.annotation) if isinstance(shape.annotation, type) else None
