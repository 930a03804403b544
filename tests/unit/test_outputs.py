"""What a function returns or yields: checked against its signature, and equal for callers of both encodings."""

import datetime
import enum
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest

from gen_worker import Asset
from gen_worker.errors import OutputError
from gen_worker.execution.outputs import OutputLimits, OutputWriter
from gen_worker.execution.payloads import Encoding

ENCODINGS: tuple[Encoding, ...] = ("json", "msgpack")
NAN, INF = float("nan"), float("inf")


class Color(enum.Enum):
    RED = "red"


class Inner(msgspec.Struct):
    value: float = 0.0
    values: list[float] = []


class Out(msgspec.Struct):
    text: str = ""
    number: int = 0
    share: float | None = None
    inner: Inner | None = None
    items: list[Inner] = []
    table: dict[str, float] = {}
    keyed: dict[int, str] = {}
    any: Any = None
    bounded: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    word: Literal["a", "b"] = "a"
    color: Color = Color.RED
    when: datetime.datetime | None = None
    ident: uuid.UUID | None = None
    money: Decimal | None = None
    data: bytes = b""
    pair: tuple[int, str] = (0, "")
    file: Asset | None = None


class More(Out):
    extra: str = "x"


class Circle(msgspec.Struct):
    below: "Circle | None" = None


class WithRaw(msgspec.Struct):
    body: msgspec.Raw
    share: float | None = None


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)

GOOD = [
    Out(),
    More(),
    Out(text="日本\x00", number=-(2**63), share=0.1, inner=Inner(5), items=[Inner()], table={"a": 1}, keyed={1: "x"}),
    Out(number=2**64 - 1, any={"a": [1, None, {"b": 2.5}], "n": None}, bounded=10, word="b", money=Decimal("1.50"), data=b"\xcb\x7f\xf8"),
    Out(when=datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), ident=uuid.UUID(int=5), pair=(1, "x"), file=Asset(ref="a/b.png")),
    Out(text="null", any="null", inner=Inner(1e308, [1e308, 1e308, -1e308])),
    Out(any=[5e-324, 1.7976931348623157e308, 2**53 + 1]),
    Out(any={1: 2}),
]
BAD = [
    ("text", Out(text=5), "`str`, got `int` - at `$.text`"),
    ("nested", Out(items=[Inner(), Inner(value="x")]), "at `$.items[1].value`"),
    ("none", Out(number=None), "- at `$.number`"),
    ("range", Out(bounded=11), "<= 10"),
    ("literal", Out(word="c"), "Invalid enum value 'c'"),
    ("list", Out(table=[1]), "Expected `object`, got `array`"),
    ("nan", Out(share=NAN), "nan at `$.share`"),
    ("infinity", Out(inner=Inner(INF)), "inf at `$.inner.value`"),
    ("minus infinity", Out(items=[Inner(), Inner(values=[1.0, -INF])]), "-inf at `$.items[1].values[1]`"),
    ("both", Out(items=[Inner(values=[INF, -INF])]), "inf at `$.items[0].values[0]`"),
    ("nan in Any", Out(any={"a": [1, (2.0, NAN)]}), "nan at `$.any['a'][1][1]`"),
    ("nan in a table", Out(table={"x": NAN}), "nan at `$.table['x']`"),
    ("big", Out(number=2**64), "cannot be encoded"),
    ("small", Out(any=[-(2**63) - 1]), "cannot be encoded"),
    ("key", Out(any={(1, 2): 3}), "cannot be encoded"),
    ("nan as key", Out(any={NAN: 3}), "cannot be encoded|nan at"),
    ("surrogate", Out(text="\ud800"), "surrogates not allowed"),
    ("object", Out(any=object()), "type object is unsupported"),
    ("circle", Out(any=CIRCLE), "recursion"),
    ("dict", {"text": "x"}, "returned dict; declared is Out"),
    ("nothing", None, "returned NoneType; declared is Out"),
    ("class", Out, "returned StructMeta; declared is Out"),
]


def writer(kind: type[msgspec.Struct], encoding: Encoding, message_bytes: int = 0, **limits: int) -> OutputWriter:
    return OutputWriter(kind, encoding, OutputLimits(**limits), lambda kind, data, encoding: None, message_bytes)


@pytest.mark.parametrize("value", GOOD, ids=range(len(GOOD)))
def test_what_is_declared_passes_unchanged(value: Out) -> None:
    assert writer(Out, "json").result(value) == msgspec.json.encode(value)
    assert writer(Out, "msgpack").result(value) == msgspec.msgpack.encode(value)
    assert msgspec.json.decode(writer(Out, "msgpack").delta(value)) == msgspec.json.decode(msgspec.json.encode(value))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("value", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_not_is_named_alike_in_both_encodings(value: Any, message: str, encoding: Encoding) -> None:
    with pytest.raises(OutputError) as raised:
        writer(Out, encoding).result(value)
    assert any(part in str(raised.value) for part in message.split("|"))
    with pytest.raises(OutputError) as again:
        writer(Out, encoding).delta(value)
    assert str(again.value) == str(raised.value).replace("returned", "yielded")


def test_types_that_msgspec_writes_but_does_not_read_are_checked_as_far_as_they_can_be() -> None:
    assert writer(WithRaw, "json").result(WithRaw(msgspec.Raw(b'{"a":1}'))) == b'{"body":{"a":1},"share":null}'
    with pytest.raises(OutputError, match=r"nan at `\$\.share`"):
        writer(WithRaw, "json").result(WithRaw(msgspec.Raw(b"1"), NAN))
    deep = Circle()
    for _ in range(200_000):
        deep = Circle(deep)
    with pytest.raises(OutputError, match=r"recursion|deep"):
        writer(Circle, "json").result(deep)
    while deep.below is not None:  # taken apart step by step: dropped at once it would overflow the stack on older Pythons
        deep = deep.below


def test_limits() -> None:
    assert len(writer(Inner, "json", output_bytes=25).result(Inner())) == 25
    with pytest.raises(ValueError, match="output of 25 bytes; at most 24 are allowed \\(WORKER_MAX_OUTPUT_BYTES\\)"):
        writer(Inner, "json", output_bytes=24).result(Inner())
    with pytest.raises(ValueError, match="WORKER_MAX_MESSAGE_BYTES"):
        writer(Inner, "json", message_bytes=24, output_bytes=25).result(Inner())
    assert len(writer(Inner, "json", delta_bytes=25).delta(Inner())) == 25
    with pytest.raises(OutputError, match="WORKER_MAX_OUTPUT_DELTA_BYTES"):
        writer(Inner, "json", delta_bytes=24).delta(Inner())
