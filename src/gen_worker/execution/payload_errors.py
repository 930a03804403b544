"""Turns msgspec's complaint about a payload into what a caller needs: which field, what it accepts, what to write instead."""

import enum
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

import msgspec

from gen_worker.authoring.assets import Asset
from gen_worker.authoring.shapes import Fixed, Items, Record, Shape, Table
from gen_worker.errors import FieldError, ValidationError
from gen_worker.execution.unknown_fields import unknown_field
from gen_worker.json_keys import escape_pointer
from gen_worker.names import nearest

_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>[0-9]+)\]")
_MAX_CHOICES = 30
_MAX_SHOWN = 100
_MAX_TRIED = 1000
UNSEEN = object()
"""Stands for a payload that is too large to inspect for an error message."""
_MISSING, _UNKNOWN, _CHOICE, _TAG = (
    "Object missing required field `",
    "Object contains unknown field `",
    "Invalid enum value ",
    "Invalid value ",
)
_SCALARS = ("int", "float", "bool")  # how `-i field=5` is read; as a whole payload the text was meant as JSON
_FILE_HINT = 'A file is sent with @, as in -i {field}=@file or curl -F {field}=@file; in JSON it is {{"ref": URL}}'
_LIST_HINT = 'A list is written in JSON, as in ["a", "b"]; as fields also {field}[0]=a {field}[1]=b'
_OBJECT_HINT = 'An object is written in JSON, as in {{"key": "value"}}; as fields also {field}.key=value'


class _Place:
    """A position in a payload: its JSON pointer, its form in messages, its type and its value; `around` is its container."""

    def __init__(self, shape: Shape, value: Any) -> None:
        self.pointer = ""
        self.shown = "payload"
        self.shape: Shape | None = shape
        self.around: Shape | None = None
        self.value = value

    def enter(self, key: Any, shape: Shape | None) -> None:
        self.pointer += f"/{escape_pointer(str(key)[:_MAX_SHOWN])}"
        self.shown += f"[{key}]" if isinstance(key, int) else f".{str(key)[:_MAX_SHOWN]}"
        self.around, self.shape = self.shape, shape
        if self.value is UNSEEN:
            return
        try:
            self.value = self.value[key]
        except (LookupError, TypeError):
            self.value = None

    @property
    def members(self) -> tuple[Shape, ...]:
        return self.shape.members if self.shape else ()

    @property
    def member(self) -> Shape | None:
        return self.shape.member_for(self.value) if self.shape else None


def payload_error(text: str, shape: Shape, value: Any) -> ValidationError:
    """The error for `text`, msgspec's message about a payload of type `shape`. `value` is the payload as JSON data, or UNSEEN."""
    what, place, is_key = _read(text, shape, value)
    errors = [_key_error(what, place)] if is_key else _explain(what, place)
    sentence = f"{place.shown}: {errors[0].message}."
    for error in errors[1:]:
        sentence += f" {error.message[:1].upper()}{error.message[1:]}."
    if suggestion := errors[-1].suggestion:
        sentence += f" Did you mean {suggestion!r}?"
    hint = _hint(place.members) if errors[0].got == "str" or (errors[0].got in _SCALARS and place.pointer) else ""
    if hint:
        sentence += f" {hint.format(field=place.shown.partition('.')[2] or 'field')}."
    return ValidationError(sentence, errors=tuple(errors))


def _read(text: str, shape: Shape, value: Any) -> tuple[str, _Place, bool]:
    """What msgspec says, the position, and whether it is about the keys of the object there."""
    # msgspec's message may contain texts of callers. Its path comes after them, so the last match counts.
    what, _, path = text.rpartition(" - at `") if text.endswith("`") else (text, "", "$`")
    if not what:
        what, path = text, "$`"
    path = path[:-1]
    return what, _find(path.removeprefix("key` in `"), shape, value), path.startswith("key` in `")


def _find(path: str, shape: Shape, value: Any) -> _Place:
    """The position of msgspec's path, `$.a[0][...].b`. Field names may contain dots; `[...]` stands for some key of an object."""
    place = _Place(shape, value)
    rest = path[1:]
    while rest:
        member = place.member
        if rest.startswith("[...]"):
            rest = rest[5:]
            key = _wrong_key(member, place.value)
            if key is not None and isinstance(member, Table):
                place.enter(key, member.value)
            continue
        step = _STEP.match(rest)
        if step is None:
            break
        field = None
        if isinstance(member, Record) and not member.is_array:
            fits = [field for field in member.fields if rest[1:].startswith(field.key) and rest[1 + len(field.key) :][:1] in ("", ".", "[")]
            field = max(fits, key=lambda field: len(field.key), default=None)
        if field is not None:
            place.enter(field.key, field.shape)
            rest = rest[1 + len(field.key) :]
        else:
            place.enter(int(step["index"]) if step["index"] else step["name"], _item(member, step["index"]))
            rest = rest[step.end() :]
    return place


def _item(member: Shape | None, index: str | None) -> Shape | None:
    match member:
        case Items() if index:
            return member.item
        case Fixed() if index and int(index) < len(member.parts):
            return member.parts[int(index)]
        case Record() if index:
            return next((field.shape for field in member.fields if field.index == int(index)), None)
    return None


def _wrong_key(table: Shape | None, value: Any) -> Any:
    if isinstance(table, Table) and isinstance(value, dict):
        for key, item in list(value.items())[:_MAX_TRIED]:
            try:
                msgspec.convert(item, table.value.typed)
            except msgspec.ValidationError:
                return key
    return None


def _key_error(what: str, place: _Place) -> FieldError:
    wanted, _, got = _plain(what).removeprefix("Expected ").partition(", got ")
    return FieldError(place.pointer, f"expected keys that are {wanted}" + (f", got {got}" if got else ""), wanted, got or None)


def _explain(what: str, place: _Place) -> list[FieldError]:
    member = place.member
    if what.startswith(_MISSING):
        field = what[len(_MISSING) : -1]
        missing = FieldError(f"{place.pointer}/{escape_pointer(field)}", f"required field {field!r} is missing")
        return [missing, *_misspelt(field, place, member)]
    if what.startswith(_UNKNOWN) and isinstance(member, Record):
        return [unknown_field(place.pointer, what[len(_UNKNOWN) : -1], member)]
    if what.startswith(_CHOICE) and (choices := [choice for shape in place.members for choice in _choices(shape)]):
        return [_not_one_of(choices, place)]
    if what.startswith(_TAG) and place.around is not None:
        tags = [shape.tag for shape in place.around.members if isinstance(shape, Record) and shape.tag_field is not None]
        return [_not_one_of(tags, place)]
    plain = _plain(what)
    if not plain.startswith("Expected "):
        return [FieldError(place.pointer, f"{plain[:1].lower()}{plain[1:]}")]
    wanted, _, got = plain.removeprefix("Expected ").partition(", got ")
    return [FieldError(place.pointer, f"expected {wanted}" + (f", got {got}" if got else ""), wanted, got or None)]


def _misspelt(field: str, place: _Place, member: Shape | None) -> Iterator[FieldError]:
    """The key that the caller did send, if it resembles the missing one."""
    known = member.by_key if isinstance(member, Record) else {}
    sent = [key for key in place.value if isinstance(key, str) and key not in known] if isinstance(place.value, dict) else []
    found = nearest(field, sent)
    if found is not None:
        yield FieldError(f"{place.pointer}/{escape_pointer(found[:_MAX_SHOWN])}", f"unknown field {found[:_MAX_SHOWN]!r}", suggestion=field)


def _choices(shape: Shape) -> list[Any]:
    """The values allowed by a Literal or an Enum."""
    kind = shape.annotation
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [member.value for member in kind] if isinstance(kind, type) and issubclass(kind, enum.Enum) else []


def _not_one_of(choices: Sequence[Any], place: _Place) -> FieldError:
    listed = ", ".join(map(repr, choices[:_MAX_CHOICES])) + (", ..." if len(choices) > _MAX_CHOICES else "")
    if place.value is UNSEEN:
        return FieldError(place.pointer, f"expected one of {listed}", f"one of {listed}")
    by_text = {str(choice).lower(): str(choice) for choice in choices}
    shown = repr(place.value)[:_MAX_SHOWN]
    near = nearest(str(place.value)[:_MAX_SHOWN].lower(), by_text)
    return FieldError(place.pointer, f"expected one of {listed}, got {shown}", f"one of {listed}", shown, by_text[near] if near else None)


def _plain(what: str) -> str:
    return what.replace("`", "")


def _hint(members: Sequence[Shape]) -> str:
    """What to write instead of a text where no text is accepted."""
    if any(isinstance(member, Record) and issubclass(member.kind, Asset) for member in members):
        return _FILE_HINT
    if any(isinstance(member, (Items, Fixed)) or (isinstance(member, Record) and member.is_array) for member in members):
        return _LIST_HINT
    return _OBJECT_HINT if any(isinstance(member, (Record, Table)) for member in members) else ""
