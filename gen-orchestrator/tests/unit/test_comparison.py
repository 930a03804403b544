"""Outputs compared value by value."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain.comparison import MAX_DIFFERENCES, MAX_VALUE_CHARACTERS, Difference, clipped, differences

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_a_value_is_equal_to_itself(value: Any) -> None:
    assert differences(value, value) == []


@given(VALUES, VALUES)
def test_order_of_the_two_does_not_matter(one: Any, other: Any) -> None:
    assert [each.pointer for each in differences(one, other)] == [each.pointer for each in differences(other, one)]


@pytest.mark.parametrize(
    ("expected", "actual", "tolerance", "pointers"),
    [
        ({"a": 1}, {"a": 1.0}, 0.0, []),
        ({"a": 1}, {"a": True}, 0.0, ["/a"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, 0.0, ["/a/1"]),
        ({"a": [1, 2]}, {"a": [1]}, 0.0, ["/a"]),
        ({"a": 100}, {"a": 101}, 0.01, []),
        ({"a": 100}, {"a": 102}, 0.01, ["/a"]),
        ({"a": 0}, {"a": 1e-9}, 0.01, ["/a"]),
        ({"a/b": {"~": "x"}}, {"a/b": {"~": "y"}}, 0.5, ["/a~1b/~0"]),
        ({"a": 1}, {"b": 1}, 0.0, ["/a", "/b"]),
        ({"ref": "runs/1/x", "size_bytes": 3, "sha256": "a"}, {"ref": "runs/2/x", "size_bytes": 3, "sha256": "a"}, 0.0, []),
        ({"ref": "runs/1/x", "size_bytes": 3, "sha256": "a"}, {"ref": "runs/2/x", "size_bytes": 3, "sha256": "b"}, 0.0, ["/sha256"]),
        ({"ref": "one"}, {"ref": "two"}, 0.0, ["/ref"]),
        ("x", None, 0.0, [""]),
    ],
)
def test_what_differs(expected: Any, actual: Any, tolerance: float, pointers: list[str]) -> None:
    assert [each.pointer for each in differences(expected, actual, tolerance)] == pointers


def test_a_flood_of_differences_is_cut() -> None:
    assert len(differences([0] * 1000, [1] * 1000)) == MAX_DIFFERENCES


def test_what_each_difference_says() -> None:
    assert differences({"a": 100, "b": "x"}, {"a": 50, "c": [1]}) == [
        Difference("/a", 100, 50, 0.5),
        Difference("/b", "x", None),
        Difference("/c", None, [1]),
    ]
    assert differences([1, 2, 3], [1]) == [Difference("", "3 items", "1 items")]
    assert differences(float("inf"), 1.0, 0.5) == [Difference("", float("inf"), 1.0, 1.0)]
    assert differences(True, 1) == [Difference("", True, 1)]


def test_files_whose_bytes_differ_are_compared_by_who_can_read_them() -> None:
    one = {"ref": "runs/1/x", "size_bytes": 3, "sha256": "a"}
    other = {"ref": "runs/2/x", "size_bytes": 4, "sha256": "b"}
    asked = []

    def apart(distance: float | None) -> Any:
        def measure(first: dict[str, Any], second: dict[str, Any]) -> float | None:
            asked.append((first, second))
            return distance

        return measure

    assert differences({"f": one}, {"f": other}, 0.0, apart(0.25)) == [Difference("/f", "a", "b", 0.25)]
    assert asked == [(one, other)]
    assert differences({"f": one}, {"f": other}, 0.25, apart(0.25)) == []
    assert differences({"f": one}, {"f": other}, 0.0, apart(0.0)) == []
    assert [each.pointer for each in differences({"f": one}, {"f": other}, 0.0, apart(None))] == ["/f/sha256", "/f/size_bytes"]
    asked.clear()
    assert differences({"f": one}, {"f": {**other, "sha256": "a", "size_bytes": 3}}, 0.0, apart(1.0)) == []
    assert asked == [], "nobody reads files that are equal"


def test_long_values_are_shown_by_their_beginning() -> None:
    short, long = "x" * (MAX_VALUE_CHARACTERS - 2), "x" * (MAX_VALUE_CHARACTERS - 1)
    assert clipped(Difference("/a", short, long, 0.5)) == Difference("/a", short, '"' + long + "...", 0.5)
