"""Two outputs of one function, compared value by value: equal, near enough, or different, and where.

What differs by chance is left out: refs of files hold the run's id, so files are compared by their digest, or by their size where there
is none.
"""

import math
from collections.abc import Iterator
from typing import Any

import msgspec

_FILE_OF_A_RUN = frozenset({"ref", "url", "owner", "local_path"})
MAX_DIFFERENCES = 100


class Difference(msgspec.Struct, frozen=True):
    """`pointer` is a JSON Pointer into the output. `distance`: of two numbers, relative to the larger one; 1 for all else."""

    pointer: str
    expected: Any
    actual: Any
    distance: float = 1.0


def differences(expected: Any, actual: Any, tolerance: float = 0.0) -> list[Difference]:
    """What differs, at most 100 places. Numbers may be apart by `tolerance` times the larger one of both."""
    found = []
    for each in _walk(expected, actual, ""):
        if each.distance > tolerance:
            found.append(each)
        if len(found) == MAX_DIFFERENCES:
            break
    return found


def _walk(expected: Any, actual: Any, pointer: str) -> Iterator[Difference]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        yield from _objects(expected, actual, pointer)
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield Difference(pointer, f"{len(expected)} items", f"{len(actual)} items")
        for place, (one, other) in enumerate(zip(expected, actual, strict=False)):
            yield from _walk(one, other, f"{pointer}/{place}")
    elif _is_number(expected) and _is_number(actual):
        distance = _distance(float(expected), float(actual))
        if distance > 0:
            yield Difference(pointer, expected, actual, distance)
    elif expected != actual or isinstance(expected, bool) != isinstance(actual, bool):
        yield Difference(pointer, expected, actual)


def _objects(expected: dict[str, Any], actual: dict[str, Any], pointer: str) -> Iterator[Difference]:
    left_out = _FILE_OF_A_RUN if "ref" in expected and "ref" in actual and "size_bytes" in expected else frozenset()
    for name in sorted({*expected, *actual} - left_out):
        place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in actual:
            yield Difference(place, expected[name], None)
        elif name not in expected:
            yield Difference(place, None, actual[name])
        else:
            yield from _walk(expected[name], actual[name], place)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _distance(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    if not math.isfinite(one) or not math.isfinite(other):
        return 1.0
    return abs(one - other) / max(abs(one), abs(other))
