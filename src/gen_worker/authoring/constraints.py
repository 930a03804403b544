"""Applies those constraints of a payload type to a decoded value that msgspec does not know."""

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from gen_worker.authoring.clamp import Clamp
from gen_worker.authoring.shapes import Fixed, Items, Leaf, OneOf, Record, RecordField, Shape, Table, shape_of

Apply = Callable[[Any], Any]


@cache
def clamper(struct: type) -> Apply | None:
    """A function that applies every Clamp in a payload type to a decoded value, in place if possible; None when there is none."""
    return _Clampers().build(shape_of(struct))


class _Clampers:
    def __init__(self) -> None:
        self._records: dict[int, Apply] = {}

    def build(self, shape: Shape) -> Apply | None:
        clamps = [extra for extra in shape.extras if isinstance(extra, Clamp)]
        if clamps:
            return _to_float(clamps[-1].apply) if shape.annotation is float else clamps[-1].apply
        if not any(isinstance(extra, Clamp) for below in shape.everywhere() for extra in below.extras):
            return None
        match shape:
            case Record():
                return self._records.get(id(shape)) or self._record(shape)
            case Items():
                return self._items(shape)
            case Fixed():
                return self._fixed(shape)
            case Table():
                return self._table(shape)
            case OneOf():
                return self._one_of(shape)
        return None

    def _record(self, record: Record) -> Apply:
        fields: list[tuple[RecordField, Apply]] = []
        by_index: dict[int, Apply] = {}

        def to_attributes(value: Any) -> Any:
            for field, inner in fields:
                before = getattr(value, field.name)
                after = inner(before)
                if after is not before:
                    put(value, field.name, after)
            return value

        def to_keys(value: Any) -> Any:
            for field, inner in fields:
                if field.name in value:
                    value[field.name] = inner(value[field.name])
            return value

        def to_places(value: Any) -> Any:
            return value._make(by_index[index](item) if index in by_index else item for index, item in enumerate(value))

        # Frozen ones, too: the value is still being created.
        put = msgspec.structs.force_setattr if issubclass(record.kind, msgspec.Struct) else object.__setattr__
        apply = {"attribute": to_attributes, "key": to_keys, "index": to_places}[record.access]
        self._records[id(record)] = apply  # registered before its fields, because a record may contain itself
        fields += [(field, inner) for field in record.fields if (inner := self.build(field.shape)) is not None]
        by_index |= {field.index: inner for field, inner in fields}
        return apply

    def _items(self, items: Items) -> Apply | None:
        inner = self.build(items.item)
        return None if inner is None else lambda value: type(value)(map(inner, value))

    def _fixed(self, fixed: Fixed) -> Apply:
        inners = [self.build(part) for part in fixed.parts]
        return lambda value: tuple([inner(item) if inner else item for inner, item in zip(inners, value, strict=True)])

    def _table(self, table: Table) -> Apply:
        of_key, of_value = self.build(table.key) or _same, self.build(table.value) or _same
        return lambda value: {of_key(key): of_value(item) for key, item in value.items()}

    def _one_of(self, union: OneOf) -> Apply:
        inners = [(part, inner) for part in union.parts if (inner := self.build(part)) is not None]

        def apply(value: Any) -> Any:
            for part, inner in inners:
                if _is_of(value, part):
                    return inner(value)
            return value

        return apply


def _is_of(value: Any, shape: Shape) -> bool:
    """Whether a decoded value belongs to this member of a union. msgspec allows one member of each JSON kind, so the kind decides."""
    match shape:
        case Record():
            return isinstance(value, dict if shape.access == "key" else shape.kind)
        case Table():
            return isinstance(value, dict)
        case Items() | Fixed():
            return type(value) in (list, tuple, set, frozenset)
        case OneOf():
            return any(_is_of(value, part) for part in shape.parts)
        case Leaf(annotation=kind) if kind in (int, float):
            return type(value) is kind
    return isinstance(value, (int, float))


def _to_float(apply: Apply) -> Apply:
    def apply_to_float(value: Any) -> Any:  # Clamp(0, 1) has integer bounds, but the field stays a float
        found = apply(value)
        return float(found) if isinstance(value, float) else found

    return apply_to_float


def _same(value: Any) -> Any:
    return value
