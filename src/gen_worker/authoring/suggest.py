"""Suggests the Struct that an author could write, for messages about payloads and outputs of other types."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec

_PLAIN = (str, int, float, bool, bytes, list, tuple, set, dict)
MAX_FIELDS = 12


def struct_fix(hint: Any, class_name: str, field: str) -> str:
    """How to write a Struct in place of `hint`: a pydantic model, a dataclass, a TypedDict, a plain type. `field`: its
    field's name for a plain type.
    """
    name, fields = class_name, [(field, "str")]
    if isinstance(hint, type) and hint not in _PLAIN and get_origin(hint) is None:
        found = list(_fields(hint))
        if found:
            name, fields = hint.__name__, found
    elif hint in (str, int, float, bool):
        fields = [(field, hint.__name__)]
    elif get_origin(hint) in (list, set, tuple) or hint in (list, bytes):
        fields = [(field, type_text(hint))]
    return f"make {name} a msgspec.Struct:\n{struct_text(name, fields)}"


def fix_or(hint: Any, class_name: str, field: str, otherwise: str) -> str:
    """`struct_fix` if a Struct can replace `hint`; else `otherwise`."""
    return struct_fix(hint, class_name, field) if is_plain(hint) or dataclass_like(hint) else otherwise


def plain_fix(parameters: list[inspect.Parameter], hints: dict[str, Any]) -> str:
    """The Struct that replaces several plain parameters."""
    fields = []
    for parameter in parameters:
        default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
        fields.append((parameter.name, f"{type_text(hints.get(parameter.name, str))}{default}"))
    return f"make one msgspec.Struct of them:\n{struct_text('Input', fields)}"


def struct_text(name: str, fields: list[tuple[str, str]]) -> str:
    """The lines that define a Struct, indented for a message."""
    shown = [f"    {field}: {kind}" for field, kind in fields[:MAX_FIELDS]] + (["    ..."] if len(fields) > MAX_FIELDS else [])
    return "\n".join(f"    {line}".rstrip() for line in ("import msgspec", f"class {name}(msgspec.Struct):", *shown))


def is_plain(hint: Any) -> bool:
    """Whether a parameter of this type can only be a part of the payload."""
    return (get_origin(hint) or hint) in _PLAIN or any(is_plain(arg) for arg in get_args(hint) if get_origin(hint) is not None)


def dataclass_like(hint: Any) -> bool:
    """Whether a class only holds fields: a pydantic model, a dataclass, a TypedDict, a NamedTuple."""
    marks = ("model_fields", "_fields", "__total__")
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or any(hasattr(hint, mark) for mark in marks))


def type_text(hint: Any) -> str:
    """A type as source code."""
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "").replace("collections.abc.", "")


def _fields(kind: type) -> Iterator[tuple[str, str]]:
    model_fields = getattr(kind, "model_fields", None)  # of pydantic
    if isinstance(model_fields, dict) and model_fields:
        for name, field in model_fields.items():
            required = getattr(field, "is_required", lambda: True)()
            yield name, type_text(getattr(field, "annotation", str)) + ("" if required else f" = {getattr(field, 'default', None)!r}")
    elif dataclasses.is_dataclass(kind):
        for each in dataclasses.fields(kind):
            default = "" if each.default is dataclasses.MISSING else f" = {each.default!r}"
            yield each.name, (each.type if isinstance(each.type, str) else type_text(each.type)) + default
    elif not issubclass(kind, msgspec.Struct):
        for name, hint in inspect.get_annotations(kind).items():
            yield name, hint if isinstance(hint, str) else type_text(hint)
