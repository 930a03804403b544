"""Which differences between two releases break callers."""

from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from gen_orchestrator.domain.compatibility import Change, changes, function_changes
from gen_worker.contract.manifest import FunctionEntry, Manifest


def schema_of(**fields: object) -> dict[str, object]:
    """The schema of a Struct with these fields: a type, or a type and its default."""
    listed = [(name, *(each if isinstance(each, tuple) else (each,))) for name, each in fields.items()]
    [found], defs = msgspec.json.schema_components([msgspec.defstruct("T", listed)], ref_template="#/$defs/{name}")
    return {**found, "$defs": defs}


def compared(old: dict[str, object], new: dict[str, object], side: str) -> list[tuple[str, str, bool]]:
    empty = schema_of()
    entries = [
        FunctionEntry(
            name="f",
            python_name="f",
            module="m",
            input_schema=schema_of(**each) if side == "input" else empty,
            output_schema=schema_of(**each) if side == "output" else empty,
        )
        for each in (old, new)
    ]
    found = function_changes(*entries)
    assert all(change.side == side for change in found)
    return [(change.pointer, change.text, change.breaking) for change in found]


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Tree(msgspec.Struct):
    children: "list[Tree]" = []


@pytest.mark.parametrize(
    ("old", "new", "said", "as_input", "as_output"),
    [
        ({"a": int}, {"a": int}, [], [], []),
        (
            {"a": int},
            {"a": str},
            ["integer is no longer allowed, only string", "string is possible now, beside integer"],
            [1, 0],
            [0, 1],
        ),
        ({"a": int}, {"a": float}, ["number is possible now, beside integer"], [0], [1]),
        ({"a": float}, {"a": int}, ["number is no longer allowed, only integer"], [1], [0]),
        ({"a": int}, {"a": int | None}, ["null is possible now, beside integer"], [0], [1]),
        ({}, {"a": (int, 1)}, ["a new field"], [0], [0]),
        ({"a": int}, {}, ["the field is gone"], [1], [1]),
        ({"a": Literal["x", "y"]}, {"a": Literal["x"]}, ['"y" is no longer allowed; allowed: "x"'], [1], [0]),
        ({"a": Literal["x"]}, {"a": Literal["x", "y"]}, ['"y" is possible now'], [0], [1]),
        ({"a": str}, {"a": Literal["x"]}, ['only "x" now'], [1], [0]),
        ({"a": Annotated[int, Meta(le=9)]}, {"a": Annotated[int, Meta(le=5)]}, ["maximum is 5; it was 9"], [1], [0]),
        ({"a": Annotated[int, Meta(ge=1)]}, {"a": Annotated[int, Meta(ge=0)]}, ["minimum is 0; it was 1"], [0], [0]),
        ({"a": str}, {"a": Annotated[str, Meta(pattern="^x")]}, ['pattern is "^x"; it was not set'], [1], [0]),
        ({"a": (int, 1)}, {"a": (int, 2)}, ["the default is 2; it was 1"], [0], [0]),
        (
            {"a": list[int]},
            {"a": list[str]},
            ["integer is no longer allowed, only string", "string is possible now, beside integer"],
            [1, 0],
            [0, 1],
        ),
        ({"a": tuple[int, int]}, {"a": tuple[int]}, None, [1], [1]),
        ({"a": Tree}, {"a": Tree}, [], [], []),
        ({"a": Point}, {"a": Point}, [], [], []),
    ],
)
def test_what_breaks(
    old: dict[str, object], new: dict[str, object], said: list[str] | None, as_input: list[int], as_output: list[int]
) -> None:
    for side, breaking in (("input", as_input), ("output", as_output)):
        found = compared(old, new, side)
        if said is not None:
            assert [text for _, text, _ in found] == said
        assert [int(breaks) for _, _, breaks in found][: len(breaking)] == breaking


def test_fields_that_become_needed() -> None:
    assert compared({}, {"a": int}, "input") == [("/a", "a new field that every payload must have", True)]
    assert compared({"a": (int, 1)}, {"a": int}, "input") == [("/a", "every payload must have the field now", True)]
    assert compared({"a": int}, {"a": (int, 1)}, "input") == [("/a", "the field may be left out now", False)]
    assert compared({"a": (int, 1)}, {"a": int}, "output") == []


def test_nested_places() -> None:
    class Other(msgspec.Struct):
        x: int

    Other.__name__ = "Point"
    assert compared({"a": list[Point]}, {"a": list[Other]}, "input") == [("/a/*/y", "the field is gone", True)]


def test_whole_releases() -> None:
    def entry(name: str, mode: str = "single") -> FunctionEntry:
        return FunctionEntry(name=name, python_name=name, module="m", output_mode=mode)  # type: ignore[arg-type]

    old = Manifest(endpoint_name="e", functions=(entry("gone"), entry("same"), entry("streams")))
    new = Manifest(endpoint_name="e", functions=(entry("added"), entry("same"), entry("streams", "incremental")))
    assert changes(old, new) == [
        Change("gone", "function", "", "the function is gone", True),
        Change("streams", "output", "", "it streams now", True),
        Change("added", "function", "", "the function is new", False),
    ]


def test_variables_are_named_without_their_values() -> None:
    found = changes(Manifest(env={"GONE": "a", "SAME": "b", "OTHER": "c"}), Manifest(env={"SAME": "b", "OTHER": "d", "NEW": "e"}))
    assert [(each.side, each.pointer, each.text, each.breaking) for each in found] == [
        ("env", "GONE", "the variable is gone", False),
        ("env", "NEW", "the variable is new", False),
        ("env", "OTHER", "it has another value", False),
    ]
    assert changes(Manifest(), Manifest()) == []
