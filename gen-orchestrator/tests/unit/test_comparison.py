"""Outputs compared value by value."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain.comparison import MAX_DIFFERENCES, differences

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
