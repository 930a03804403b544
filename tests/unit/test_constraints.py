"""Clamp: values moved into range, bounds published."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Annotated, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
import pytest

from gen_worker import Clamp
from gen_worker.authoring.constraints import clamper
from gen_worker.project.schemas import json_schema


@pytest.mark.parametrize(
    ("clamp", "value", "expected"),
    [
        (Clamp(20, 50, cast="int"), 20.49, 20),
        (Clamp(20, 50, cast="int"), 20.5, 21),
        (Clamp(20, 50, cast="int", round="down"), 20.9, 20),
        (Clamp(20, 50), 7, 20),
        (Clamp(20, 50), 70.5, 50),
        (Clamp(0, 1, cast="float"), 1, 1.0),
        (Clamp(0, 1), math.nan, 1),
        (Clamp(0, 1), -math.inf, 1),
        (Clamp(0, 1), True, True),
        (Clamp(0, 1), None, None),
        (Clamp(0, 1), "9", "9"),
    ],
)
def test_values(clamp: Clamp, value: object, expected: object) -> None:
    found = clamp.apply(value)
    assert found == expected
    assert type(found) is type(expected)


class Inner(msgspec.Struct):
    steps: Annotated[int, Clamp(1, 4)]


class Outer(msgspec.Struct, frozen=True):
    one: Inner
    many: list[Inner]
    named: dict[str, Annotated[float, Clamp(0, 1)]]
    maybe: Annotated[int, Clamp(5, 9)] | None = None
    pair: tuple[Annotated[int, Clamp(0, 1)], int] = (0, 0)
    again: "Outer | None" = None


def test_nested_values_are_clamped_in_place() -> None:
    value = msgspec.json.decode(
        b'{"one":{"steps":9},"many":[{"steps":-1}],"named":{"a":7},"maybe":1,"pair":[5,5],"again":{"one":{"steps":0},"many":[],"named":{}}}',
        type=Outer,
    )
    clamp = clamper(Outer)
    assert clamp is not None
    found = clamp(value)
    assert (found.one.steps, found.many[0].steps, found.named, found.maybe, found.pair) == (4, 1, {"a": 1}, 5, (1, 5))
    assert found.again.one.steps == 1


def test_a_type_without_clamps_costs_nothing() -> None:
    class Plain(msgspec.Struct):
        text: str

    assert clamper(Plain) is None


def test_bounds_stand_in_the_schema() -> None:
    schema = json_schema(Outer)
    assert schema["$defs"]["Inner"]["properties"]["steps"] == {"type": "integer", "minimum": 1.0, "maximum": 4.0}
    properties = schema["$defs"]["Outer"]["properties"]
    assert properties["named"]["additionalProperties"]["maximum"] == 1.0
    assert {"type": "integer", "minimum": 5.0, "maximum": 9.0} in properties["maybe"]["anyOf"]


T = TypeVar("T")


@dataclasses.dataclass
class Page(Generic[T]):
    steps: T


class Row(TypedDict, total=False):
    steps: Annotated[int, Clamp(1, 4)]


class Pair(NamedTuple):
    name: str
    steps: Annotated[int, Clamp(1, 4)] = 1


class Listed(msgspec.Struct, array_like=True, tag="listed"):
    steps: Annotated[int, Clamp(1, 4)] = 1


class Everywhere(msgspec.Struct, rename="camel"):
    one_page: Page[Annotated[int, Clamp(1, 4)]] | None = None
    rows: list[Row] = []
    pairs: Mapping[str, Pair] = {}
    listed: Listed | None = None
    exact: int | Annotated[float, Clamp(1, 4)] = 1


def test_clamps_hold_and_are_published_in_classes_of_every_kind() -> None:
    body = {"onePage": {"steps": 9}, "rows": [{"steps": 9}, {}], "pairs": {"a": ["x", 9]}, "listed": ["listed", 9], "exact": 9}
    value = msgspec.convert(body, Everywhere)
    clamp = clamper(Everywhere)
    assert clamp is not None
    assert msgspec.json.decode(msgspec.json.encode(clamp(value))) == {
        "onePage": {"steps": 4},
        "rows": [{"steps": 4}, {}],
        "pairs": {"a": ["x", 4]},
        "listed": ["listed", 4],
        "exact": 9,
    }
    schema = json_schema(Everywhere)["$defs"]
    assert json.dumps(schema).count('"maximum": 4.0') == 5
    assert {"type": "number", "minimum": 1.0, "maximum": 4.0} in schema["Everywhere"]["properties"]["exact"]["anyOf"]


@dataclasses.dataclass
class Unread:
    page: "Missing"  # noqa: F821


class HoldsUnread(msgspec.Struct):
    unread: Unread | None = None


def test_an_annotation_that_cannot_be_read_is_said_so() -> None:
    with pytest.raises(ValueError, match="HoldsUnread: an annotation cannot be evaluated: name 'Missing' is not defined"):
        json_schema(HoldsUnread)


def test_a_whole_number_larger_than_any_float_is_clamped() -> None:
    assert Clamp(1, 50).apply(10**400) == 50
    with pytest.raises(ValueError, match="need finite bounds"):
        Clamp(0, math.inf, cast="int")


def test_meta_bounds_stand_in_the_schema() -> None:
    class Bounded(msgspec.Struct):
        seed: Annotated[int, msgspec.Meta(ge=0, description="repeatable", examples=[7])]

    field = json_schema(Bounded)["$defs"]["Bounded"]["properties"]["seed"]
    assert field == {"type": "integer", "minimum": 0, "description": "repeatable", "examples": [7]}


@pytest.mark.parametrize("arguments", [{"min": 2, "max": 1}, {"min": 0, "max": 1, "cast": "bool"}])
def test_a_clamp_that_makes_no_sense(arguments: dict) -> None:
    with pytest.raises(ValueError, match="Clamp"):
        Clamp(**arguments)
