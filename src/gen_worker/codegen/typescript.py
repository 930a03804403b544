"""A typed client as a TypeScript module: interfaces, and a class with a method for each function. Equal endpoints give equal bytes."""

import json
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
PACKAGE = "gen-worker-client"
_SIMPLE = {"int": "number", "float": "number", "bool": "boolean", "null": "null"}  # all others are strings in JSON
_WORDS = """
break case catch class const continue debugger default delete do else enum export extends false finally for function if import
in instanceof new null return super switch this throw true try typeof var void while with as implements interface let package private
protected public static yield any boolean constructor declare get module require number set string symbol type from of object unknown
never bigint undefined async await Array Record Promise AsyncGenerator Object String Number Boolean Asset CallOptions Client RunHandle
Session SessionOptions
"""
_TAKEN = frozenset(_WORDS.split())
_METHODS = {"constructor", "client", "suffix", "then", "toString", "valueOf", "hasOwnProperty", "toJSON"}


def type_name(name: str) -> str:
    """The name of a type in the module."""
    return free(pascal(name, "Type"), _TAKEN)


def typescript_module(endpoint: Endpoint, source: str, package: str = PACKAGE, *, tag: str = "") -> str:
    """The module's text. `source`: what it was made from; `package`: where the client is imported from; `tag`: the tag
    called by default.
    """
    return _Writer(endpoint, source, package, tag).text()


class _Writer:
    def __init__(self, endpoint: Endpoint, source: str, package: str, tag: str) -> None:
        self._endpoint = endpoint
        self._source = source
        self._package = package
        self._tag = tag
        self._class = free(pascal(endpoint.name, "Endpoint"), {*_TAKEN, *(each.name for each in endpoint.definitions)})

    def text(self) -> str:
        blocks = ["\n".join(self._definition(each)) for each in self._endpoint.definitions]
        body = "\n\n".join([*blocks, "\n".join(self._client())])
        types = sorted(
            name for name in ("Asset", "CallOptions", "RunHandle", "Session", "SessionOptions") if re.search(rf"\b{name}\b", body)
        )
        imports = ", ".join(["Client", *(f"type {name}" for name in types)])
        head = _doc(
            f"Typed client of {self._endpoint.owner}/{self._endpoint.name}.\n\n"
            f"Made by `cozyctl client generate` from {self._source}: generate it again instead of changing it.",
            "",
        )
        return "\n".join([*head, f"import {{ {imports} }} from {_literal(self._package)};", "", body, ""])

    def _definition(self, definition: Definition) -> Iterator[str]:
        yield from _doc(definition.text, "")
        if definition.shape is not None:
            yield f"export type {definition.name} = {self._type(definition.shape)};"
            return
        tag = [] if definition.tag is None else [f"  {_key(definition.tag[0])}: {_literal(definition.tag[1])};"]
        fields = [line for field in definition.fields for line in self._field(field)]
        if not tag and not fields:
            yield f"export type {definition.name} = Record<string, never>;"
            return
        yield f"export interface {definition.name} {{"
        yield from [*tag, *fields]
        yield "}"

    def _field(self, field: Field) -> Iterator[str]:
        said = ""
        if field.has_default and field.default is not None:
            said = f"By default {json.dumps(field.default)[:200]}."
        yield from _doc("\n".join(filter(None, [field.text, said])), "  ")
        yield f"  {_key(field.key)}{'' if field.needed else '?'}: {self._type(field.shape)};"

    def _client(self) -> Iterator[str]:
        ref = f"{self._endpoint.owner}/{self._endpoint.name}"
        yield from _doc(f"The functions of {ref}. `tag`: which release is called, `{self._tag or 'prod'}` by default.", "")
        yield f"export class {self._class} {{"
        yield "  private readonly suffix: string;"
        yield ""
        yield f"  constructor(private readonly client: Client = new Client(), tag = {_literal(self._tag)}) {{"
        yield '    this.suffix = tag === "" ? "" : `:${tag}`;'
        yield "  }"
        names = set(_METHODS)
        for function in self._endpoint.functions:
            yield from self._methods(function, f"{ref}/{function.slug}", names)
        yield "}"

    def _methods(self, function: Function, ref: str, names: set[str]) -> Iterator[str]:
        name = free(_camel(function.slug), names)
        names.add(name)
        if function.is_session:
            yield ""
            yield from _doc(_and_said(f"Open a realtime session with {ref}.", function.text), "  ")
            yield f"  {name}(options: SessionOptions = {{}}): Promise<Session> {{"
            yield f"    return this.client.session({_literal(ref)} + this.suffix, options);"
            yield "  }"
            return
        payload, output = self._type(function.payload), self._type(function.output)
        target = f"{_literal(ref)} + this.suffix"
        if function.streams:
            yield from _method(
                _and_said(f"Run {ref} and iterate over its items as they come.", function.text),
                name,
                payload,
                f"AsyncGenerator<{output}, void, void>",
            )
            yield f"    return this.client.stream<{output}>({target}, payload, options);"
        else:
            doc = _and_said(f"Run {ref} and wait for its output.", function.text)
            yield from _method(doc, name, payload, f"Promise<{output}>")
            yield f"    return this.client.run<{output}>({target}, payload, options);"
        yield "  }"
        submit = free(f"submit{name[:1].upper()}{name[1:]}", names)
        names.add(submit)
        result = _list_of(output) if function.streams else output
        yield from _method(f"Start {ref} and do not wait for it.", submit, payload, f"Promise<RunHandle<{result}>>")
        yield f"    return this.client.submit<{result}>({target}, payload, options);"
        yield "  }"

    def _type(self, shape: Shape) -> str:
        match shape:
            case Simple(kind):
                return _SIMPLE.get(kind, "string")
            case File():
                return "Asset"
            case Named(name):
                return name
            case OneOfValues(values) if values:
                return " | ".join(_literal(value) for value in values)
            case Items(item):
                return _list_of(self._type(item))
            case Table(value):
                return f"Record<string, {self._type(value)}>"
            case Places(places, needed):
                return f"[{', '.join(_place(self._type(each), number < needed) for number, each in enumerate(places))}]"
            case Either(options):
                return " | ".join(dict.fromkeys(self._type(each) for each in options))
            case Anything() | OneOfValues():
                return "unknown"


def _method(doc: str, name: str, payload: str, gives: str) -> Iterator[str]:
    yield ""
    yield from _doc(doc, "  ")
    yield f"  {name}(payload: {payload}, options: CallOptions = {{}}): {gives} {{"


def _and_said(what: str, text: str) -> str:
    """What a method does, followed by the docstring of the function's author."""
    return f"{what}\n\n{text}" if text else what


def _list_of(item: str) -> str:
    return f"({item})[]" if " " in item and not item.startswith(("Record<", "[")) else f"{item}[]"


def _place(kind: str, needed: bool) -> str:
    return kind if needed else f"({kind})?" if " " in kind else f"{kind}?"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$]*", key) else _literal(key)


def _literal(value: Any) -> str:
    return json.dumps(value)  # ASCII: characters that an editor may hide are escaped


def _camel(slug: str) -> str:
    first, *rest = snake(slug, "function").split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _doc(text: str, indent: str) -> list[str]:
    if not text:
        return []
    lines = [part for line in text.replace("*/", "*\\/").split("\n") for part in (textwrap.wrap(line, WIDTH - 20) or [""])]
    if len(lines) == 1:
        return [f"{indent}/** {lines[0]} */"]
    return [f"{indent}/**", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"]
