"""Files in payloads of callers that do not know `Asset`: they write the text of a URL or a data URI."""

from typing import Any

from gen_worker.contract.manifest import Schema
from gen_worker.front_doors.catalog import fields_of

_ASSET = {"ref", "mime_type", "sha256"}


def payload_of(value: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """The input with `{"ref": ...}` in place of each text where the function takes a file: a URL or a data URI."""
    return {name: _placed(each, place, schema.get("$defs", {})) for name, each in value.items() for place in [fields_of(schema).get(name)]}


def _placed(value: Any, place: Any, definitions: Schema) -> Any:
    if not isinstance(place, dict):
        return value
    if isinstance(value, str):
        return {"ref": value} if _is_file_place(place, definitions) else value
    if isinstance(value, list):
        items = next((branch["items"] for branch in place.get("anyOf", [place]) if isinstance(branch, dict) and "items" in branch), None)
        return [_placed(each, items, definitions) for each in value]
    return value


def _is_file_place(place: Any, definitions: Schema) -> bool:
    """Whether a field takes a file and no text."""
    branches = [
        definitions.get(branch["$ref"].rpartition("/")[2], {}) if "$ref" in branch else branch for branch in place.get("anyOf", [place])
    ]
    if any(branch.get("type") == "string" for branch in branches):
        return False
    return any(branch.get("properties", {}).keys() >= _ASSET for branch in branches)


def with_texts_for_files(schema: Schema) -> Schema:
    """The schema of an object, self-contained, with a text in place of each file."""
    definitions = schema.get("$defs", {})
    text = {"type": "string", "description": "A file: an https URL or a data URI"}
    shown = {name: text if each.get("properties", {}).keys() >= _ASSET else each for name, each in definitions.items()}
    return whole(schema, shown)


def whole(schema: Schema, definitions: Schema | None = None) -> Schema:
    """The schema of an object with its fields at the top."""
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    name = schema.get("$ref", "").rpartition("/")[2]
    top = definitions.get(name, schema)
    rest = {
        each: definition for each, definition in definitions.items() if each != name or f'"#/$defs/{name}"' in str(top).replace("'", '"')
    }
    return {**top, "$defs": rest} if rest else {**top}
