"""The named schemas of an OpenAPI document, collected from schemas with their own `$defs`, such as those of a manifest."""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]
REF = "#/components/schemas/{name}"
_DEFS = "#/$defs/"


class Components:
    """Schemas by name. Equal ones are kept once; when another schema already has the name, an underscore is added."""

    def __init__(self, schemas: dict[str, Schema]) -> None:
        self.schemas = schemas

    def add(self, name: str, schema: Schema) -> Schema:
        """Add a schema of our own; returns a reference to it."""
        while name in self.schemas:
            name += "_"
        self.schemas[name] = {**schema, "title": name}
        return {"$ref": REF.format(name=name)}

    def adopt(self, schema: Schema) -> Schema:
        """Add a schema of a manifest, `{"$ref": "#/$defs/In", "$defs": {...}}`, with its definitions; returns a reference."""
        definitions: dict[str, Schema] = schema.get("$defs", {})
        names = {name: name for name in definitions}
        while True:
            # A renamed definition changes those that refer to it, which then have to be renamed, too.
            moved = {names[name]: _pointed(definition, names) for name, definition in definitions.items()}
            clash = [name for name, new in names.items() if self.schemas.get(new, moved[new]) != moved[new]]
            if not clash:
                break
            for name in clash:
                names[name] += "_"
                while names[name] in [new for other, new in names.items() if other != name]:
                    names[name] += "_"
        self.schemas.update(moved)
        found: Schema = _pointed({key: value for key, value in schema.items() if key != "$defs"}, names)
        return found


def _pointed(value: Any, names: Mapping[str, str]) -> Any:
    """The schema with references to `$defs` replaced by references into the document. A union lists its tags' schemas
    under `discriminator.mapping`.
    """
    if isinstance(value, list):
        return [_pointed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, item in value.items():
        if key == "$ref" and isinstance(item, str):
            found[key] = _target(item, names)
        elif key == "discriminator" and isinstance(item, dict) and isinstance(item.get("mapping"), dict):
            found[key] = {**item, "mapping": {tag: _target(target, names) for tag, target in item["mapping"].items()}}
        elif key in ("default", "const", "enum", "examples"):
            found[key] = item  # the author's values, which may look like anything
        else:
            found[key] = _pointed(item, names)
    return found


def _target(ref: str, names: Mapping[str, str]) -> str:
    name = ref.removeprefix(_DEFS)
    return REF.format(name=names[name]) if ref.startswith(_DEFS) and name in names else ref
