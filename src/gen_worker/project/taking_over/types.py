"""Translates their annotations into ours."""

import ast
import re

from gen_worker.project.taking_over.found import FoundField, FoundOutput
from gen_worker.project.taking_over.syntax import last_name, literal

_PLAIN = {"str", "int", "float", "bool", "bytes", "dict", "list", "Any", "None"}
_FILES = {"Path", "File", "PurePath"}
_LISTS = {"list", "List", "Sequence", "tuple", "Tuple"}
_STREAMS = {"Iterator", "ConcatenateIterator", "AsyncIterator", "AsyncConcatenateIterator", "Generator", "AsyncGenerator", "Iterable"}
_SECRETS = {"Secret", "SecretStr"}
_LIMITS = ("ge", "le", "gt", "lt", "min_length", "max_length", "regex", "pattern")


class Types:
    """Translates annotations of one module; `notes` collects what has no counterpart."""

    def __init__(self, where: str) -> None:
        self.notes: list[str] = []
        self._where = where

    def field(
        self, name: str, annotation: ast.expr | None, default: ast.expr | None, given: dict[str, ast.expr] | None = None
    ) -> FoundField:
        """A parameter as a field. `given`: the arguments of cog's `Input(...)`, or of pydantic's `Field(...)`."""
        given = given or {}
        text, is_file = self._type(annotation, name)
        choices = literal(given.get("choices"))
        if isinstance(choices, list | tuple | dict | set | frozenset) and choices:
            values = list(choices) if isinstance(choices, list | tuple | dict) else sorted(choices, key=str)
            if all(isinstance(each, str | int) for each in values):
                text = f"Literal[{', '.join(map(repr, values))}]"
            else:  # msgspec's Literal has texts and whole numbers only
                self.notes.append(f"{self._where}: the choices of {name}, {values!r}, are no longer checked")
        for key in ("choices", *_LIMITS):
            if key in given and literal(given[key]) is None and ast.unparse(given[key]) != "None":
                self.notes.append(f"{self._where}: {key} of {name}, {ast.unparse(given[key])}, is not a literal")
        value = given.get("default", default)
        shown = "" if value is None or literal(value) is Ellipsis else self._default(name, value, is_file)
        if shown == "None" and "None" not in text:
            text += " | None"
        return FoundField(name=name, type=text, default=shown, meta=_meta(given, text), as_path=is_file)

    def output(self, annotation: ast.expr | None, *, is_stream: bool = False) -> FoundOutput:
        """The output according to a function's return annotation."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        name = last_name(annotation.value if isinstance(annotation, ast.Subscript) else annotation)
        if name in _STREAMS or is_stream:
            inner = _arguments(annotation)[0] if name in _STREAMS and _arguments(annotation) else None
            text, is_file = self._type(inner, "the output")
            if is_file:
                self.notes.append(f"{self._where}: a stream of files; its paths come as text, save them with ctx.save_file")
            return FoundOutput(kind="stream", type="str" if is_file else text)
        if name in _FILES:
            return FoundOutput(kind="file")
        if name in _LISTS and _arguments(annotation) and last_name(_arguments(annotation)[0]) in _FILES:
            return FoundOutput(kind="files")
        return FoundOutput(type=self._type(annotation, "the output")[0])

    def _type(self, node: ast.expr | None, what: str) -> tuple[str, bool]:
        """Our annotation, and whether it is a file."""
        if node is None:
            return "Any", False
        if isinstance(node, ast.Constant):
            return ("None", False) if node.value is None else self._type(ast.parse(str(node.value), mode="eval").body, what)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            parts = [self._type(each, what) for each in (node.left, node.right)]
            return " | ".join(text for text, _ in parts), any(is_file for _, is_file in parts)
        name = last_name(node.value if isinstance(node, ast.Subscript) else node)
        arguments = _arguments(node)[:1] if name == "Annotated" else _arguments(node)  # the rest are limits, no types
        inner = [self._type(each, what) for each in arguments]
        is_file = any(each for _, each in inner)
        match name:
            case "Optional":
                return f"{inner[0][0]} | None", is_file
            case "Union":
                return " | ".join(text for text, _ in inner), is_file
            case "Literal":
                return ast.unparse(node).replace("typing.", ""), False
            case "Annotated":
                return inner[0]
            case "Dict" | "dict" | "Mapping" if inner:
                return f"dict[{', '.join(text for text, _ in inner)}]", False
            case _ if name in _LISTS and inner:
                return f"list[{inner[0][0]}]", is_file
        if name in _FILES:
            return "Asset", True
        if name in _SECRETS:
            self.notes.append(
                f"{self._where}: {what} is a secret; it is a plain text in the payload now: better declare it in [secrets] of cozy.toml"
            )
            return "str", False
        if name in _PLAIN:
            return name, False
        self.notes.append(
            f"{self._where}: {what} has the type {ast.unparse(node)}, which accepts any value now; give it a type that msgspec knows"
        )
        return "Any", False

    def _default(self, name: str, node: ast.expr, is_file: bool) -> str:
        value = literal(node)
        if value is None and not (isinstance(node, ast.Constant) and node.value is None):
            self.notes.append(f"{self._where}: the default of {name}, {ast.unparse(node)}, is not a literal, so the field is required")
            return ""
        if is_file and value is not None:
            self.notes.append(f"{self._where}: the file {name} had the default {value!r}; it is required now")
            return ""
        if isinstance(value, list | dict | set):
            return f"msgspec.field(default_factory=lambda: {value!r})"
        return repr(value)


def _arguments(node: ast.expr | None) -> list[ast.expr]:
    if not isinstance(node, ast.Subscript):
        return []
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _meta(given: dict[str, ast.expr], text: str) -> tuple[str, ...]:
    """The limits and the description, as arguments of `msgspec.Meta`."""
    found = []
    is_text, is_number = re.search(r"\bstr\b", text), re.search(r"\b(int|float)\b", text)
    for theirs, ours, fits in (
        *(("ge", "ge", is_number), ("le", "le", is_number), ("gt", "gt", is_number), ("lt", "lt", is_number)),
        *(("min_length", "min_length", is_text), ("max_length", "max_length", is_text), ("regex", "pattern", is_text)),
        *(("pattern", "pattern", is_text), ("description", "description", True)),
    ):
        value = literal(given.get(theirs))
        if value is not None and fits:
            found.append(f"{ours}={value!r}")
    return tuple(found)
