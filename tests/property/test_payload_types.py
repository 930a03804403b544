"""Laws of payload types: however an author nests types, a file in them is found, a clamp holds, and no caller can say where a file is."""

import collections
import dataclasses
import gc
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_worker import Asset, Clamp
from gen_worker.authoring.found_assets import find_assets, holds_assets
from gen_worker.execution.payloads import read_payload

try:
    import attrs
except ImportError:
    attrs = None
EVIL = "/etc/evil-path"
T = TypeVar("T")
U = TypeVar("U")
Photo = NewType("Photo", Asset)
Steps = Annotated[int, Clamp(1, 9)]


class Picture(Asset, kw_only=True):
    title: str = ""


class Frozen(Asset, frozen=True):
    page: int = 0


class Box(msgspec.Struct, Generic[T]):
    inner: T


class Crate(Box[list[U]], Generic[U]):
    other: U


@dataclasses.dataclass
class Shelf(Generic[T]):
    inner: T


class Drawer(NamedTuple, Generic[T]):
    inner: T


class Row(TypedDict, Generic[T]):
    inner: T


class Tree(msgspec.Struct):
    leaf: Asset
    steps: Steps
    below: "list[Tree]" = []


class Cat(msgspec.Struct, tag="cat"):
    picture: Asset
    steps: Steps = 1


class Dog(msgspec.Struct, tag="dog", array_like=True):
    picture: Asset
    steps: Steps = 1


class Bird(msgspec.Struct, tag="bird"):
    picture: Asset
    steps: Steps = 1


FILE = {"ref": "x", "local_path": EVIL, "path": EVIL, "__dict__": {"local_path": EVIL}, "_local_path": EVIL}
TREE = {"leaf": FILE, "steps": 99, "below": [{"leaf": FILE, "steps": -5}]}
_numbers = itertools.count()

# A type, and what a caller sends for it. `_` is any type that stands inside.
Case = tuple[Any, Any]
LEAVES: Sequence[Case] = [
    (Asset, FILE),
    (Picture, FILE),
    (Frozen, FILE),
    (Photo, FILE),
    (Steps, 99),
    (Annotated[float, Clamp(0, 1)] | None, 7.5),
    (Tree, TREE),
    (Cat | Bird, {"type": "cat", "picture": FILE, "steps": 99}),
    (Cat | Bird | None, {"type": "bird", "picture": FILE, "steps": 99}),
    (Dog | int, ["dog", FILE, 99]),
    (Crate[Asset], {"inner": [FILE, FILE], "other": FILE}),
    (Any, FILE),
]


def struct_case(case: Case, **config: Any) -> Case:
    kind = msgspec.defstruct(f"Made{next(_numbers)}", [("some_field", case[0]), ("some_other", case[0])], **config)
    if config.get("array_like"):
        return kind, [case[1], case[1]]
    names = ("someField", "someOther") if config.get("rename") == "camel" else ("some_field", "some_other")
    return kind, dict.fromkeys(names, case[1])


WRAPPERS = [
    lambda case: struct_case(case),
    lambda case: struct_case(case, frozen=True),
    lambda case: struct_case(case, array_like=True),
    lambda case: struct_case(case, rename="camel"),
    lambda case: (dataclasses.make_dataclass(f"Made{next(_numbers)}", [("inner", case[0])]), {"inner": case[1]}),
    lambda case: (dataclasses.make_dataclass(f"Made{next(_numbers)}", [("inner", case[0])], frozen=True, slots=True), {"inner": case[1]}),
    lambda case: (NamedTuple(f"Made{next(_numbers)}", [("inner", case[0]), ("other", Any)]), [case[1], 1]),
    lambda case: (TypedDict(f"Made{next(_numbers)}", {"inner": case[0]}, total=False), {"inner": case[1]}),
    lambda case: (Box[case[0]], {"inner": case[1]}),
    lambda case: (Crate[case[0]], {"inner": [case[1]], "other": case[1]}),
    lambda case: (Shelf[case[0]], {"inner": case[1]}),
    lambda case: (Drawer[case[0]], [case[1]]),
    lambda case: (Row[case[0]], {"inner": case[1]}),
    lambda case: (list[case[0]], [case[1], case[1]]),
    lambda case: (tuple[case[0], ...], [case[1], case[1]]),
    lambda case: (tuple[int, case[0]], [1, case[1]]),
    lambda case: (Sequence[case[0]], [case[1]]),
    lambda case: (Mapping[str, case[0]], {"a/b~c": case[1]}),
    lambda case: (collections.abc.MutableMapping[str, case[0]], {"a": case[1]}),
    lambda case: (dict[str, case[0]], {"a": case[1]}),
    lambda case: (case[0] | None, case[1]),
    lambda case: (Annotated[case[0], "said of it", {"not": "hashable"}], case[1]),
    lambda case: (Annotated[list[case[0]], msgspec.Meta(max_length=3)], [case[1]]),
    lambda case: (NewType("New", case[0]), case[1]),
]
if attrs is not None:
    WRAPPERS.append(
        lambda case: (attrs.make_class(f"Made{next(_numbers)}", {"inner": attrs.field(type=case[0])}, frozen=True), {"inner": case[1]})
    )


def wrapped(wrap: Any, case: Case) -> Case:
    try:
        return wrap(case)
    except TypeError:  # typing takes no such union
        return case


CASES = st.recursive(st.sampled_from(LEAVES), lambda inner: st.builds(wrapped, st.sampled_from(WRAPPERS), inner))


def everything_in(value: Any) -> list[Any]:
    """All objects that a value holds, by looking at memory: knows nothing of types."""
    found, todo = {}, [value]
    while todo:
        each = todo.pop()
        if id(each) not in found and not isinstance(each, (type, str, int, float)):
            found[id(each)] = each
            todo.extend(gc.get_referents(each))
            slots = [name for kind in type(each).__mro__ for name in getattr(kind, "__slots__", ())]
            todo.extend(getattr(each, name, None) for name in (*slots, *getattr(each, "__struct_fields__", ())) if name != "__weakref__")
    return list(found.values())


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@given(case=CASES)
def test_no_caller_says_where_a_file_lies_and_every_file_is_found(encoding: Any, case: Case) -> None:
    try:
        payload_type, body = struct_case(case)
        data = (msgspec.json if encoding == "json" else msgspec.msgpack).encode(body)
        decoder = msgspec.json.Decoder(payload_type)
    except TypeError:
        return  # msgspec itself takes no such type: two classes without a tag in a union
    del decoder
    payload = read_payload(payload_type, data, encoding).value
    inside = everything_in(payload)
    assets = [each for each in inside if isinstance(each, Asset)]
    assert [asset.local_path for asset in assets] == [None] * len(assets)
    found = dict(find_assets(payload))
    assert {id(asset) for asset in found.values()} == {id(asset) for asset in assets}
    assert all(resolved(body, pointer) == FILE for pointer in found)
    assert holds_assets(payload_type) or not assets
    again = read_payload(payload_type, msgspec.json.encode(payload)).value
    assert msgspec.json.encode(again) == msgspec.json.encode(payload), "clamped once is clamped"
    for name in ("steps", "some_field"):
        numbers = [getattr(each, name) for each in inside if hasattr(type(each), "__struct_fields__") and name in each.__struct_fields__]
        assert not [number for number in numbers if type(number) in (int, float) and not 0 <= number <= 9]


def resolved(body: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        body = body[int(part)] if isinstance(body, list) else body[part.replace("~1", "/").replace("~0", "~")]
    return body


@given(st.dictionaries(st.sampled_from(["ref", "local_path", "owner", "__dict__", "__class__", "local-path", "localPath"]), st.just(EVIL)))
def test_no_key_of_an_asset_is_its_path(body: dict[str, str]) -> None:
    asset = msgspec.convert(body | {"ref": "x"}, Asset)
    assert asset.local_path is None
    assert not asset.exists()


def test_a_subclass_cannot_make_the_path_a_field() -> None:
    with pytest.raises(TypeError, match="would be read from callers' payloads"):
        type(Asset)("Bad", (Asset,), {"__annotations__": {"local_path": str}, "local_path": ""})
