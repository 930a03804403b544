"""A typed client as a Python module: Structs, and a class with a method for each function, blocking and for asyncio.

The text is formatted as ruff does it with lines of 140, and the same endpoint gives the same bytes.
"""

import builtins
import json
import keyword
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from gen_worker.codegen.shapes import (
    Anything,
    Definition,
    Either,
    Endpoint,
    Field,
    File,
    Function,
    Items,
    Named,
    OneOfValues,
    Places,
    Shape,
    Simple,
    Table,
)
from gen_worker.codegen.words import free, pascal, snake

WIDTH = 140
_SIMPLE = {
    "str": "str",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "null": "None",
    "bytes": "bytes",
    "datetime": "datetime.datetime",
    "date": "datetime.date",
    "time": "datetime.time",
    "timedelta": "datetime.timedelta",
    "uuid": "uuid.UUID",
    "decimal": "decimal.Decimal",
}
_CLIENTS = {
    *("AsyncClient", "AsyncRunHandle", "AsyncRunStream", "AsyncSession", "CallOptions"),
    *("Client", "RunHandle", "RunStream", "Session", "SessionOptions"),
}
_IMPORTED = {"Any", "Asset", "Literal", "Unpack", "annotations", "datetime", "decimal", "msgspec", "uuid", *_CLIENTS}
_TAKEN = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *_IMPORTED}
_ANNOTATION_NAMES = {"str", "int", "float", "bool", "bytes", "list", "dict", "tuple", *_IMPORTED}


def type_name(name: str) -> str:
    """The name of a type in the module."""
    return free(pascal(name, "Type"), _TAKEN)


def python_module(endpoint: Endpoint, source: str, *, tag: str = "") -> str:
    """The module's text. `source`: what it was made from; `tag`: the tag called by default."""
    return _Writer(endpoint, source, tag).text()


class _Writer:
    def __init__(self, endpoint: Endpoint, source: str, tag: str) -> None:
        self._endpoint = endpoint
        self._source = source
        self._tag = tag
        self._by_name = {each.name: each for each in endpoint.definitions}
        self._types = set(self._by_name)
        taken = {*_TAKEN, *self._types}
        self._class = free(pascal(endpoint.name, "Endpoint"), taken)
        self._async_class = free(f"Async{self._class}", {*taken, self._class})

    def text(self) -> str:
        blocks = [block for each in self._in_order() for block in self._definition(each)]
        blocks += ["\n".join(self._client(is_async=False)), "\n".join(self._client(is_async=True))]
        body = "\n\n\n".join(blocks)
        head = [f'"""{_docstring(f"Typed client of {self._endpoint.owner}/{self._endpoint.name}.")}', ""]
        head += [f"Made by `cozyctl client generate` from {_docstring(self._source)}: generate it again instead of changing it.", '"""', ""]
        head += ["from __future__ import annotations", ""]
        used = set(re.findall(r"\b(datetime|decimal|uuid)\.", body))
        head += [f"import {name}" for name in sorted(used)]
        typing = sorted(name for name in ("Any", "Literal", "Unpack") if re.search(rf"\b{name}\b", body))
        head += [f"from typing import {', '.join(typing)}"] if typing else []
        head += ["", "import msgspec", ""]
        clients = sorted(name for name in _CLIENTS if re.search(rf"\b{name}\b", body))
        line = f"from gen_worker.client import {', '.join(clients)}"
        head += [line] if len(line) <= WIDTH else ["from gen_worker.client import (", *(f"    {name}," for name in clients), ")"]
        head += ["from gen_worker.types import Asset"] if re.search(r"\bAsset\b", body) else []
        return "\n".join(head) + "\n\n\n" + body + "\n"

    def _in_order(self) -> list[Definition]:
        """Put type aliases after the types they name: aliases are evaluated at once, classes only when used."""
        classes = [each for each in self._endpoint.definitions if each.shape is None]
        waiting = {each.name: each for each in self._endpoint.definitions if each.shape is not None}
        ordered: list[Definition] = []

        def add(name: str) -> None:
            found = waiting.pop(name, None)
            if found is not None and found.shape is not None:
                for below in _names_in(found.shape):
                    add(below)
                ordered.append(found)

        for name in list(waiting):
            add(name)
        return classes + ordered

    def _definition(self, definition: Definition) -> Iterator[str]:
        if definition.shape is not None:
            text = _comment(definition.text, "")
            yield "\n".join([*text, *_assigned(definition.name, self._type(definition.shape))])
            return
        options = ["kw_only=True", "omit_defaults=True"]
        if definition.tag is not None:
            options += [f"tag_field={_literal(definition.tag[0])}", f"tag={_literal(definition.tag[1])}"]
        lines = [f"class {definition.name}(msgspec.Struct, {', '.join(options)}):"]
        doc = _documented(definition.text, "    ") if definition.text else []
        lines += doc
        names: set[str] = set()
        body: list[str] = []
        for field in definition.fields:
            body += self._field(field, names)
        if doc and body:
            lines.append("")
        lines += body
        if not doc and all(line.lstrip().startswith("#") for line in body):
            lines.append("    pass")
        yield "\n".join(lines)

    def _field(self, field: Field, names: set[str]) -> list[str]:
        if any(each in '"\\' or ord(each) < 0x20 for each in field.key):
            return [f"    # {field.key!a}: no Struct can have a field of this name."]
        name = self._field_name(field.key, names)
        shape = self._type(field.shape)
        arguments = [] if name == field.key else [f"name={_literal(field.key)}"]
        if not field.needed:
            default = _default(field, self._seen_through(field.shape))
            if default is None:
                shape = f"{shape} | msgspec.UnsetType"
                default = "msgspec.UNSET"
            arguments.insert(
                0,
                default
                if not arguments
                else f"default={default}"
                if default not in ("[]", "{}")
                else f"default_factory={_FACTORIES[default]}",
            )
        line = f"    {name}: {shape}"
        if arguments and not (len(arguments) == 1 and not arguments[0].startswith("name=")):
            line += f" = msgspec.field({', '.join(arguments)})"
        elif arguments:
            line += f" = {arguments[0]}"
        if len(line) > WIDTH:
            line += "  # fmt: skip"
        return [*_comment(field.text, "    "), line]

    def _field_name(self, key: str, names: set[str]) -> str:
        name = key if key.isidentifier() and key.isascii() and not key.startswith("_") else snake(key, "field")
        name = free(name, {*keyword.kwlist, *_ANNOTATION_NAMES, *self._types, *names})
        names.add(name)
        return name

    def _client(self, *, is_async: bool) -> Iterator[str]:
        endpoint = self._endpoint
        client = "AsyncClient" if is_async else "Client"
        ref = f"{endpoint.owner}/{endpoint.name}"
        yield f"class {self._async_class if is_async else self._class}:"
        yield f'    """The functions of {_docstring(ref)}. `tag`: which release is called, `{self._tag or "prod"}` by default."""'
        yield ""
        yield f"    def __init__(self, client: {client} | None = None, *, tag: str = {_literal(self._tag)}) -> None:"
        yield f"        self._client = {client}() if client is None else client"
        yield '        self._suffix = f":{tag}" if tag else ""'
        names = {"self"}
        for function in endpoint.functions:
            yield from self._methods(function, f"{ref}/{function.slug}", names, is_async=is_async)

    def _methods(self, function: Function, ref: str, names: set[str], *, is_async: bool) -> Iterator[str]:
        name = free(snake(function.slug, "function"), {*keyword.kwlist, *names})
        names.add(name)
        if function.is_session:
            yield from _session_method(name, ref, function.text, is_async=is_async)
            return
        payload, output = self._type(function.payload), self._type(function.output)
        prefix = "Async" if is_async else ""
        if function.streams:
            doc = _and_said(f"Run {ref} and iterate over its items as they come.", function.text)
            yield from self._method("def", name, payload, f"{prefix}RunStream[{output}]", doc, f"stream({_literal(ref)}", output)
        else:
            doc = _and_said(f"Run {ref} and wait for its output.", function.text)
            yield from self._method("async def" if is_async else "def", name, payload, output, doc, f"run({_literal(ref)}", output)
        submit = free(f"submit_{name}", names)
        names.add(submit)
        result = f"list[{output}]" if function.streams else output
        doc = f"Start {ref} and do not wait for it."
        keyword_ = "async def" if is_async else "def"
        yield from self._method(keyword_, submit, payload, f"{prefix}RunHandle[{result}]", doc, f"submit({_literal(ref)}", result)

    def _method(self, define: str, name: str, payload: str, gives: str, doc: str, call: str, output: str) -> Iterator[str]:
        waits = "await " if define.startswith("async") else ""
        yield ""
        yield f"    {define} {name}("
        yield "        self,"
        yield f"        payload: {payload},"
        yield "        **options: Unpack[CallOptions],"
        yield f"    ) -> {gives}:"
        yield from _documented(doc, "        ")
        what, _, ref = call.partition("(")
        yield f"        return {waits}self._client.{what}("
        yield f"            {ref} + self._suffix,"
        yield "            payload,"
        yield f"            output={output},"
        yield "            **options,"
        yield "        )"

    def _type(self, shape: Shape) -> str:
        match shape:
            case Simple(kind):
                return _SIMPLE[kind]
            case File():
                return "Asset"
            case Named(name):
                return name
            case OneOfValues(values) if all(value is None or isinstance(value, (str, int)) for value in values) and values:
                return f"Literal[{', '.join(_literal(value) for value in values)}]"
            case Items(item):
                return f"list[{self._type(item)}]"
            case Table(value):
                return f"dict[str, {self._type(value)}]"
            case Places(places):
                return f"tuple[{', '.join(self._type(each) for each in places)}]"
            case Either(options) if self._can_be_told_apart(options):
                return " | ".join(self._type(each) for each in options)
            case Anything() | OneOfValues() | Either():
                return "Any"

    def _can_be_told_apart(self, options: tuple[Shape, ...]) -> bool:
        """Whether msgspec can decode such a union: at most one option of each JSON type, except for objects with tags."""
        found = [form for option in options for form in self._forms(option)]
        objects = [form for form in found if form.startswith("object")]
        keys = {form.rpartition("=")[0] for form in objects}
        return len(found) == len(set(found)) and "any" not in found and (len(objects) < 2 or (len(keys) == 1 and "" not in keys))

    def _seen_through(self, shape: Shape) -> Shape:
        """The shape behind type aliases."""
        if isinstance(shape, Named):
            named = self._by_name[shape.name].shape
            return shape if named is None else self._seen_through(named)
        return Either(tuple(self._seen_through(each) for each in shape.options)) if isinstance(shape, Either) else shape

    def _forms(self, shape: Shape) -> list[str]:
        match shape:
            case Simple(kind):
                return ["text" if kind not in ("int", "float", "bool", "null") else kind]
            case OneOfValues(values):
                return sorted({"text" if isinstance(value, str) else "int" for value in values})
            case Items() | Places():
                return ["list"]
            case Table() | File():
                return ["object"]
            case Named(name):
                found = self._by_name[name]
                if found.shape is not None:
                    return self._forms(found.shape)
                return [f"object {found.tag[0]} {type(found.tag[1]).__name__}={found.tag[1]}"] if found.tag is not None else ["object"]
            case Either(options):
                return [form for option in options for form in self._forms(option)]
            case Anything():
                return ["any"]


def _session_method(name: str, ref: str, text: str, *, is_async: bool) -> Iterator[str]:
    prefix, opens = ("Async", "async with") if is_async else ("", "with")
    yield ""
    yield f"    def {name}("
    yield "        self,"
    yield "        **options: Unpack[SessionOptions],"
    yield f"    ) -> {prefix}Session:"
    yield from _documented(_and_said(f"A realtime session with {ref}: `{opens}` opens and closes it.", text), "        ")
    yield "        return self._client.session("
    yield f"            {_literal(ref)} + self._suffix,"
    yield "            **options,"
    yield "        )"


_FACTORIES = {"[]": "list", "{}": "dict"}


def _default(field: Field, shape: Shape) -> str | None:
    """The default of a field as code; None when the client must not decide it."""
    if not field.has_default:
        return None
    value, options = field.default, shape.options if isinstance(shape, Either) else (shape,)
    for option in options:
        match option:
            case Simple("null") if value is None:
                return "None"
            case Anything() if value is None:
                return "None"
            case Simple("str") if isinstance(value, str):
                return _literal(value)
            case Simple("bool") if isinstance(value, bool):
                return _literal(value)
            case Simple("int") if isinstance(value, int) and not isinstance(value, bool):
                return _literal(value)
            case Simple("float") if isinstance(value, (int, float)) and not isinstance(value, bool):
                return repr(float(value))
            case OneOfValues(values) if value in values and value is not None and not isinstance(value, float):
                return _literal(value)
            case Items() if value == []:
                return "[]"
            case Table() if value == {}:
                return "{}"
    return None


def _literal(value: Any) -> str:
    """A text, number or bool as a Python literal in double quotes; characters that an editor may hide are escaped."""
    if not isinstance(value, str):
        return repr(value)
    quoted = json.dumps(value, ensure_ascii=False)
    escaped = "".join(each if each.isprintable() else _escaped(each) for each in quoted)
    if '\\"' in escaped and "'" not in escaped:  # ruff prefers fewer escapes
        return "'" + escaped[1:-1].replace('\\"', '"') + "'"
    return escaped


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _docstring(text: str) -> str:
    """A text in triple quotes."""
    text = text.replace("\\", "\\\\")
    return text.replace('"', '\\"') if text.endswith('"') or '"""' in text else text


def _documented(text: str, indent: str) -> list[str]:
    """The lines of a docstring: one if the text fits, otherwise as many as needed."""
    if "\n" not in text and len(text) < WIDTH - 12:
        return [f'{indent}"""{_docstring(text)}"""']
    wrapped = [part for line in text.split("\n") for part in (textwrap.wrap(line, WIDTH - 20) or [""])]
    return [f'{indent}"""{_docstring(wrapped[0])}', *(f"{indent}{_docstring(line)}".rstrip() for line in wrapped[1:]), f'{indent}"""']


def _and_said(what: str, text: str) -> str:
    """What a method does, followed by the docstring of the function's author."""
    return f"{what}\n\n{text}" if text else what


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}# {part}".rstrip() for line in text.split("\n") if text for part in (textwrap.wrap(line, WIDTH - 20) or [""])]


def _assigned(name: str, value: str) -> list[str]:
    """`Name = value`; a literal of many values has one a line."""
    line = f"{name} = {value}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{line}  # fmt: skip"]


def _names_in(shape: Shape) -> Iterator[str]:
    match shape:
        case Named(name):
            yield name
        case Items(item):
            yield from _names_in(item)
        case Table(value):
            yield from _names_in(value)
        case Places(parts) | Either(parts):
            for each in parts:
                yield from _names_in(each)
