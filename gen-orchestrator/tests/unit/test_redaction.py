"""Secrets are found in texts in every encoding."""

import base64
import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen_orchestrator.auth.vault import Vault
from gen_orchestrator.domain.access import EVERYBODY, Caller
from gen_orchestrator.domain.redaction import Redactor
from gen_orchestrator.domain.secrets import checked
from gen_orchestrator.store.memory import MemoryStore

VALUES = ["sk-abc123XYZ", 'quo"te\\and/ slash', "zwei\nZeilen-hier\nund-drei", "müll-€-wert", "  padded-value  ", "a+b&c=d e%20f!"]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_found_in_each_of_its_forms(value: str) -> None:
    redactor = Redactor([("KEY", value)])
    encoded = base64.b64encode(value.encode()).decode()
    for written in (
        value, value.strip(), json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(json.dumps({"x": value})), repr(value),
        encoded, quote(value, safe=""), f"https://host/?key={quote(value)}",
    ):  # fmt: skip
        shown = redactor.text(f"before {written} after")
        assert "[secret KEY]" in shown, written
        assert value not in shown
        assert shown.startswith("before ")
        assert shown.endswith(" after")
    data = msgspec.json.encode({"a": [value, {value: 1}]})
    assert msgspec.json.decode(redactor.json(data)) is not None
    packed = redactor.msgpack(msgspec.msgpack.encode({"a": [value, {value: 1}], "b": value.encode()}))
    assert value.encode() not in packed
    assert msgspec.msgpack.decode(packed)["b"] == b"[secret KEY]"


@given(st.binary(max_size=7), st.text(min_size=8, max_size=40), st.binary(max_size=7))
def test_a_value_is_found_in_the_base64_of_something_longer(before: bytes, value: str, after: bytes) -> None:
    whole = base64.b64encode(before + value.encode() + after).decode()
    for text in (whole, whole.replace("+", "-").replace("/", "_")):
        shown = Redactor([("KEY", value)]).text(f"Authorization: Basic {text}")
        assert "[secret KEY]" in shown
    assert value.encode().hex() not in Redactor([("KEY", value)]).text(value.encode().hex())


def test_each_line_of_a_long_secret_is_found_alone() -> None:
    redactor = Redactor([("PEM", "-----BEGIN-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END-----\n")])
    assert redactor.text("x MIIEvQIBADANBg y") == "x [secret PEM] y"


def test_a_secret_in_another_one_leaves_nothing_of_either() -> None:
    redactor = Redactor([("SHORT", "abcdefgh"), ("LONG", "12345678abcdefgh87654321")])
    assert redactor.text("12345678abcdefgh87654321 abcdefgh") == "[secret LONG] [secret SHORT]"


class _Unread:
    """An audit that nobody reads."""

    def note(self, by: Caller, owner: str, action: str, subject: str, detail: str = "") -> None:
        """Nothing."""


def test_a_value_of_several_secrets_is_named_after_the_one_that_the_release_declares() -> None:
    vault = Vault(MemoryStore(lambda: 1.0), bytes(32), _Unread(), lambda: 1.0)
    for name, value in (
        ("A_OLD", "same-value-1"),
        ("A_OLD", "other-value"),
        ("B", "same-value-1"),
        ("C", "same-value-1"),
        ("D", "only-of-d"),
    ):
        vault.put(EVERYBODY, "me", "it", name, value)
    for declared, named in ((("C",), "C"), (("C", "B"), "B"), (("A_OLD",), "A_OLD"), ((), "B"), (("NONE",), "B")):
        assert vault.redactor("me", "it", declared).text("x same-value-1 only-of-d") == f"x [secret {named}] [secret D]", declared
    vault.remove(EVERYBODY, "me", "it", "B")
    assert vault.redactor("me", "it").text("same-value-1") == "[secret C]", "of those that are set, before those that were"
    vault.put(EVERYBODY, "me", "it", "E", "a-new-value")
    assert vault.redactor("me", "it", ("C",)).text("a-new-value same-value-1") == "[secret E] [secret C]"
    assert not vault.redactor("me", "other", ("C",))


@given(st.text(), st.binary())
def test_without_secrets_nothing_changes(text: str, data: bytes) -> None:
    redactor = Redactor()
    assert (redactor.text(text), redactor.json(data), redactor.msgpack(data)) == (text, data, data)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Zs", "Cc", "Zl", "Zp"]), min_size=8), st.text())
def test_what_can_be_a_secret_is_never_shown(value: str, around: str) -> None:
    checked("KEY", value)
    shown = Redactor([("KEY", value)]).text(f"{around}{value}{around}")
    assert value not in shown.replace("[secret KEY]", "\0")


def test_msgpack_that_cannot_be_read_is_dropped() -> None:
    assert Redactor([("KEY", "sk-abc123XYZ")]).msgpack(b"\xc1sk-abc123XYZ") == b""


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("KEY", "tiny!", "5 characters"),
        ("KEY", "long" * 10_000, "40000 characters"),
        ("KEY", "with-a\0nul", "NUL"),
        ("KEY", "lone-surrogate-\ud800", "UTF-8"),
        ("WORKER_JWT", "long-enough", "begins with none of"),
        ("Path", "long-enough", "begins with none of"),
        ("1KEY", "long-enough", "1 to 64"),
        ("A=B", "long-enough", "1 to 64"),
        ("", "long-enough", "1 to 64"),
    ],
)
def test_what_can_be_no_secret_is_refused_without_its_value(name: str, value: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        checked(name, value)
    assert value not in str(caught.value)


def test_all_that_is_left_of_a_text_is_what_stood_around_the_secret() -> None:
    value = '??>>~~-k\u00e4y"1'
    redactor = Redactor([("KEY", value)])
    plain = base64.b64encode(value.encode()).decode().rstrip("=")
    assert "+" in plain or "/" in plain
    written = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(json.dumps(value)[1:-1])[1:-1]]
    written += [plain, base64.urlsafe_b64encode(value.encode()).decode().rstrip("="), quote(value), quote_plus(value), repr(value)[1:-1]]
    for text in written:
        assert redactor.text(f"<{text}>") == "<[secret KEY]>"
        assert redactor.json(f"<{text}>".encode()) == b"<[secret KEY]>"


def test_what_holds_no_secret_keeps_its_bytes() -> None:
    redactor = Redactor([("KEY", "sk-abc123XYZ"), ("OTHER", "another-value")])
    unusual = b"\xda\x00\x01x"  # "x" with a longer head than an encoder would write
    assert redactor.msgpack(unusual) == unusual
    ext = msgspec.msgpack.encode({"e": msgspec.msgpack.Ext(5, b"<sk-abc123XYZ>")})
    assert redactor.msgpack(ext) == msgspec.msgpack.encode({"e": msgspec.msgpack.Ext(5, b"<[secret KEY]>")})
    assert redactor.msgpack(b"\xc1sk-abc123XYZ") == b"", "what cannot be read is dropped"


ACCOUNT = json.dumps(
    {"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\nMIIE77XQLINEONE\nAgM77XQLINETWO\n-----END PRIVATE KEY-----\n"},
    indent=2,
)
WRITERS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "msgspec": lambda text: msgspec.json.encode(text).decode()[1:-1],
    "repr": lambda text: repr(text)[1:-1],
    "repr of one of many": lambda text: repr({"a": text, "b": "'\""})[7:-14],
    "repr beside a quote": lambda text: repr(f"'\"{text}")[4:-1],
    "ascii": lambda text: ascii(text)[1:-1],
    "bytes": lambda text: repr(text.encode())[2:-1],
    "HTML": html.escape,
    "HTML without quotes": lambda text: html.escape(text, quote=False),
    "HTML in ASCII": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    "URL": quote,
    "URL without slashes": lambda text: quote(text, safe=""),
    "form": quote_plus,
}
values = st.text(st.sampled_from("ab1\"'\\\\\n\r\t%&+/ <>=;#\u00e9\u20ac\u2028\U0001f511\x7f\xa0nux25"), min_size=8, max_size=40)


@settings(max_examples=60)
@given(values, st.lists(st.sampled_from(sorted(WRITERS)), max_size=4), st.sampled_from(["", "x", '"', "\\", "\n", "\u00e9"]))
def test_a_value_is_found_in_any_nesting_of_writers(value: str, nesting: list[str], after: str) -> None:
    text, rest = value, after
    for name in nesting:
        text, rest = WRITERS[name](text), WRITERS[name](rest)
    redactor = Redactor([("KEY", value)])
    for shown in (redactor.text(f"<{text}>"), redactor.json(f"<{text}>".encode()).decode()):
        assert shown == "<[secret KEY]>", nesting
    left = redactor.text(f"<{text}{rest}>")
    assert left.startswith("<[secret KEY]"), nesting


@settings(max_examples=40)
@given(values, values)
def test_json_with_a_secret_stays_json(value: str, around: str) -> None:
    value = f"k{value}"  # no escape ends like this
    redactor = Redactor([("KEY", value)])
    for held in (value, value + around, f"{value}<", repr({"a": value}), json.dumps({"a": [value, around]}), str(value.encode())):
        for data in (json.dumps({"a": held, "b": 1}), json.dumps({"a": held, "b": 1}, ensure_ascii=False)):
            assert json.loads(redactor.json(data.encode()))["b"] == 1, data
            assert json.loads(redactor.text(data))["b"] == 1, data


@pytest.mark.parametrize("value", [ACCOUNT, "\n".join([ACCOUNT] * 12), "k\u00e4-'\"\\" * 200])
def test_a_long_value_leaves_one_mark_and_a_line_of_it_another(value: str) -> None:
    redactor = Redactor([("KEY", value)])
    logged = json.dumps({"level": "error", "error": repr(RuntimeError(repr({"a": value})))})
    shown = redactor.text(logged)
    assert shown.count("[secret KEY]") == 1
    assert len(shown) < 120, shown
    assert json.loads(redactor.json(logged.encode())) == json.loads(shown)
    for line in value.splitlines():
        if len(line.strip()) >= 8:
            assert line.strip()[:8] not in redactor.text(f"{line}")
            assert "[secret KEY]" in redactor.text(json.dumps(repr(line.encode())))


def test_no_text_keeps_a_redactor_busy() -> None:
    """What holds almost a secret, again and again: the time grows with the text's length, not with its square."""
    for value, text in (
        ('"\\anchor\\\\"', "anchor" + "\\" * 200_000),
        ("\\\\anchor!", "anchor" + "%5C" * 100_000),
        ("&&anchor%%25!", "anchor" + "&amp;amp;" * 30_000 + "%25" * 50_000),
        ('a"anchor', "anchor" + 'a\\\\\\"' * 50_000),
    ):
        redactor = Redactor([("KEY", value)])
        began = time.process_time()
        redactor.text(text)
        redactor.json(text.encode())
        assert time.process_time() - began < 2.0, value
