"""Bytes in payloads: callers send them in JSON as base64, workers get raw bytes in msgpack. The function's schema says where."""

import base64
import binascii
from typing import Any

Schema = dict[str, Any]


def with_bytes(value: Any, schema: Schema) -> Any:
    """The payload with base64 decoded where its schema has bytes. Invalid values stay unchanged: the worker reports what is wrong."""
    return _read(value, schema, schema.get("$defs", {}))


def _read(value: Any, schema: Any, definitions: Schema) -> Any:
    if not isinstance(schema, dict):
        return value
    if "$ref" in schema:
        return _read(value, definitions.get(schema["$ref"].rpartition("/")[2]), definitions)
    for branches in (schema.get("anyOf"), schema.get("oneOf")):
        if branches:
            return _read_one(value, branches, definitions)
    if isinstance(value, str) and schema.get("contentEncoding") == "base64":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return value
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        return {name: _read(each, properties.get(name, others), definitions) for name, each in value.items()}
    if isinstance(value, list):
        places = schema.get("prefixItems", ())
        rest = schema.get("items")
        return [_read(each, places[index] if index < len(places) else rest, definitions) for index, each in enumerate(value)]
    return value


def _read_one(value: Any, branches: list[Any], definitions: Schema) -> Any:
    """For a union, the first branch of the value's JSON type. A text that may be a plain text stays one."""
    kinds: dict[type, str] = {str: "string", dict: "object", list: "array"}
    found = []
    for branch in branches:
        while isinstance(branch, dict) and "$ref" in branch:
            branch = definitions.get(branch["$ref"].rpartition("/")[2])
        if isinstance(branch, dict) and branch.get("type") == kinds.get(type(value)):
            found.append(branch)
    if not found or any("contentEncoding" not in branch for branch in found if isinstance(value, str)):
        return value
    return _read(value, found[0], definitions)
