"""Builds payloads from named texts and files: the fields of a form, and `cozyctl run -i`.

The type of a field decides how its text is read. `size=1024` is a text for a `str`, a `Literal["1024"]` or an Enum of
texts, and a number for an `int`. A field that may be a `str` takes every text unchanged. Dates, UUIDs, decimals and
bytes (base64) are texts in JSON, and here. Everything else is JSON: `steps=7`, `tags=["a", "b"]`, `options={"hdr":
true}`.
"""

import base64
import enum
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from gen_worker.authoring.assets import Asset
from gen_worker.authoring.shapes import Fixed, Items, Leaf, OneOf, Record, Shape, Table, shape_of
from gen_worker.contract.form_fields import FormFieldError, place, steps_of
from gen_worker.execution.duplicate_keys import first_duplicate
from gen_worker.execution.unknown_fields import look

_JSON_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)
_LIST_END = "[]"  # how PHP and others name the fields of a list


class FormPayload:
    """Builds up a payload. `body` is what was sent as JSON besides the fields."""

    def __init__(self, struct: type[msgspec.Struct], body: Any = None) -> None:
        self.body: Any = {} if body is None else body
        self.uploads: dict[str, Path] = {}
        self._shape = shape_of(struct)

    def add_texts(self, name: str, texts: Sequence[str]) -> None:
        """Add a field by its name (`prompt`, `tags[0]`, `options.mask`); several texts form a list."""
        as_list = name.endswith(_LIST_END)
        name = name.removesuffix(_LIST_END)
        shapes = self._shapes_at(name)
        if len(texts) == 1 and not as_list:
            place(self.body, name, text_value(texts[0], shapes, name))
            return
        lists = _lists_of(name, shapes, len(texts))
        place(self.body, name, [text_value(text, _items(lists, index), name) for index, text in enumerate(texts)])

    def add_files(self, name: str, paths: Sequence[tuple[str, Path]]) -> None:
        """Add files by their field's name, as `(file name, path)`. A single file may stand for a list of files. A bytes
        field gets the file's content.
        """
        as_list = name.endswith(_LIST_END)
        name = name.removesuffix(_LIST_END)
        shapes = self._shapes_at(name)
        is_list_only = any(isinstance(shape, (Items, Fixed)) for shape in shapes) and not any(_takes_file(shape) for shape in shapes)
        if len(paths) == 1 and not as_list and not is_list_only:
            place(self.body, name, self._file(shapes, *paths[0]))
            return
        lists = _lists_of(name, shapes, len(paths))
        place(self.body, name, [self._file(_items(lists, index), *path) for index, path in enumerate(paths)])

    def takes_file(self, name: str) -> bool:
        """Whether a field accepts a file; True when its type is unknown."""
        shapes = self._shapes_at(name.removesuffix(_LIST_END))
        shapes += [item for shape in shapes if isinstance(shape, (Items, Fixed)) for part in shape.parts for item in part.members]
        return not shapes or any(_takes_file(shape) or shape.annotation is Any for shape in shapes)

    def encoded(self) -> bytes:
        return msgspec.json.encode(self.body)

    def _file(self, shapes: Sequence[Shape], file_name: str, path: Path) -> Any:
        if any(shape.annotation is bytes for shape in shapes) and not any(_is_asset(shape) for shape in shapes):
            return base64.b64encode(path.read_bytes()).decode()
        ref = f"upload:{len(self.uploads)}/{Path(file_name).name or 'file'}"
        self.uploads[ref] = path
        return {"ref": ref}

    def _shapes_at(self, name: str) -> list[Shape]:
        """The types that the field may have; empty when nothing is known about it."""
        shapes: list[Shape] = [self._shape]
        for step in steps_of(name):
            shapes = [member for shape in shapes for below in _below(shape, step) for member in below.members]
        return shapes


def read_json(text: str | bytes) -> Any:
    """Decode JSON of a caller's; duplicate keys are refused. `FormFieldError` says what is wrong."""
    data = text.encode() if isinstance(text, str) else text
    try:
        value = msgspec.json.decode(data)
        twice = first_duplicate(data, value, "json", look(None, value).key_count)
    except _JSON_ERRORS as exc:
        raise FormFieldError("it is nested too deep" if isinstance(exc, RecursionError) else str(exc)) from None
    if twice is not None:
        raise FormFieldError(f"the key at {twice} is given twice")
    return value


def text_value(text: str, shapes: Sequence[Shape], name: str) -> Any:
    """The value of a text for a field that may be any of `shapes`."""
    if any(shape.annotation is str for shape in shapes):
        return text
    if any(_fits(text, shape) for shape in shapes):
        return text
    try:
        value = msgspec.json.decode(text.encode())
    except _JSON_ERRORS:
        value = msgspec.UNSET
    if value is not msgspec.UNSET and (not shapes or isinstance(value, (dict, list)) or any(_fits(value, shape) for shape in shapes)):
        try:
            return read_json(text)
        except FormFieldError as exc:
            raise FormFieldError(f"field {name[:100]!r}: {exc}") from None
    for shape in shapes:
        if shape.annotation in (int, float, bool):  # " 7" and "True" are unambiguous
            try:
                return msgspec.convert(text.strip(), shape.annotation, strict=False)
            except msgspec.ValidationError:
                pass
    if text == "" and any(shape.annotation is type(None) for shape in shapes):
        return None  # a form field that was left empty
    if any(_is_asset(shape) for shape in shapes) and text.startswith(("https://", "http://", "data:")):
        return {"ref": text}
    # It fits none of the types. Decode it anyway, so that the error shows what was meant.
    return text if value is msgspec.UNSET or any(_is_text_in_json(shape) for shape in shapes) else value


def _lists_of(name: str, shapes: Sequence[Shape], count: int) -> list[Shape]:
    """Which of the types are lists; `FormFieldError` when none is and several values came."""
    lists: list[Shape] = [shape for shape in shapes if isinstance(shape, (Items, Fixed)) or (isinstance(shape, Record) and shape.is_array)]
    if shapes and not lists and not any(shape.annotation is Any for shape in shapes):
        raise FormFieldError(f"field {name[:100]!r} is given {count} times, but takes one value")
    return lists


def _items(lists: Sequence[Shape], index: int) -> list[Shape]:
    return [member for shape in lists for below in _below(shape, index) for member in below.members]


def _below(shape: Shape, step: str | int) -> Iterator[Shape]:
    match shape:
        case Record(is_array=False) if isinstance(step, str) and step in shape.by_key:
            yield shape.by_key[step].shape
        case Record(is_array=True):
            yield from (field.shape for field in shape.fields if field.index == step)
        case Table():
            yield shape.value
        case Items():
            yield shape.item
        case Fixed() if isinstance(step, int) and step < len(shape.parts):
            yield shape.parts[step]


def _fits(value: Any, shape: Shape) -> bool:
    if isinstance(shape, OneOf) or shape.annotation is Any:
        return not isinstance(value, str)
    try:
        msgspec.convert(value, shape.typed)
    except (msgspec.ValidationError, TypeError, ValueError):
        return False
    return True


def _is_text_in_json(shape: Shape) -> bool:
    kind = shape.annotation
    if get_origin(kind) is Literal:
        return any(isinstance(choice, str) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return any(isinstance(member.value, str) for member in kind)
    return isinstance(shape, Leaf) and kind not in (int, float, bool, type(None))


def _is_asset(shape: Shape) -> bool:
    return isinstance(shape, Record) and issubclass(shape.kind, Asset)


def _takes_file(shape: Shape) -> bool:
    return _is_asset(shape) or shape.annotation is bytes
