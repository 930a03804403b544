"""What msgspec decodes a type into: the only code that walks payload types, for files, clamps, patterns, schemas and
texts.

    Record   Struct, dataclass, attrs class, NamedTuple, TypedDict: fields by name
    Items    list, set, frozenset, tuple[T, ...], Sequence and similar: many values of one shape
    Fixed    tuple[A, B]: one shape for each position
    Table    dict, Mapping: keys and values
    OneOf    unions
    Leaf     everything else: numbers, texts, dates, enums, Literal, Any, Raw

Annotated, NewType, Final, Required, type aliases, type variables and generic classes are resolved on the way, as
msgspec does; the extras of Annotated are kept in `extras`. A type may contain itself, so parts are made on first use,
and each type once. **All questions about a payload's type are answered here**; otherwise the answers would differ, and
a file in a dataclass would not be fetched.
"""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import sys
import types
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

Access = Literal["attribute", "index", "key"]
_LISTS = (
    list, tuple, set, frozenset,
    collections.abc.Collection, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Set, collections.abc.MutableSet,
)  # fmt: skip
_TABLES = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SCALARS = {
    bool, int, float, str, bytes, bytearray, type(None), decimal.Decimal, uuid.UUID,
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
}  # fmt: skip
_WRAPPERS = {"Final", "Required", "NotRequired", "ReadOnly", "ClassVar"}


class Shape:
    """A type and its parts. `annotation` is what msgspec takes, without the surrounding Annotated."""

    def __init__(self, annotation: Any, extras: tuple[Any, ...], child: "Callable[[Any], Shape]") -> None:
        self.annotation = annotation
        self.extras = extras
        self._child = child

    @property
    def parts(self) -> tuple["Shape", ...]:
        return ()

    def everywhere(self) -> Iterator["Shape"]:
        """This shape and all below it, each once."""
        seen: set[int] = set()
        todo = [self]
        while todo:
            shape = todo.pop()
            if id(shape) not in seen:
                seen.add(id(shape))
                yield shape
                todo.extend(shape.parts)

    @cached_property
    def is_scalar(self) -> bool:
        """Whether values of this shape can contain no JSON object: then there is no need to look for one."""
        return all(
            isinstance(below, (Items, Fixed, OneOf)) or (isinstance(below, Leaf) and below.is_text_or_number) for below in self.everywhere()
        )

    @cached_property
    def members(self) -> "tuple[Shape, ...]":
        """The possible types: the members of a union, including nested unions; otherwise itself."""
        return tuple(member for part in self.parts for member in part.members) if isinstance(self, OneOf) else (self,)

    def member_for(self, value: Any) -> "Shape | None":
        """The member that a JSON value is meant for, by its kind and its tag. msgspec requires that JSON can tell members apart."""
        if not isinstance(self, OneOf):
            return self
        if isinstance(value, dict):
            objects = [
                member for member in self.members if isinstance(member, Table) or (isinstance(member, Record) and not member.is_array)
            ]
            return _tagged(objects, lambda record: value.get(record.tag_field))
        if isinstance(value, (list, tuple)):
            arrays = [
                member for member in self.members if isinstance(member, (Items, Fixed)) or (isinstance(member, Record) and member.is_array)
            ]
            return _tagged(arrays, lambda record: value[0] if value else None)
        return None

    @cached_property
    def typed(self) -> Any:
        """The type with the extras that msgspec knows, for converting a single value."""
        metas = tuple(extra for extra in self.extras if isinstance(extra, msgspec.Meta))
        return Annotated[self.annotation, *metas] if metas else self.annotation


class Leaf(Shape):
    """A value without parts."""

    @cached_property
    def is_text_or_number(self) -> bool:
        """False for types that may contain anything, such as Any and Raw."""
        kind = self.annotation
        return get_origin(kind) is Literal or (isinstance(kind, type) and (kind in _SCALARS or issubclass(kind, enum.Enum)))


class Items(Shape):
    @cached_property
    def item(self) -> Shape:
        args = [arg for arg in get_args(self.annotation) if arg is not Ellipsis]
        return self._child(args[0] if args else Any)

    @property
    def parts(self) -> tuple[Shape, ...]:
        return (self.item,)


class Fixed(Shape):
    @cached_property
    def parts(self) -> tuple[Shape, ...]:
        return tuple(self._child(arg) for arg in get_args(self.annotation))


class Table(Shape):
    @cached_property
    def parts(self) -> tuple[Shape, Shape]:
        args = get_args(self.annotation) or (Any, Any)
        return self._child(args[0]), self._child(args[1])

    @property
    def key(self) -> Shape:
        return self.parts[0]

    @property
    def value(self) -> Shape:
        return self.parts[1]


class OneOf(Shape):
    @cached_property
    def parts(self) -> tuple[Shape, ...]:
        parts = [self._child(arg) for arg in get_args(self.annotation)]
        # A union inside a union is one union, even under an alias, unless the alias has extras.
        return tuple(below for part in parts for below in (part.parts if isinstance(part, OneOf) and not part.extras else (part,)))


class RecordField(msgspec.Struct, frozen=True):
    """`name` in Python, `key` in JSON; `index` when the record is an array in JSON."""

    name: str
    key: str
    index: int
    shape: Shape


class Record(Shape):
    """A class with fields. `access` says how a decoded value stores them, `is_array` whether JSON has them in a list."""

    def __init__(self, annotation: Any, extras: tuple[Any, ...], child: Callable[[Any], Shape]) -> None:
        super().__init__(annotation, extras, child)
        self.kind: type = get_origin(annotation) or annotation
        is_struct = issubclass(self.kind, msgspec.Struct)
        self.access: Access = "key" if issubclass(self.kind, dict) else "index" if issubclass(self.kind, tuple) else "attribute"
        config = self.kind.__struct_config__ if is_struct else None
        self.is_array = self.access == "index" or bool(config and config.array_like)
        self.tag_field: str | None = config.tag_field if config else None
        self.tag: Any = config.tag if config else None

    @cached_property
    def fields(self) -> tuple[RecordField, ...]:
        """Fields in the order in which msgspec reads them."""
        found = _fields_of(self.kind, self.annotation)
        first = 1 if self.is_array and self.tag_field is not None else 0  # the tag of an array comes before its fields
        return tuple(RecordField(name, key, index, self._child(hint)) for index, (name, key, hint) in enumerate(found, first))

    @cached_property
    def by_key(self) -> Mapping[str, RecordField]:
        return {field.key: field for field in self.fields}

    @property
    def parts(self) -> tuple[Shape, ...]:
        return tuple(field.shape for field in self.fields)


@cache
def shape_of(struct: type) -> Shape:
    """The shape of a payload or output type."""
    return _Builder().build(struct)


class _Builder:
    """Makes shapes; one for each type, so that a type that contains itself does not recurse for ever."""

    def __init__(self) -> None:
        self._made: dict[Any, Shape] = {}

    def build(self, annotation: Any) -> Shape:
        try:
            found = self._made.get(annotation)
        except TypeError:  # an extra of Annotated that is not hashable; such a type cannot refer to itself
            return self._new(annotation)
        if found is None:
            found = self._made[annotation] = self._new(annotation)
        return found

    def _new(self, annotation: Any) -> Shape:
        plain, extras = read_through(annotation)
        origin = get_origin(plain)
        kind = origin or plain
        if kind in (Union, types.UnionType):
            return OneOf(plain, extras, self.build)
        if not isinstance(kind, type):
            return Leaf(plain, extras, self.build)
        if is_record(kind):
            return Record(plain, extras, self.build)
        if kind is tuple and Ellipsis not in get_args(plain) and origin is not None:
            return Fixed(plain, extras, self.build)
        if kind in _LISTS:
            return Items(plain, extras, self.build)
        return (Table if kind in _TABLES else Leaf)(plain, extras, self.build)


def is_record(kind: type) -> bool:
    """Whether msgspec decodes a class field by field."""
    return (
        issubclass(kind, msgspec.Struct)
        or (issubclass(kind, dict) and hasattr(kind, "__total__"))
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
        or dataclasses.is_dataclass(kind)
        or hasattr(kind, "__attrs_attrs__")
    )


def _tagged(members: Sequence[Shape], tag_of: Callable[["Record"], Any]) -> Shape | None:
    """The member with the tag of the value; the only member if there is just one."""
    for member in members:
        if isinstance(member, Record) and member.tag_field is not None and tag_of(member) == member.tag:
            return member
    untagged = [member for member in members if not (isinstance(member, Record) and member.tag_field is not None)]
    return untagged[0] if len(untagged) == 1 else members[0] if len(members) == 1 else None


def read_through(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type behind Annotated, NewType, aliases, type variables and wrappers such as Final; and the extras of Annotated."""
    extras: tuple[Any, ...] = ()
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            inner, *found = get_args(annotation)
            annotation, extras = inner, (*found, *extras)
        elif annotation is None:
            return type(None), extras
        elif type(annotation).__name__ == "TypeAliasType":  # of typing (since 3.12) or of typing_extensions
            annotation = annotation.__value__
        elif type(origin).__name__ == "TypeAliasType":
            annotation = _substitute(origin.__value__, dict(zip(origin.__type_params__, get_args(annotation), strict=False)))
        elif _name(origin) in _WRAPPERS:
            annotation = get_args(annotation)[0]
        elif _name(annotation) in _WRAPPERS:
            return Any, extras
        elif isinstance(annotation, TypeVar):
            annotation = annotation.__bound__ or (Union[annotation.__constraints__] if annotation.__constraints__ else Any)  # noqa: UP007
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        else:
            return annotation, extras


def _name(special: Any) -> str:
    module = getattr(type(special), "__module__", "")
    return getattr(special, "_name", "") or "" if module in ("typing", "typing_extensions") else ""


def _fields_of(kind: type, annotation: Any) -> list[tuple[str, str, Any]]:
    """`(name, key, type)` of each field."""
    if issubclass(kind, msgspec.Struct):
        return [(field.name, field.encode_name, field.type) for field in msgspec.structs.fields(annotation)]
    hints = _class_hints(annotation)
    if issubclass(kind, tuple):
        names = list(kind._fields)  # type: ignore[attr-defined]
    elif dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [field.name for field in kind.__attrs_attrs__]
    else:
        names = list(hints)
    return [(name, name, hints.get(name, Any)) for name in names]


def _class_hints(annotation: Any) -> dict[str, Any]:
    """The types of a class's own and inherited fields, with type variables resolved for each class."""
    kind: type = get_origin(annotation) or annotation
    known: dict[type, dict[Any, Any]] = {}
    _bind(annotation, {}, known)
    hints: dict[str, Any] = {}
    for owner in kind.__mro__:
        names = inspect.get_annotations(owner) if owner.__module__ != "builtins" else {}
        if not any(name not in hints for name in names):
            continue
        found = typing.get_type_hints(owner, vars(sys.modules.get(owner.__module__, typing)), dict(vars(owner)), include_extras=True)
        for name in names:
            hints.setdefault(name, _substitute(found[name], known.get(owner, {})))
    # A TypedDict has no base classes at run time, but lists them; all fields are its own.
    for base in types.get_original_bases(kind) if issubclass(kind, dict) and hasattr(types, "get_original_bases") else ():
        if get_origin(base) is not None and is_record(get_origin(base)):
            hints |= {name: hint for name, hint in _class_hints(_substitute(base, known.get(kind, {}))).items() if name in hints}
    return hints


def _bind(annotation: Any, scope: Mapping[Any, Any], known: dict[type, dict[Any, Any]]) -> None:
    """Record in `known` the arguments for the type variables of each generic class in a hierarchy."""
    origin = get_origin(annotation)
    kind = origin or annotation
    if not isinstance(kind, type) or kind in (object, typing.Generic):
        return
    given = [_substitute(arg, scope) for arg in get_args(annotation)] if origin is not None else []
    known.setdefault(kind, dict(zip(getattr(kind, "__parameters__", ()), given, strict=False)))
    for base in kind.__dict__.get("__orig_bases__", kind.__bases__):
        _bind(base, known[kind], known)


def _substitute(annotation: Any, bound: Mapping[Any, Any]) -> Any:
    if isinstance(annotation, TypeVar):
        return bound.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if isinstance(annotation, type) or not isinstance(parameters, tuple) or not parameters or not bound:
        return annotation
    return annotation[tuple(bound.get(parameter, parameter) for parameter in parameters)]
