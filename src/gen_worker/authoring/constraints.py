"""Payload constraints beyond types: `Annotated[int, Clamp(20, 50)]` moves a number into its range."""

import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

Apply = Callable[[Any], Any]


@dataclass(frozen=True)
class Clamp:
    """Bounds that a number is moved into, rather than refused at.

    `cast`: `"int"` rounds half up (any other `round` truncates), `"float"` converts, `""` keeps the kind of the input.
    NaN and infinities become `max`. Null, booleans and everything that is no number stay as they are.
    """

    min: float
    max: float
    cast: str = ""
    round: str = "half_up"

    def __post_init__(self) -> None:
        if not self.min <= self.max:
            raise ValueError(f"Clamp(min={self.min}, max={self.max}): min must not be above max")
        if self.cast not in ("", "int", "float"):
            raise ValueError(f"Clamp(cast={self.cast!r}): expected 'int', 'float' or ''")

    def apply(self, value: Any) -> Any:
        """The value inside the bounds."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        finite = math.isfinite(value)
        number = min(max(value, self.min), self.max) if finite else self.max
        if number != value and isinstance(value, int) and float(number).is_integer():
            number = int(number)
        if self.cast == "int":
            return math.floor(number + 0.5) if self.round == "half_up" else math.trunc(number)
        return float(number) if self.cast == "float" else number


@cache
def clamper(annotation: Any) -> Apply | None:
    """A function that applies every Clamp below `annotation` in place; None when there is none. Structs may be recursive."""
    if not _mentions_clamp(annotation, set()):
        return None
    return _build(annotation)


def _build(annotation: Any) -> Apply | None:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extras = get_args(annotation)
        clamps = [extra for extra in extras if isinstance(extra, Clamp)]
        return clamps[-1].apply if clamps else clamper(inner)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _struct_clamper(annotation)
    if origin in (Union, types.UnionType):
        return _union_clamper(annotation)
    if origin in (list, set, frozenset, tuple):
        return _collection_clamper(origin, get_args(annotation))
    if origin is dict:
        return _dict_clamper(get_args(annotation)[1])
    return None


def _struct_clamper(struct: type[msgspec.Struct]) -> Apply:
    fields: dict[str, Apply | None] | None = None

    def apply(value: Any) -> Any:
        nonlocal fields
        if fields is None:  # built on first use, since a struct may contain itself
            hints = typing.get_type_hints(struct, include_extras=True)
            fields = {name: clamper(hint) for name, hint in hints.items() if name in struct.__struct_fields__}
        if not isinstance(value, struct):
            return value
        for name, inner in fields.items():
            if inner is not None:
                msgspec.structs.force_setattr(value, name, inner(getattr(value, name)))
        return value

    return apply


def _union_clamper(annotation: Any) -> Apply:
    inners = [inner for inner in map(clamper, get_args(annotation)) if inner is not None]

    def apply(value: Any) -> Any:
        for inner in inners:
            value = inner(value)
        return value

    return apply


def _collection_clamper(origin: Any, args: tuple[Any, ...]) -> Apply:
    same = len(args) == 1 or (len(args) == 2 and args[1] is Ellipsis)
    inners = [clamper(arg) for arg in args if arg is not Ellipsis]

    def apply(value: Any) -> Any:
        if not isinstance(value, origin):
            return value
        each = inners * len(value) if same else inners
        return origin(inner(item) if inner else item for item, inner in zip(value, each, strict=True))

    return apply


def _dict_clamper(values: Any) -> Apply:
    inner = clamper(values)

    def apply(value: Any) -> Any:
        return {key: inner(item) for key, item in value.items()} if inner and isinstance(value, dict) else value

    return apply


def _mentions_clamp(annotation: Any, seen: set[Any]) -> bool:
    if get_origin(annotation) is Annotated:
        inner, *extras = get_args(annotation)
        return any(isinstance(extra, Clamp) for extra in extras) or _mentions_clamp(inner, seen)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        if annotation in seen:
            return False
        seen.add(annotation)
        hints = typing.get_type_hints(annotation, include_extras=True)
        return any(_mentions_clamp(hint, seen) for hint in hints.values())
    return any(_mentions_clamp(arg, seen) for arg in get_args(annotation))
