"""Texts from authors, callers and files can always be written to the log."""

import io
import json

import pytest

from gen_worker.log import Log
from gen_worker.texts import class_name, counted, repr_of, sound, text_of


class Mute:
    """Its text and its representation raise what they are told."""

    def __init__(self, raised: BaseException) -> None:
        self.raised = raised

    def __repr__(self) -> str:
        raise self.raised

    __str__ = __repr__


class Sly(str):
    """A text whose methods lie."""

    __slots__ = ()

    def __getitem__(self, key: object) -> str:
        raise RuntimeError("no")

    encode = isascii = __len__ = __getitem__  # type: ignore[assignment]


class Meta(type):
    __name__ = property(lambda cls: 1 / 0)  # type: ignore[assignment]


class Nameless(metaclass=Meta):
    pass


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize("raised", [RuntimeError("no"), SystemExit(3), KeyboardInterrupt(), Mute(ValueError()).raised])
def test_a_value_that_cannot_be_shown_is_named(raised: BaseException) -> None:
    assert text_of(Mute(raised)) == repr_of(Mute(raised)) == f"(its text cannot be read: {type(raised).__name__})"


def test_texts_are_bounded_and_can_be_encoded() -> None:
    assert sound("bad \udcff name") == "bad \\udcff name"
    assert sound("\ud800" * 100, 10) == "\\ud800\\ud8"
    assert sound("ünïcödé 😀") == "ünïcödé 😀"
    assert type(sound(Sly("text"))) is str
    assert len(text_of("x" * 10_000_000)) == 4000
    assert text_of(ValueError(Sly("odd"))) == "odd"
    assert class_name(Nameless()) == "?"


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        "bad \udcff",
        10**400,
        float("nan"),
        Mute(RuntimeError()),
        Mute(SystemExit()),
        [Mute(KeyboardInterrupt())],
        {("a", 1): object()},
        {"bad \ud800": 1},
        CIRCLE,
        b"\xff",
        Sly("x"),
    ],
    ids=repr_of,
)
def test_a_log_line_is_written_whatever_its_facts_are(value: object, as_json: bool) -> None:
    stream = io.StringIO()
    Log(stream, as_json=as_json).bind(run_id="r\udc80").error("run.failed", value=value, after=1)
    (line,) = stream.getvalue().splitlines()
    assert "run.failed" in line
    line.encode()
    if as_json:
        assert json.loads(line)["event"] == "run.failed"


def test_a_log_for_an_ascii_stream_loses_no_line() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Log(stream).info("run.failed", text="日本")
    assert rb"text=\u65e5\u672c" in raw.getvalue()


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise RuntimeError("what an author put in the place of stderr")


def test_a_broken_stream_takes_nothing_with_it() -> None:
    Log(Broken()).info("run.failed")


def test_one_is_counted_as_one() -> None:
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert (counted(1, "try", "tries"), counted(3, "try", "tries")) == ("1 try", "3 tries")
