"""Finds the keys that a function reads from a dict: its fields, when nothing declares them."""

import ast
import keyword
import re

import msgspec

from gen_worker.project.taking_over.found import FoundField
from gen_worker.project.taking_over.syntax import last_name, literal


def fields_read_from(function: ast.AST, parameter: str, key: str | None = None) -> tuple[list[FoundField], bool]:
    """Fields that a function reads from its dict `parameter` (or from the dict under `key` in it), and whether it
    passes on the whole dict.

    `request["prompt"]` is a required field. `request.get("steps", 20)` has a default, whose type becomes the field's.
    With `"seed" in request`, the field may be absent.
    """
    names = {parameter} if key is None else set()
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if key is not None and _is_part(value, parameter, key):
                names.add(name)
    found: dict[str, FoundField] = {}
    known: set[ast.AST] = set()
    tested: set[str] = set()

    def is_dict(node: ast.expr) -> bool:
        return (isinstance(node, ast.Name) and node.id in names) or (key is not None and _is_part(node, parameter, key))

    for node in ast.walk(function):
        if isinstance(node, ast.Subscript) and is_dict(node.value):
            known.add(node.value)
            read = literal(node.slice)
            if isinstance(read, str) and isinstance(node.ctx, ast.Load):
                found[read] = FoundField(name=read)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_dict(node.func.value):
            known.add(node.func.value)
            read = literal(node.args[0]) if node.args else None
            if node.func.attr in ("get", "pop") and isinstance(read, str):
                found.setdefault(read, _optional(read, node.args[1] if len(node.args) > 1 else None))
        elif isinstance(node, ast.Compare) and len(node.comparators) == 1 and is_dict(node.comparators[0]):
            known.add(node.comparators[0])
            if isinstance(asked := literal(node.left), str):
                tested.add(asked)
    whole = any(
        isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load) and node not in known
        for node in ast.walk(function)
    )
    for name in tested:
        if name not in found or not found[name].default:
            found[name] = FoundField(name=name, type="Any | msgspec.UnsetType", default="msgspec.UNSET", may_be_absent=True)
    fields = [_named(each) for each in found.values()]
    # Fields without a default come first in a Struct.
    return sorted(fields, key=lambda each: bool(each.default)), whole


def _named(field: FoundField) -> FoundField:
    """The field under a name that Python allows."""
    if field.name.isidentifier() and not keyword.iskeyword(field.name):
        return field
    name = re.sub(r"\W", "_", f"_{field.name}" if field.name[:1].isdigit() else field.name)
    return msgspec.structs.replace(field, name=f"{name}_" if keyword.iskeyword(name) else name, key=field.name)


def _is_part(node: ast.expr, parameter: str, key: str) -> bool:
    """`job["input"]` or `job.get("input", ...)`."""
    if isinstance(node, ast.Subscript):
        return last_name(node.value) == parameter and literal(node.slice) == key
    if isinstance(node, ast.BoolOp):
        return any(_is_part(each, parameter, key) for each in node.values)
    is_get = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
    return is_get and last_name(node.func.value) == parameter and bool(node.args) and literal(node.args[0]) == key  # type: ignore[attr-defined]


def _optional(name: str, default: ast.expr | None) -> FoundField:
    value = literal(default)
    kind = type(value).__name__ if isinstance(value, str | int | float | bool) else "Any"
    if isinstance(value, list | dict):
        return FoundField(name=name, default=f"msgspec.field(default_factory=lambda: {value!r})")
    return FoundField(name=name, type=kind, default=repr(value))
