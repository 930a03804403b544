"""Two outputs of one function, compared value by value: equal, near enough, or different, and where.

Values that always differ are ignored: refs of files contain the run's id, so files are compared by digest, or by size if there is no
digest. A caller that can read the files may pass a distance instead (`FileDistance`), because images that look alike differ in every
byte.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

_FILE_OF_A_RUN = frozenset({"ref", "url", "owner", "local_path"})
MAX_DIFFERENCES = 100
MAX_VALUE_CHARACTERS = 200
# distance of two files with different bytes, from 0 to 1; None: unknown
FileDistance = Callable[[dict[str, Any], dict[str, Any]], float | None]


class Difference(msgspec.Struct, frozen=True):
    """`pointer` is a JSON Pointer into the output. `distance` of two numbers is relative to the larger one; otherwise 1."""

    pointer: str
    expected: Any
    actual: Any
    distance: float = 1.0


def differences(expected: Any, actual: Any, tolerance: float = 0.0, file_distance: FileDistance | None = None) -> list[Difference]:
    """The differences, at most 100. Numbers may differ by `tolerance` times the larger one, files by `tolerance` if
    `file_distance` knows their distance.
    """
    found = []
    for each in _walk(expected, actual, "", file_distance):
        if each.distance > tolerance:
            found.append(each)
        if len(found) == MAX_DIFFERENCES:
            break
    return found


def clipped(difference: Difference) -> Difference:
    """The same with values short enough to be stored and shown: a longer one becomes the beginning of its JSON."""
    return msgspec.structs.replace(difference, expected=_clipped(difference.expected), actual=_clipped(difference.actual))


def _clipped(value: Any) -> Any:
    text = msgspec.json.encode(value).decode()
    return value if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "..."


def _walk(expected: Any, actual: Any, pointer: str, file_distance: FileDistance | None) -> Iterator[Difference]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        if _is_file(expected) and _is_file(actual) and file_distance is not None and _are_other_bytes(expected, actual):
            distance = file_distance(expected, actual)
            if distance is not None:
                if distance > 0:
                    yield Difference(pointer, expected.get("sha256"), actual.get("sha256"), distance)
                return
        yield from _objects(expected, actual, pointer, file_distance)
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield Difference(pointer, f"{len(expected)} items", f"{len(actual)} items")
        for place, (one, other) in enumerate(zip(expected, actual, strict=False)):
            yield from _walk(one, other, f"{pointer}/{place}", file_distance)
    elif _is_number(expected) and _is_number(actual):
        distance = _distance(float(expected), float(actual))
        if distance > 0:
            yield Difference(pointer, expected, actual, distance)
    elif expected != actual or isinstance(expected, bool) != isinstance(actual, bool):
        yield Difference(pointer, expected, actual)


def _is_file(value: dict[str, Any]) -> bool:
    return "ref" in value and "size_bytes" in value


def _are_other_bytes(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return not one.get("sha256") or one["sha256"] != other.get("sha256")


def _objects(expected: dict[str, Any], actual: dict[str, Any], pointer: str, file_distance: FileDistance | None) -> Iterator[Difference]:
    left_out = _FILE_OF_A_RUN if "ref" in actual and _is_file(expected) else frozenset()
    for name in sorted({*expected, *actual} - left_out):
        place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in actual:
            yield Difference(place, expected[name], None)
        elif name not in expected:
            yield Difference(place, None, actual[name])
        else:
            yield from _walk(expected[name], actual[name], place, file_distance)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _distance(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    if not math.isfinite(one) or not math.isfinite(other):
        return 1.0
    return abs(one - other) / max(abs(one), abs(other))
