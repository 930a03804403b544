"""The schemas of an endpoint's functions, as values from which code is written: named types, and functions that use
them.

Understands JSON Schema as written by discovery (`project/schemas.py`). Anything else becomes `Anything`, never an
error. Definitions of several functions that are equal, including everything they refer to, become one type; others with
the same name get a number.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from gen_worker.contract.manifest import FunctionEntry, Schema, WebsocketEntry

_DEFS = "#/$defs/"
_ASSET_FIELDS = {"ref", "owner", "mime_type", "size_bytes", "sha256"}
Plain = Literal["str", "int", "float", "bool", "null", "bytes", "datetime", "date", "time", "timedelta", "uuid", "decimal"]
_FORMATS: Mapping[str, Plain] = {
    "date-time": "datetime",
    "date": "date",
    "time": "time",
    "duration": "timedelta",
    "uuid": "uuid",
    "decimal": "decimal",
}
_TYPES: Mapping[str, Plain] = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "null"}


class Simple(msgspec.Struct, frozen=True):
    kind: Plain


class Anything(msgspec.Struct, frozen=True):
    pass


class File(msgspec.Struct, frozen=True):
    """An `Asset`."""


class OneOfValues(msgspec.Struct, frozen=True):
    values: tuple[Any, ...]


class Items(msgspec.Struct, frozen=True):
    item: "Shape"


class Table(msgspec.Struct, frozen=True):
    """A mapping from texts."""

    value: "Shape"


class Places(msgspec.Struct, frozen=True):
    """A list of fixed length; elements from `needed` on may be left out."""

    places: tuple["Shape", ...]
    needed: int


class Either(msgspec.Struct, frozen=True):
    options: tuple["Shape", ...]


class Named(msgspec.Struct, frozen=True):
    name: str


Shape = Simple | Anything | File | OneOfValues | Items | Table | Places | Either | Named


class Field(msgspec.Struct, frozen=True):
    """`key` as in JSON. `default` is JSON, and is valid when `has_default`."""

    key: str
    shape: Shape
    needed: bool
    has_default: bool
    default: Any = None
    text: str = ""


class Definition(msgspec.Struct, frozen=True):
    """A named type: an object with `fields`, or an alias for `shape`. `tag`: key and value that identify it in a union."""

    name: str
    text: str
    fields: tuple[Field, ...] = ()
    shape: Shape | None = None
    tag: tuple[str, Any] | None = None


class Function(msgspec.Struct, frozen=True):
    """`output`: of one item if it streams. `text`: the function's docstring. A websocket handler (`is_session`) has neither
    payload nor output.
    """

    slug: str
    payload: Shape
    output: Shape
    streams: bool
    text: str = ""
    is_session: bool = False


class Endpoint(msgspec.Struct, frozen=True):
    owner: str
    name: str
    functions: tuple[Function, ...]
    definitions: tuple[Definition, ...]


def read_endpoint(owner: str, name: str, entries: Iterable[FunctionEntry | WebsocketEntry], reserved: Callable[[str], str]) -> Endpoint:
    """The endpoint's functions in order of name, with their types. `reserved` turns a schema's name into a type name of the language."""
    reader = _Reader(reserved)
    functions = []
    for entry in sorted(entries, key=lambda each: each.name):
        text = _plain_text(entry.description or "")  # UNSET in older releases, which have none
        if isinstance(entry, WebsocketEntry):
            functions.append(Function(entry.name, Anything(), Anything(), streams=False, text=text, is_session=True))
            continue
        payload, output = (
            reader.root(schema, f"{entry.name}-{what}") for schema, what in ((entry.input_schema, "input"), (_output(entry), "output"))
        )
        functions.append(Function(entry.name, payload, output, entry.output_mode == "incremental", text))
    return Endpoint(owner, name, tuple(functions), tuple(sorted(reader.definitions, key=lambda each: each.name)))


def _output(entry: FunctionEntry) -> Schema:
    return entry.delta_output_schema or entry.output_schema if entry.output_mode == "incremental" else entry.output_schema


class _Reader:
    def __init__(self, reserved: Callable[[str], str]) -> None:
        self.definitions: list[Definition] = []
        self._reserved = reserved
        self._names: dict[str, str] = {}  # a definition with everything it refers to -> its name
        self._taken: set[str] = set()
        self._open: tuple[str, ...] = ()  # aliases for types that are being read
        self._defs: Mapping[str, Schema] = {}
        self._tags: Mapping[str, str] = {}

    def root(self, schema: Schema, name: str) -> Shape:
        self._defs = schema.get("$defs", {})
        self._tags = dict(_tags(schema))
        if "$ref" not in schema and (schema.get("properties") or (schema.get("type") == "object" and "additionalProperties" not in schema)):
            self._defs = {**self._defs, name: {key: value for key, value in schema.items() if key != "$defs"}}
            return self._named(name)
        return self._shape(schema)

    def _named(self, name: str) -> Shape:
        schema = self._defs.get(name)
        if schema is None:
            return Anything()
        if name == "Asset" and schema.get("properties", {}).keys() == _ASSET_FIELDS:
            return File()
        whole = json.dumps([name, {each: self._defs.get(each) for each in sorted(self._reachable(name))}], sort_keys=True)
        if whole in self._open:
            return Anything()  # an alias for itself, with no class in between
        if whole not in self._names:
            found = self._names[whole] = self._free(self._reserved(name))  # before its fields are read, because they may refer back to it
            before, self._open = self._open, () if _is_object(schema) else (*self._open, whole)
            self.definitions.append(self._definition(found, name, schema))
            self._open = before
        return Named(self._names[whole])

    def _definition(self, found: str, name: str, schema: Schema) -> Definition:
        text = _plain_text(schema.get("description", ""))
        if not _is_object(schema):
            return Definition(found, text, shape=self._shape({key: value for key, value in schema.items() if key != "title"}))
        properties: Mapping[str, Schema] = schema.get("properties", {})
        key = self._tags.get(name, "")
        values = properties.get(key, {}).get("enum", ())
        tag = (key, values[0]) if len(values) == 1 else None
        needed = schema.get("required", ())
        fields = [
            Field(
                each,
                self._shape(field),
                each in needed,
                isinstance(field, dict) and "default" in field,
                field.get("default") if isinstance(field, dict) else None,
                _plain_text(field.get("description", "") if isinstance(field, dict) else ""),
            )
            for each, field in properties.items()
            if tag is None or each != key
        ]
        return Definition(found, text, tuple(fields), tag=tag)

    def _shape(self, schema: Any) -> Shape:
        if not isinstance(schema, dict):
            return Anything()
        if "$ref" in schema:
            return self._named(str(schema["$ref"]).removeprefix(_DEFS)) if str(schema["$ref"]).startswith(_DEFS) else Anything()
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return _either(self._shape(each) for each in options)
        if "const" in schema:
            return OneOfValues((schema["const"],))
        if "enum" in schema:
            return OneOfValues(tuple(schema["enum"]))
        kind = schema.get("type")
        if isinstance(kind, list):
            return _either(self._shape({**schema, "type": each}) for each in kind)
        if kind == "array":
            places = schema.get("prefixItems")
            if places:
                return Places(tuple(self._shape(each) for each in places), schema.get("minItems", 0))
            return Items(self._shape(schema.get("items")))
        if kind == "object":
            return Table(self._shape(schema.get("additionalProperties")))
        if kind == "string" and schema.get("contentEncoding") == "base64":
            return Simple("bytes")
        if kind == "string" and schema.get("format") in _FORMATS:
            return Simple(_FORMATS[schema["format"]])
        return Simple(_TYPES[kind]) if isinstance(kind, str) and kind in _TYPES else Anything()

    def _reachable(self, name: str) -> set[str]:
        found, todo = {name}, [name]
        while todo:
            for each in _refs(self._defs.get(todo.pop())):
                if each not in found:
                    found.add(each)
                    todo.append(each)
        return found

    def _free(self, name: str) -> str:
        found, number = name, 1
        while found.lower() in self._taken:
            number += 1
            found = f"{name}{number}"
        self._taken.add(found.lower())
        return found


def _is_object(schema: Schema) -> bool:
    """Whether it has fields; otherwise it is an alias."""
    return schema.get("type") == "object" and ("additionalProperties" not in schema or bool(schema.get("properties")))


def _either(options: Iterable[Shape]) -> Shape:
    """A flat union, each option once, null last."""
    flat: dict[Shape, None] = {}
    for option in options:
        flat |= dict.fromkeys(option.options if isinstance(option, Either) else (option,))
    if any(isinstance(each, Anything) for each in flat):
        return Anything()
    null = Simple("null")
    ordered = [each for each in flat if each != null] + [each for each in flat if each == null]
    return ordered[0] if len(ordered) == 1 else Either(tuple(ordered))


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str) and ref.startswith(_DEFS):
            yield ref.removeprefix(_DEFS)
        for each in value.values():
            yield from _refs(each)
    elif isinstance(value, list):
        for each in value:
            yield from _refs(each)


def _tags(value: Any) -> Iterator[tuple[str, str]]:
    """Definitions that a union distinguishes, each with its key."""
    if isinstance(value, dict):
        discriminator = value.get("discriminator")
        if isinstance(discriminator, dict):
            for ref in discriminator.get("mapping", {}).values():
                yield str(ref).removeprefix(_DEFS), str(discriminator.get("propertyName", ""))
        for each in value.values():
            yield from _tags(each)
    elif isinstance(value, list):
        for each in value:
            yield from _tags(each)


def _plain_text(text: Any) -> str:
    """A text for a comment: lines without the author's indentation and without invisible characters."""
    lines = [re.sub(r"[^\S ]|[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff]", " ", line).strip() for line in str(text).splitlines()]
    return "\n".join(lines).strip()
