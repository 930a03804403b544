"""Schemas to code: whatever names and types an author uses, the code is valid, and equal schemas give equal bytes."""

import ast
import inspect
import json
import keyword
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_worker.codegen import python, typescript
from gen_worker.codegen.shapes import Anything, Either, Items, Named, OneOfValues, Places, Simple, Table, read_endpoint
from gen_worker.contract.manifest import FunctionEntry


def entry(
    name: str, payload: dict[str, Any], output: dict[str, Any] | None = None, *, streams: bool = False, text: str = ""
) -> FunctionEntry:
    return FunctionEntry(
        name=name,
        python_name=name,
        module="m",
        input_schema=payload,
        output_schema=output or {},
        output_mode="incremental" if streams else "single",
        description=text or msgspec.UNSET,
    )


def struct(name: str, **defs: Any) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}", "$defs": defs}


def record(*needed: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(needed)}


def modules(*entries: FunctionEntry, name: str = "e") -> tuple[str, str]:
    found = [read_endpoint("me", name, entries, write.type_name) for write in (python, typescript)]
    texts = python.python_module(found[0], "a test"), typescript.typescript_module(found[1], "a test")
    ast.parse(texts[0])
    return texts


TEXT, WHOLE, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}


@pytest.mark.parametrize(
    ("schema", "shape", "in_python", "in_typescript"),
    [
        (TEXT, Simple("str"), "str", "string"),
        ({"type": "string", "format": "date-time"}, Simple("datetime"), "datetime.datetime", "string"),
        ({"type": "string", "contentEncoding": "base64"}, Simple("bytes"), "bytes", "string"),
        ({"type": ["integer", "null"]}, Either((Simple("int"), Simple("null"))), "int | None", "number | null"),
        ({"anyOf": [NULL, {"anyOf": [TEXT, NULL]}]}, Either((Simple("str"), Simple("null"))), "str | None", "string | null"),
        (
            {"enum": ["a\u2028", 1, True, None]},
            OneOfValues(("a\u2028", 1, True, None)),
            'Literal["a\\u2028", 1, True, None]',
            '"a\\u2028" | 1 | true | null',
        ),
        ({"const": "x"}, OneOfValues(("x",)), 'Literal["x"]', '"x"'),
        (
            {"type": "array", "items": {"anyOf": [TEXT, NULL]}},
            Items(Either((Simple("str"), Simple("null")))),
            "list[str | None]",
            "(string | null)[]",
        ),
        ({"type": "array"}, Items(Anything()), "list[Any]", "unknown[]"),
        (
            {"type": "array", "prefixItems": [WHOLE, TEXT], "minItems": 1},
            Places((Simple("int"), Simple("str")), 1),
            "tuple[int, str]",
            "[number, string?]",
        ),
        ({"type": "object", "additionalProperties": WHOLE}, Table(Simple("int")), "dict[str, int]", "Record<string, number>"),
        ({}, Anything(), "Any", "unknown"),
        ({"type": "nonsense"}, Anything(), "Any", "unknown"),
        ({"$ref": "#/$defs/Gone"}, Anything(), "Any", "unknown"),
        ({"$ref": "https://elsewhere/x"}, Anything(), "Any", "unknown"),
        (True, Anything(), "Any", "unknown"),
        # Unions that msgspec cannot read are left open in Python, and are said in TypeScript.
        ({"anyOf": [TEXT, {"type": "string", "format": "uuid"}]}, Either((Simple("str"), Simple("uuid"))), "Any", "string"),
        (
            {"anyOf": [{"type": "object"}, {"$ref": "#/$defs/In"}]},
            Either((Table(Anything()), Named("In"))),
            "Any",
            "Record<string, unknown> | In",
        ),
    ],
)
def test_a_type_in_both_languages(schema: Any, shape: Any, in_python: str, in_typescript: str) -> None:
    payload = struct("In", In=record("x", x=schema))
    (definition,) = read_endpoint("me", "e", [entry("f", payload)], python.type_name).definitions
    assert definition.fields[0].shape == shape
    as_python, as_typescript = modules(entry("f", payload))
    assert f"    x: {in_python}\n" in as_python
    assert f"  x: {in_typescript};\n" in as_typescript


def test_unions_of_tagged_structs_are_told_apart() -> None:
    both = {
        "anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        "discriminator": {"propertyName": "type", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}},
    }
    cat, dog = record("type", type={"enum": ["cat"]}), record("type", "name", type={"enum": ["dog"]}, name=TEXT)
    as_python, as_typescript = modules(entry("f", struct("In", In=record("pet", pet=both), Cat=cat, Dog=dog)))
    assert 'class Cat(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="type", tag="cat"):\n    pass' in as_python
    assert "    pet: Cat | Dog\n" in as_python
    assert 'export interface Dog {\n  type: "dog";\n  name: string;\n}' in as_typescript


def test_equal_types_are_one_and_others_of_the_name_are_kept_apart() -> None:
    one, other = record(a=TEXT), record(a=WHOLE)
    entries = [
        entry("f", struct("In", In=one)),
        entry("g", struct("In", In=one), struct("Out", Out=record(inner={"$ref": "#/$defs/In"}), In=other)),
    ]
    as_python, as_typescript = modules(*entries)
    assert as_python.count("class In(") == 1
    assert as_python.count("class In2(") == 1
    assert "inner: In2 | msgspec.UnsetType" in as_python
    assert as_typescript.count("export interface In2 {") == 1
    assert modules(*reversed(entries)) == (as_python, as_typescript)


SAID = 'Draw a picture.\n\nSteps "cost" time; more than 50 */ are not better.'


def test_a_function_is_documented_by_its_docstring() -> None:
    payload = struct("In", In=record("x", x={**TEXT, "description": "What to draw"}))
    as_python, as_typescript = modules(entry("draw", payload, text=SAID), entry("talk", payload, streams=True, text="Say it."))
    names: dict[str, Any] = {}
    exec(compile(as_python, "generated", "exec", dont_inherit=True), names)
    for name in ("E", "AsyncE"):
        client = names[name]
        assert inspect.getdoc(client.draw) == f"Run me/e/draw and wait for its output.\n\n{SAID}"
        assert inspect.getdoc(client.talk) == "Run me/e/talk and iterate over its items as they come.\n\nSay it."
        assert inspect.getdoc(client.submit_draw) == "Start me/e/draw and do not wait for it."
    assert "    # What to draw\n    x: str\n" in as_python
    assert (
        "  /**\n   * Run me/e/draw and wait for its output.\n   *\n   * Draw a picture.\n   *\n"
        '   * Steps "cost" time; more than 50 *\\/ are not better.\n   */\n  draw(' in as_typescript
    )
    assert "   * Say it.\n   */\n  talk(" in as_typescript


@given(st.text())
def test_any_docstring_gives_code_that_can_be_read(text: str) -> None:
    _, as_typescript = modules(entry("f", struct("In", In=record("x", x=TEXT)), text=text))
    assert as_typescript.count("*/") == as_typescript.count("/**")


WORDS = [
    "class",
    "1st",
    "größe",
    "a-b.c",
    "__init__",
    "msgspec",
    "Client",
    "int",
    "",
    "-",
    "self",
    "await",
    "constructor",
    "\u2028",
    '"""',
    "*/",
    "Any",
    "list",
]


@pytest.mark.parametrize("word", WORDS)
def test_names_that_are_none(word: str) -> None:
    payload = struct(word, **{word: record(word, **{word: TEXT, "other": {"$ref": f"#/$defs/{word}"}})})
    payload["$defs"][word]["description"] = word
    as_python, as_typescript = modules(
        entry(word, payload, payload), entry(f"submit-{word}", payload, payload, streams=True), name=word or "e"
    )
    names: dict[str, Any] = {}
    exec(compile(as_python, "generated", "exec", dont_inherit=True), names)
    classes = [each for each in names.values() if isinstance(each, type) and each.__module__ != "gen_worker.client.blocking"]
    assert not any(keyword.iskeyword(each.__name__) for each in classes)
    assert json.dumps(word) in as_typescript or word.isidentifier()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_SCHEMAS = st.recursive(
    st.one_of(
        st.just(TEXT),
        st.just(WHOLE),
        st.just({"$ref": "#/$defs/A"}),
        st.just({"$ref": "#/$defs/B"}),
        st.builds(lambda values: {"enum": values}, st.lists(_JSON.filter(lambda value: not isinstance(value, (list, dict))), max_size=3)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda each, default: {"type": "array", "items": each, "default": default}, inner, _JSON),
        st.builds(lambda each: {"anyOf": each}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda each, text: {"type": "object", "properties": each, "description": text},
            st.dictionaries(st.text(max_size=6), inner, max_size=3),
            st.text(),
        ),
    ),
    max_leaves=8,
)


@given(st.fixed_dictionaries({"A": _SCHEMAS, "B": _SCHEMAS, "In": st.builds(lambda each: record("x", x=each), _SCHEMAS)}))
def test_any_schema_gives_code_that_can_be_read(defs: dict[str, Any]) -> None:
    modules(entry("f", struct("In", **defs), struct("A", **defs)))
