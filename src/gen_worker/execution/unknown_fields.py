"""Finds fields of a payload that its type does not have. msgspec ignores them, so nobody else would tell the caller about a typo."""

from typing import Any

import msgspec

from gen_worker.authoring.assets import Asset
from gen_worker.authoring.shapes import Fixed, Items, Record, Shape, Table
from gen_worker.contract.run import InvokeOptions
from gen_worker.errors import FieldError
from gen_worker.json_keys import escape_pointer
from gen_worker.names import nearest

MAX_WARNINGS = 20
_MAX_SHOWN = 100
_OPTIONS = frozenset(InvokeOptions.__struct_fields__)
_OF_FILES = frozenset({"local_path", "url"})  # fields in a run's answer about a saved file, which may be sent to the next run unchanged


class Looked(msgspec.Struct):
    """`key_count`: keys of all objects in the payload."""

    key_count: int = 0
    unknown: list[FieldError] = []


def look(shape: Shape | None, value: Any) -> Looked:
    """Walk a payload, as decoded JSON, beside its type if it has one. Lists of numbers or texts are skipped."""
    found = Looked()
    todo: list[tuple[str, Shape | None, Any]] = [("", shape, value)]
    while todo:
        pointer, expected, here = todo.pop()
        member = None if expected is None else expected.member_for(here)
        if isinstance(here, dict):
            found.key_count += len(here)
            if isinstance(member, Record) and not member.is_array:
                _note_unknown(found.unknown, pointer, member, here)
            todo.extend(
                (f"{pointer}/{escape_pointer(str(key))}", _below(member, key), item)
                for key, item in here.items()
                if type(item) in (dict, list)
            )
        elif isinstance(here, list) and not (isinstance(member, Items) and member.item.is_scalar):
            todo.extend(
                (f"{pointer}/{index}", _below(member, index), item) for index, item in enumerate(here) if type(item) in (dict, list)
            )
    return found


def _below(shape: Shape | None, key: Any) -> Shape | None:
    match shape:
        case Record(is_array=False):
            field = shape.by_key.get(key)
            return field.shape if field else None
        case Record():
            return next((field.shape for field in shape.fields if field.index == key), None)
        case Table():
            return shape.value
        case Items():
            return shape.item
        case Fixed():
            return shape.parts[key] if key < len(shape.parts) else None
    return None


def _note_unknown(unknown: list[FieldError], pointer: str, record: Record, value: dict[Any, Any]) -> None:
    for key in value.keys() - record.by_key.keys():
        is_known = key == record.tag_field or (key in _OF_FILES and issubclass(record.kind, Asset))
        if not is_known and len(unknown) < MAX_WARNINGS:
            unknown.append(unknown_field(pointer, str(key), record))


def unknown_field(pointer: str, key: str, record: Record) -> FieldError:
    """The warning about a field that a type does not have."""
    shown = key[:_MAX_SHOWN]
    message = f"unknown field {shown!r}"
    if not pointer and key in _OPTIONS:  # it had no effect, although its author counts on it
        message += f'; as an option of the run it stands beside the payload: {{"payload": {{...}}, "{key}": ...}}'
    return FieldError(f"{pointer}/{escape_pointer(shown)}", message, suggestion=nearest(shown, record.by_key))
