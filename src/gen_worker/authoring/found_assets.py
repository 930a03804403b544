"""Finds the files in a payload or an output: every `Asset` in a value, with its position."""

from collections.abc import Iterator
from functools import cache
from typing import Any, cast

from gen_worker.authoring.assets import Asset
from gen_worker.authoring.shapes import Record, is_record, shape_of
from gen_worker.json_keys import escape_pointer


@cache
def holds_assets(struct: type) -> bool:
    """Whether values of this type may contain an `Asset`."""
    return any(isinstance(shape, Record) and issubclass(shape.kind, Asset) for shape in shape_of(struct).everywhere())


def find_assets(value: Any, pointer: str = "") -> Iterator[tuple[str, Asset]]:
    """Every Asset in a decoded value, in order, with its JSON pointer in the payload."""
    todo = [(pointer, value)]
    while todo:
        here, found = todo.pop()
        if isinstance(found, Asset):
            yield here, found
        else:
            todo.extend(reversed([(f"{here}/{escape_pointer(str(key))}", item) for key, item in _parts_of(found)]))


def _parts_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of a decoded value, each with its JSON key. Looks at values instead of types, because a union's type
    does not say which member a value is.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            if not isinstance(key, str):
                yield key, key  # msgpack allows any frozen value as a key
    elif isinstance(value, (str, bytes)):
        return
    elif is_record(type(value)):
        record = cast(Record, shape_of(cast(Any, type(value))))
        for field in record.fields:
            item = value[field.index] if record.access == "index" else getattr(value, field.name, None)
            yield field.index if record.is_array else field.key, item
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from enumerate(value)
