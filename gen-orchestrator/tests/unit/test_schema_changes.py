"""What is reported about each difference between two schemas: where it is, and which side it breaks. Schemas as discovery writes them."""

from typing import Any

import pytest

from gen_orchestrator.domain.compatibility import Change, function_changes
from gen_worker.contract.manifest import FunctionEntry

POINT = {"title": "Point", "type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
LINE = {"title": "Line", "type": "object", "properties": {"length": {"type": "number"}}, "required": ["length"]}


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def said(old: dict[str, Any], new: dict[str, Any], defs: dict[str, Any] | None = None) -> list[tuple[str, str, str]]:
    """Place, text, and for whom it breaks: `in`, `out`, `both` or `none`; of a schema of the whole payload and output."""
    found: dict[str, list[Change]] = {}
    for side in ("input", "output"):
        entries = [
            FunctionEntry(name="f", python_name="f", module="m", **{f"{side}_schema": {**each, "$defs": defs or {}}}) for each in (old, new)
        ]
        found[side] = function_changes(*entries)
        assert all((change.function, change.side) == ("f", side) for change in found[side])
    assert [(each.pointer, each.text) for each in found["input"]] == [(each.pointer, each.text) for each in found["output"]]
    words = {(True, False): "in", (False, True): "out", (True, True): "both", (False, False): "none"}
    both = zip(found["input"], found["output"], strict=True)
    return [(one.pointer, one.text, words[one.breaking, other.breaking]) for one, other in both]


def under(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"type": "string"}, {}, [("", "any value is allowed now", "out")]),
        ({}, {"type": ["string", "null"]}, [("", "only string or null now, where anything was possible", "in")]),
        (under("a", {}), under("a", {"type": "string"}), [("/a", "only string now, where anything was possible", "in")]),
        ({"const": 1}, {"const": 1, "title": "One"}, []),
        ({"const": 1}, {"const": 2}, [("", "1 is no longer allowed; allowed: 2", "in"), ("", "2 is possible now", "out")]),
        ({"enum": ["x"]}, {"type": "string"}, [("", "any value is possible now", "out")]),
        ({"enum": [True]}, {"type": "boolean"}, [("", "any value is possible now", "out")]),
        ({"enum": [None]}, {"type": "null"}, [("", "any value is possible now", "out")]),
        ({"enum": [1]}, {"type": "integer"}, [("", "any value is possible now", "out")]),
        ({"enum": [1.5]}, {"type": "number"}, [("", "any value is possible now", "out")]),
        ({"enum": [[1]]}, {}, [("", "any value is possible now", "out")]),
        ({"type": "string"}, {"enum": ["x"]}, [("", 'only "x" now', "in")]),
        (
            {"type": "integer", "minimum": 1, "maximum": 9},
            {"type": "integer", "minimum": 2, "exclusiveMaximum": 9},
            [
                ("", "minimum is 2; it was 1", "in"),
                ("", "maximum is gone; it was 9", "none"),
                ("", "exclusiveMaximum is 9; it was not set", "in"),
            ],
        ),
        ({"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 6}, [("", "maxLength is 6; it was 5", "none")]),
        (
            {"oneOf": [{"type": "string"}, {"type": "null"}]},
            {"oneOf": [{"type": "string"}]},
            [("", "null is no longer allowed, only string", "in")],
        ),
        ({"type": "string", "format": "uuid"}, {"type": "string"}, [("", 'format is not set; it was "uuid"', "out")]),
        (
            under("a", {"type": "array", "items": {"type": "string"}}),
            under("a", {"type": "array", "items": {"type": "string", "minLength": 1}}),
            [("/a/*", "minLength is 1; it was not set", "in")],
        ),
        (
            under("a", {"type": "object", "additionalProperties": {"type": "string"}}),
            under("a", {"type": "object", "additionalProperties": {"type": "integer"}}),
            [
                ("/a/*", "string is no longer allowed, only integer", "in"),
                ("/a/*", "integer is possible now, beside string", "out"),
            ],
        ),
        (
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2},
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
            [
                ("/1", "integer is no longer allowed, only string", "in"),
                ("/1", "string is possible now, beside integer", "out"),
            ],
        ),
        (
            {"type": "array", "prefixItems": [{}], "minItems": 1, "maxItems": 1},
            {"type": "array", "prefixItems": [{}, {}], "minItems": 2, "maxItems": 2},
            [("", "it has 2 places; it had 1", "both")],
        ),
        ({"type": "object"}, under("a", {}), [("/a", "a new field", "none")]),
        (under("a", {}), {"type": "object"}, [("/a", "the field is gone", "both")]),
        (under("a/b~c", {}), {"type": "object"}, [("/a~1b~0c", "the field is gone", "both")]),
    ],
)
def test_what_is_said(old: dict[str, Any], new: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    assert said(old, new) == expected


def test_named_types_are_told_apart_by_their_names() -> None:
    defs = {"Point": POINT, "Line": LINE, "Either": {"oneOf": [ref("Point"), ref("Line")]}}
    both = {"anyOf": [ref("Point"), ref("Line")]}
    assert said(both, both, defs) == []
    assert said(both, ref("Point"), defs) == [("", "object Line is no longer allowed, only object", "in")]
    assert said(ref("Point"), {"anyOf": [ref("Point"), {"type": "null"}]}, defs) == [("", "null is possible now, beside object", "out")]
    nested = {"anyOf": [{"type": "null"}, ref("Either")]}
    assert said({"anyOf": [{"type": "null"}, ref("Point"), ref("Line")]}, nested, defs) == []
    assert said(nested, {"type": "null"}, defs) == [
        ("", "object is no longer allowed, only null", "in"),
        ("", "object Line is no longer allowed, only null", "in"),
    ]


def test_a_name_that_leads_nowhere_means_anything() -> None:
    assert said(ref("Gone"), {"type": "string"}) == [("", "only string now, where anything was possible", "in")]
    round_and_round = {"A": ref("B"), "B": ref("A")}
    assert said(ref("A"), ref("A"), round_and_round) == []


def test_a_long_list_of_values_is_cut() -> None:
    numbers = [{"enum": list(range(count))} for count in (1, 13, 14)]
    shown = ", ".join(map(str, range(1, 13)))
    assert said(numbers[0], numbers[1]) == [("", f"{shown} is possible now", "out")]
    assert said(numbers[0], numbers[2]) == [("", f"{shown}, ... is possible now", "out")]
