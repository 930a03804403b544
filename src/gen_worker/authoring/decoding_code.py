"""Tells whether decoding a payload type runs its author's code. Such code may block, so these types are never decoded
on an event loop.
"""

import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import Any, get_origin

import msgspec

from gen_worker.authoring.shapes import Record, Shape

_HARMLESS = (list, dict, set, frozenset, tuple, bytearray)


def runs_authors_code(shape: Shape) -> bool:
    """Whether msgspec calls the author's code for a value of this type: a `__post_init__`, a default factory, an Enum's
    `_missing_`, anything in an attrs class.
    """
    return any(map(_runs_code, shape.everywhere()))


def _runs_code(shape: Shape) -> bool:
    kind = get_origin(shape.annotation) or shape.annotation
    if not isinstance(kind, type):
        return False
    if isinstance(shape, Record):
        return (
            hasattr(kind, "__post_init__")
            or hasattr(kind, "__attrs_attrs__")  # includes its validators and converters
            or any(factory not in _HARMLESS for factory in _factories(kind))
        )
    return issubclass(kind, enum.Enum) and getattr(kind._missing_, "__module__", "") != enum.__name__


def _factories(kind: type) -> Iterator[Callable[[], Any]]:
    if issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            if field.default_factory is not msgspec.NODEFAULT:
                yield field.default_factory
    elif dataclasses.is_dataclass(kind):
        for known in dataclasses.fields(kind):
            if known.default_factory is not dataclasses.MISSING:
                yield known.default_factory
