"""Fields of forms and of `cozyctl run -i`: the type of the field decides how a text is read."""

import datetime
import decimal
import enum
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pytest

from gen_worker import Asset, Clamp
from gen_worker.contract.form_fields import FormFieldError
from gen_worker.errors import ValidationError
from gen_worker.execution.payloads import read_payload
from gen_worker.execution.text_fields import FormPayload


class Size(enum.StrEnum):
    SMALL = "512"


class Mode(enum.IntEnum):
    FAST = 1


class Options(msgspec.Struct):
    name: str = ""
    mask: Asset | None = None
    steps: Annotated[int, Clamp(1, 50)] = 1


class Circle(msgspec.Struct, tag="circle"):
    label: str


class Square(msgspec.Struct, tag="square"):
    label: str
    side: int = 1


class Point(NamedTuple):
    x: int
    name: str


class Input(msgspec.Struct):
    text: str = ""
    literal: Literal["1024", "true"] | None = None
    mixed: Literal["a", 7] | None = None
    size: Size | None = None
    mode: Mode | None = None
    maybe: str | None = None
    either: int | str = 0
    count: int | None = None
    share: float = 0.0
    flag: bool = False
    raw: bytes = b""
    day: datetime.date | None = None
    when: datetime.datetime | None = None
    price: decimal.Decimal | None = None
    uid: uuid.UUID | None = None
    tags: list[str] = []
    numbers: list[int] = []
    pair: tuple[str, int] | None = None
    words: dict[str, str] = {}
    options: Options = msgspec.field(default_factory=Options)
    shape: Circle | Square | None = None
    point: Point | None = None
    anything: Any = None
    image: Asset | None = None
    images: list[Asset] = []
    renamed: str = msgspec.field(default="", name="reName")


def payload(*fields: tuple[str, str]) -> Input:
    form = FormPayload(Input)
    by_name: dict[str, list[str]] = {}
    for name, text in fields:
        by_name.setdefault(name, []).append(text)
    for name, texts in by_name.items():
        form.add_texts(name, texts)
    found: Input = read_payload(Input, form.encoded()).value
    return found


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("text", "1024", "1024"),
        ("text", '{"a": 1}', '{"a": 1}'),
        ("text", "²", "²"),
        ("literal", "1024", "1024"),
        ("literal", "true", "true"),
        ("mixed", "7", 7),
        ("mixed", "a", "a"),
        ("size", "512", Size.SMALL),
        ("mode", "1", Mode.FAST),
        ("maybe", "null", "null"),
        ("maybe", "", ""),
        ("either", "12", "12"),
        ("count", "12", 12),
        ("count", "", None),
        ("count", "null", None),
        ("share", "1e3", 1000.0),
        ("share", "7", 7.0),
        ("flag", "true", True),
        ("flag", "False", False),
        ("flag", "1", True),
        ("raw", "1234", b"\xd7m\xf8"),
        ("raw", "aGk=", b"hi"),
        ("day", "2024-01-01", datetime.date(2024, 1, 1)),
        ("when", "2024-01-01T00:00:00Z", datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)),
        ("price", "1.10", decimal.Decimal("1.10")),
        ("uid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
        ("tags", '["a", "7"]', ["a", "7"]),
        ("tags[]", "7", ["7"]),
        ("numbers[]", "7", [7]),
        ("anything", "7", 7),
        ("anything", "word", "word"),
        ("reName", "12", "12"),
    ],
)
def test_a_text_means_what_its_field_makes_of_it(name: str, text: str, expected: object) -> None:
    found = getattr(payload((name, text)), {"reName": "renamed"}.get(name, name.removesuffix("[]")))
    assert found == expected
    assert type(found) is type(expected)


def test_nested_fields_know_their_types_too() -> None:
    found = payload(
        ("options.name", "7"), ("options.steps", "99"), ("words.a", "1"), ("tags[0]", "true"), ("tags[1]", "x"), ("pair[0]", "1"), ("pair[1]", "2"),
        ("shape.type", "square"), ("shape.label", "5"), ("shape.side", "5"), ("point[0]", "1"), ("point[1]", "2"), ("images[0].ref", "12"),
    )  # fmt: skip
    assert (found.options.name, found.options.steps, found.words, found.tags, found.pair) == ("7", 50, {"a": "1"}, ["true", "x"], ("1", 2))
    assert (found.shape, found.point, found.images[0].ref) == (Square("5", 5), Point(1, "2"), "12")


def test_a_repeated_field_is_a_list() -> None:
    found = payload(
        ("tags", "1"),
        ("tags", "a,b"),
        ("numbers", "1"),
        ("numbers", "2"),
        ("pair", "1"),
        ("pair", "2"),
        ("anything", "1"),
        ("anything", "x"),
    )
    assert (found.tags, found.numbers, found.pair, found.anything) == (["1", "a,b"], [1, 2], ("1", 2), [1, "x"])
    with pytest.raises(FormFieldError, match="field 'text' is given 2 times, but takes one value"):
        payload(("text", "a"), ("text", "b"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mode", "7", "payload.mode: expected one of 1, got 7."),
        ("literal", "7", "payload.literal: expected one of '1024', 'true', got '7'."),
        ("count", "²", "payload.count: expected int | null, got str."),
        ("count", "seven", "payload.count: expected int | null, got str."),
        ("raw", "not base64!", "payload.raw: invalid base64 encoded string."),
        ("tags", "word", "A list is written in JSON"),
        ("options", '{"steps": "x"}', "payload.options.steps: expected int, got str."),
        ("image", "cat.png", "A file is sent with @, as in -i image=@file"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_as_what_it_was_meant_to_be(name: str, text: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        payload((name, text))
    assert message in str(caught.value)


def test_json_in_a_field_has_each_key_once() -> None:
    with pytest.raises(FormFieldError, match="field 'options': the key at /name is given twice"):
        payload(("options", '{"name": "a", "name": "b"}'))


@pytest.mark.parametrize("name", ["", ".", "a..b", "a[", "a[x]", "[0]x", "a[²]", "a[٣]", "a[-1]"])
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(FormFieldError, match="expected a path such as image"):
        payload((name, "x"))


def test_a_name_of_a_thousand_steps_is_refused() -> None:
    with pytest.raises(FormFieldError, match="at most 100 steps"):
        payload(("a" + ".a" * 50_000, "x"))


def test_files_stand_where_a_file_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"hi")
    form = FormPayload(Input)
    assert [form.takes_file(name) for name in ("image", "images", "images[0]", "raw", "text", "count", "unknown", "options.mask", "anything")] == [
        True, True, True, True, False, False, True, True, True,
    ]  # fmt: skip
    form.add_files("raw", [("a.bin", path)])
    form.add_files("images", [("a.bin", path)])
    form.add_files("image", [("../../etc/passwd", path)])
    found = read_payload(Input, form.encoded()).value
    assert (found.raw, found.images[0].ref, found.image.ref) == (b"hi", "upload:0/a.bin", "upload:1/passwd")
    assert form.uploads == {"upload:0/a.bin": path, "upload:1/passwd": path}


def test_a_file_by_its_url_needs_no_json() -> None:
    found = payload(("image", "https://example.org/a.png")).image
    assert found is not None
    assert found.ref == "https://example.org/a.png"
