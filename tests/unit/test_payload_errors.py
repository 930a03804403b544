"""What a caller is told about a payload that does not fit."""

import dataclasses
import enum
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest

from gen_worker import Asset
from gen_worker.errors import FieldError, ValidationError
from gen_worker.execution.payloads import read_payload
from gen_worker.outcome import outcome_of


class Size(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


class Cat(msgspec.Struct, tag="cat"):
    lives: int = 9


class Dog(msgspec.Struct, tag="dog"):
    tricks: list[str] = []


@dataclasses.dataclass
class Page:
    number: int


class Row(TypedDict, total=False):
    page: Page


class Pair(NamedTuple):
    first: int
    second: Page | None = None


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    steps: int = 1


class Input(msgspec.Struct):
    prompt: str
    size: Size = Size.SMALL
    mode: Literal["fast", "slow", 3] | None = None
    image: Asset | None = None
    tags: list[str] = []
    pet: Cat | Dog | None = None
    rows: dict[str, Row] = {}
    pair: Pair | None = None
    strict: Strict | None = None
    dotted: int = msgspec.field(default=0, name="a.b[0]")


def refusal(**fields: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        read_payload(Input, msgspec.json.encode({"prompt": "x", **fields}))
    return caught.value


@pytest.mark.parametrize(
    ("fields", "pointer", "message"),
    [
        ({"size": "larje"}, "/size", "payload.size: expected one of 'small', 'large', got 'larje'. Did you mean 'large'?"),
        ({"mode": "Fast"}, "/mode", "payload.mode: expected one of 'fast', 'slow', 3, got 'Fast'. Did you mean 'fast'?"),
        ({"mode": 4}, "/mode", "payload.mode: expected one of 'fast', 'slow', 3, got 4."),
        ({"size": "x - at `$.y`"}, "/size", "payload.size: expected one of 'small', 'large', got 'x - at `$.y`'."),
        ({"pet": {"type": "cta"}}, "/pet/type", "payload.pet.type: expected one of 'cat', 'dog', got 'cta'. Did you mean 'cat'?"),
        ({"pet": {}}, "/pet/type", "payload.pet: required field 'type' is missing."),
        ({"pet": {"type": "dog", "tricks": "sit"}}, "/pet/tricks", "expected array, got str. A list is written in JSON, as in"),
        ({"image": "cat.png"}, "/image", "A file is sent with @, as in -i image=@file or curl -F image=@file; in JSON"),
        ({"tags": "word"}, "/tags", 'A list is written in JSON, as in ["a", "b"]; as fields also tags[0]=a tags[1]=b.'),
        ({"strict": "x"}, "/strict", "An object is written in JSON"),
        ({"strict": 5}, "/strict", 'An object is written in JSON, as in {"key": "value"}; as fields also strict.key=value.'),
        ({"tags": True}, "/tags", "A list is written in JSON"),
        ({"strict": {"stpes": 1}}, "/strict/stpes", "payload.strict: unknown field 'stpes'. Did you mean 'steps'?"),
        (
            {"rows": {"ok": {}, "a/b": {"page": {"number": "7"}}}},
            "/rows/a~1b/page/number",
            "payload.rows.a/b.page.number: expected int, got str.",
        ),
        ({"pair": [1, {"number": None}]}, "/pair/1/number", "payload.pair[1].number: expected int, got null."),
        ({"pair": [1, {"nunber": 1}]}, "/pair/1/number", "Unknown field 'nunber'. Did you mean 'number'?"),
        ({"a.b[0]": "x"}, "/a.b[0]", "payload.a.b[0]: expected int, got str."),
    ],
)
def test_each_error_says_where_what_and_how(fields: dict[str, Any], pointer: str, message: str) -> None:
    error = refusal(**fields)
    assert message in str(error)
    assert error.errors[0].pointer == pointer
    assert outcome_of(error).safe_message == str(error), "nothing of it is taken for a path"


def test_a_missing_field_that_was_misspelt_is_named_as_it_was_written() -> None:
    with pytest.raises(ValidationError) as caught:
        read_payload(Input, b'{"promt": "x"}')
    assert str(caught.value) == "payload: required field 'prompt' is missing. Unknown field 'promt'. Did you mean 'prompt'?"
    assert [(error.pointer, error.suggestion) for error in caught.value.errors] == [("/prompt", None), ("/promt", "prompt")]


def test_keys_that_are_no_texts_are_said_so() -> None:
    with pytest.raises(ValidationError, match="payload: expected keys that are str, got int"):
        read_payload(Input, msgspec.msgpack.encode({1: 2}), "msgpack")


def test_a_huge_value_is_not_repeated() -> None:
    assert len(str(refusal(size="x" * 1_000_000))) < 1000


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("fields", "pointer", "message"),
    [
        ({"prompt": 5}, "/prompt", "payload.prompt: expected str, got int."),
        ({"size": "smal"}, "/size", "payload.size: expected one of 'small', 'large'."),
        ({"pet": {"type": "cow"}}, "/pet/type", "payload.pet.type: "),
        ({"rows": {"r": {"page": {"number": "x"}}}}, "/rows", "expected int, got str."),
        ({"strict": {"stesp": 1}}, "/strict", "stesp"),
        ({"pair": [1, {"number": "x"}]}, "/pair/1/number", "payload.pair[1].number: expected int, got str."),
    ],
)
def test_of_a_payload_with_very_many_values_only_the_place_is_said(
    encoding: Any, fields: dict[str, Any], pointer: str, message: str
) -> None:
    """It is not decoded a second time for the message."""
    body = {"prompt": "x", **fields, "unknown": [[]] * 300_000}
    data = (msgspec.json if encoding == "json" else msgspec.msgpack).encode(body)
    with pytest.raises(ValidationError) as caught:
        read_payload(Input, data, encoding)
    assert caught.value.errors[0].pointer.startswith(pointer)
    assert message in str(caught.value)
    assert "None" not in str(caught.value)
    assert "object at" not in str(caught.value)


def test_unknown_fields_are_warned_of_at_any_depth() -> None:
    body = {"prompt": "x", "promtp": "y", "rows": {"r": {"page": {"number": 1, "nmber": 2}}}, "pet": {"type": "cat", "live": 1}}
    warnings = read_payload(Input, msgspec.json.encode(body)).warnings
    assert {(warning.pointer, warning.suggestion) for warning in warnings} == {
        ("/promtp", "prompt"),
        ("/rows/r/page/nmber", "number"),
        ("/pet/live", "lives"),
    }
    assert {warning.message for warning in warnings} >= {"unknown field 'promtp'"}


def test_a_saved_file_may_be_sent_as_it_came() -> None:
    saved = {"ref": "runs/1/a.png", "local_path": "out/a.png", "url": "/v1/files/runs/1/a.png", "sha256": "00", "size_bytes": 1}
    assert read_payload(Input, msgspec.json.encode({"prompt": "x", "image": saved})).warnings == ()


@pytest.mark.parametrize(
    ("text", "pointers", "expected"),
    [
        ("/image: input url blocked", ["/image"], "/image: input url blocked"),
        ("/rows/a~1b/0: no", ["/rows/a~1b/0"], "/rows/a~1b/0: no"),
        ("/my field: no", ["/my field"], "/my field: no"),
        ("/image: not in /etc/shadow", ["/image"], "/image: not in <path>"),
        ("/image/secret is no pointer", ["/image"], "<path> is no pointer"),
    ],
)
def test_pointers_are_no_paths(text: str, pointers: list[str], expected: str) -> None:
    errors = tuple(FieldError(pointer, "") for pointer in pointers)
    assert outcome_of(ValidationError(text, errors=errors)).safe_message == expected
