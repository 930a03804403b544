"""Bodies of invocations: payload, options, and the errors for refused bodies."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.api.envelope import MAX_PAYLOAD_BYTES, InvokeOptions, read_invocation
from gen_orchestrator.api.json_bodies import MAX_DEPTH, MAX_NODES, MAX_QUOTES, MAX_VALUES, JsonError, read_json
from gen_worker.http.asgi import RequestError


def read(body: Any, path: str = "/v1/o/e/f") -> tuple[Any, InvokeOptions]:
    found = read_invocation(body if isinstance(body, bytes) else msgspec.json.encode(body), path)
    return msgspec.msgpack.decode(found.payload), found.options


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        ({}, {}),
        ({"prompt": "x"}, {"prompt": "x"}),
        ({"payload": {"prompt": "x"}}, {"prompt": "x"}),
        ({"payload": {}}, {}),
        ({"input": {"prompt": "x"}}, {"prompt": "x"}),
        ({"input": {"prompt": "x"}, "timeout_s": 3}, {"prompt": "x"}),
        ({"input": {"prompt": "x"}, "steps": 3}, {"input": {"prompt": "x"}, "steps": 3}),  # a payload with a field of this name
        ({"input": "text"}, {"input": "text"}),
    ],
)
def test_what_is_the_payload(body: Any, payload: Any) -> None:
    assert read(body)[0] == payload


def test_options() -> None:
    assert read({"payload": {}})[1] == InvokeOptions()
    given = {"timeout_s": 5, "start_timeout_s": 604800, "priority": "high", "webhook": "https://h/x"}
    assert read({"payload": {}, **given})[1] == InvokeOptions(timeout_s=5, start_timeout_s=604800, priority="high", webhook="https://h/x")
    assert read({"priority": "high"}) == ({"priority": "high"}, InvokeOptions()), "of a bare payload nothing is an option"


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"{", "invalid_json", "the body is not valid JSON"),
        (b'"\xff"', "invalid_json", "the body is not valid"),
        (b"[1]", "invalid_json", "the body is a list; expected a JSON object"),
        (b"null", "invalid_json", "the body is a null"),
        (b"1", "invalid_json", "the body is a number"),
        (b"1.5", "invalid_json", "the body is a number"),
        (b"true", "invalid_json", "the body is a boolean"),
        (b'"x"', "invalid_json", "the body is a string"),
        ({"payload": []}, "invalid_payload", "payload is a list; expected a JSON object"),
        ({"payload": {}, "input": {}}, "invalid_payload", "the payload is given twice, as 'payload' and as 'input', which mean the same"),
        ({"payload": {}, "timeout": 3}, "unknown_option", "unknown option 'timeout'. Did you mean 'timeout_s'? Options: priority, start_"),
        ({"payload": {}, "timeout_s": "3"}, "invalid_timeout_s", "option timeout_s: expected float, got str"),
        ({"payload": {}, "timeout_s": True}, "invalid_timeout_s", "option timeout_s: expected float, got bool"),
        ({"payload": {}, "timeout_s": None}, "invalid_timeout_s", "option timeout_s: expected float, got null"),
        ({"payload": {}, "timeout_s": -1}, "invalid_timeout_s", "timeout_s=-1.0: expected seconds from 0.001 to 604800 (a week), or 0"),
        ({"payload": {}, "timeout_s": 0.0004}, "invalid_timeout_s", "timeout_s=0.0004: expected seconds from 0.001"),
        (b'{"payload": {}, "timeout_s": 1e999}', "invalid_json", "the body is not valid JSON: Number out of range"),
        ({"payload": {}, "start_timeout_s": 604801}, "invalid_start_timeout_s", "start_timeout_s=604801.0: expected seconds"),
        ({"payload": {}, "priority": "hihg"}, "invalid_priority", "priority 'hihg'. Did you mean 'high'? Expected: "),
        ({"payload": {}, "priority": ""}, "invalid_priority", "priority ''. Expected: "),
        ({"payload": {}, "priority": 1}, "invalid_priority", "option priority: expected str, got int"),
        ({"payload": {}, "webhook": ""}, "invalid_webhook", "webhook is empty: expected an https URL"),
        ({"payload": {}, "webhook": None}, "invalid_webhook", "option webhook: expected str, got null"),
        ({"payload": {}, "webhook": "https://h/" + "x" * 2048}, "invalid_webhook", "webhook has 2058 characters"),
        (
            {"payload": {}, "webhook_events": ["x"], "webhook": "https://h"},
            "invalid_webhook_events",
            "webhook_events: 'x'. Expected some of: ",
        ),
        (
            {"payload": {}, "webhook_events": [5], "webhook": "https://h"},
            "invalid_webhook_events",
            "webhook_events[0]: expected str, got int",
        ),
        ({"payload": {}, "webhook_events": [], "webhook": "https://h"}, "invalid_webhook_events", "webhook_events is empty"),
        ({"payload": {}, "webhook_events": ["failed"] * 2, "webhook": "https://h"}, "invalid_webhook_events", "an event twice"),
        ({"payload": {}, "webhook_events": []}, "invalid_webhook_events", "webhook_events is empty"),
        ({"payload": {}, "webhook_events": "failed", "webhook": "https://h"}, "invalid_webhook_events", "expected array, got str"),
        (b"", "invalid_json", "the body is empty; expected a JSON object"),
        ({"payload": {}, "input": {}, "priority": "low"}, "invalid_payload", "which mean the same: use only one of them"),
    ],
)
def test_what_is_refused(body: Any, error: str, words: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(body)
    code = "invalid_json" if words.startswith(("the body is not", "the body is empty")) else "validation"
    assert (raised.value.status, raised.value.request_code) == (400, code)
    assert words in str(raised.value)
    assert raised.value.error == error


def test_events_of_a_webhook_need_the_webhook() -> None:
    from gen_orchestrator.domain.webhooks import EVENTS

    with pytest.raises(RequestError, match="webhook_events without webhook") as raised:
        read({"payload": {}, "webhook_events": [EVENTS[0]]})
    assert (raised.value.status, raised.value.request_code, raised.value.error) == (400, "validation", "invalid_webhook_events")
    assert read({"payload": {}, "webhook_events": [EVENTS[0]], "webhook": "https://h"})[1].webhook_events == (EVENTS[0],)


def read_error(body: bytes) -> str:
    with pytest.raises(RequestError) as raised:
        read(body)
    return raised.value.request_code


def nested(depth: int, opened: bytes = b'{"a":', closed: bytes = b"}") -> bytes:
    return opened * depth + b"1" + closed * depth


@pytest.mark.parametrize(("opened", "closed"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_depth_has_a_bound(opened: bytes, closed: bytes) -> None:
    read(b'{"p":' + nested(MAX_DEPTH - 1, opened, closed) + b"}")
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, 100_000):
        with pytest.raises(RequestError, match=f"nested more than {MAX_DEPTH} levels deep") as raised:
            read(b'{"p":' + nested(depth, opened, closed) + b"}")
        assert (raised.value.status, raised.value.error) == (400, "invalid_json")
        assert raised.value.request_code == read_error(b"{")


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    read({"prompt": "[{" * 1000})
    read({"prompt": '\\"[{\\' * 1000})
    deep = {"quoted": '\\"'} | msgspec.json.decode(nested(MAX_DEPTH + 1))
    with pytest.raises(RequestError, match="nested more than"):
        read(deep)
    read({"lists": [[] for _ in range(1000)]})


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"a":1,"a":2}', "/a"),
        (b'{"a" : 1, "a"\t: 2}', "/a"),
        (b'{"a"\n:1,"a"\r:1}', "/a"),
        (b'{"a":1,"\\u0061":2}', "/a"),
        (b'{"payload":{"x/y":{"b":1,"b":1}}}', "/payload/x~1y/b"),
        (b'{"payload":{"list":[{"b":1},{"c":1,"c":2}]}}', "/payload/list/1/c"),
        (b'{"payload":{},"payload":{}}', "/payload"),
        (b'{"payload":{},"priority":"low","priority":"high"}', "/priority"),
        (b'{"a":1,"a":2,"b":"\\u0022:"}', "/a"),  # once written, a key less and a `":` more
        (b'{"a":1,"a":2,"b":"\\"\\u003a"}', "/a"),
        (b'{"a":1,"a":{"b":1},"c":99999999999999999999999}', "/a"),
        (b'{"{}":1,"{}":2}', "/{}"),
    ],
)
def test_a_key_is_given_once(body: bytes, place: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(body)
    assert str(raised.value) == f"the body: the key at {place} is given twice"
    assert (raised.value.status, raised.value.request_code, raised.value.error) == (400, "validation", "duplicate_key")


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
)
def test_what_has_each_key_once_is_read_as_it_stands(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent=1, separators=(" ,", " : "))):
        try:
            data = text.encode()
            expected = msgspec.json.decode(data)
        except (UnicodeEncodeError, msgspec.DecodeError):
            continue  # lone surrogates
        assert read_json(data) == expected


@given(st.text(), st.text(alphabet='"\\:{}[],a'), st.sampled_from([(",", ":"), (", ", " : "), ("\n,", "\n:")]), st.booleans())
def test_no_string_hides_that_a_key_is_given_twice(key: str, text: str, separators: tuple[str, str], ascii_only: bool) -> None:
    first, second = (json.dumps({key: text, "other": [text]}, separators=separators, ensure_ascii=ascii_only) for _ in range(2))
    body = first[:-1] + separators[0] + second[1:]
    try:
        data = body.encode()
    except UnicodeEncodeError:
        return
    with pytest.raises(JsonError, match="twice" if key.isascii() else "."):
        read_json(data)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * MAX_NODES + b"1]",
        b"[" + b"{}," * MAX_NODES + b"1]",
        b"[" + b"1," * (MAX_VALUES + 1) + b"1]",
        b"{" + b",".join(b'"%d":1' % number for number in range(MAX_NODES + 1)) + b"}",
        b'{"a":[' + b'"",' * (MAX_QUOTES // 2) + b"[" * 65 + b"1]}",
    ],
)
def test_what_takes_long_to_read_is_too_large(body: bytes) -> None:
    with pytest.raises(RequestError, match="send large inputs as files") as raised:
        read(body)
    assert (raised.value.status, raised.value.request_code) == (413, "too_large")


def test_strings_may_hold_any_number_of_brackets_and_keys() -> None:
    text = '{"a": [{"b": 1}]}, ' * MAX_NODES
    assert read({"prompt": text})[0] == {"prompt": text}
    assert read({"numbers": [1] * 1_000_000})[0]["numbers"][-1] == 1


def test_equal_requests_have_one_fingerprint() -> None:
    one = read_invocation(b'{"a":1}', "/f").fingerprint
    assert one == read_invocation(b'{"a":1}', "/f").fingerprint
    assert len(one) == 32
    assert len({one, read_invocation(b'{"a":2}', "/f").fingerprint, read_invocation(b'{"a":1}', "/g").fingerprint}) == 3


def test_base64_becomes_bytes_where_the_schema_has_bytes() -> None:
    schema = {"properties": {"data": {"type": "string", "contentEncoding": "base64"}, "text": {"type": "string"}}}
    body = b'{"data":"eHl6","text":"eHl6"}'
    assert msgspec.msgpack.decode(read_invocation(body, "/f", schema).payload) == {"data": b"xyz", "text": "eHl6"}
    assert msgspec.msgpack.decode(read_invocation(body, "/f").payload) == {"data": "eHl6", "text": "eHl6"}


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"n": 1 << 64}, "/n"),
        ({"n": -(1 << 63) - 1}, "/n"),
        ({"ok": (1 << 64) - 1, "least": -(1 << 63), "a/b": [1.5, "x", None, {"~": 10**30}]}, "/a~1b/3/~0"),
    ],
)
def test_a_number_that_no_worker_can_read(payload: Any, place: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(json.dumps(payload).encode())
    assert str(raised.value) == f"payload{place}: an integer that workers cannot read; expected a number from -2^63 to 2^64 - 1"
    assert (raised.value.status, raised.value.request_code, raised.value.error) == (400, "validation", "invalid_payload")


def test_the_largest_payload() -> None:
    around = len(msgspec.msgpack.encode({"p": "x" * (1 << 16)})) - (1 << 16)
    text = "x" * (MAX_PAYLOAD_BYTES - around)
    assert read({"p": text})[0] == {"p": text}
    with pytest.raises(RequestError) as raised:
        read({"p": text + "x"})
    assert str(raised.value) == (
        f"payload of {MAX_PAYLOAD_BYTES + 1} bytes; a worker accepts at most {MAX_PAYLOAD_BYTES}: send large inputs as files, by form or by URL"
    )
    assert (raised.value.status, raised.value.request_code) == (413, "too_large")


def test_the_longest_times_and_webhooks() -> None:
    given = {"timeout_s": 604800, "start_timeout_s": 0.001, "webhook": "https://h/" + "x" * 2038, "webhook_events": ["started"]}
    assert read({"payload": {}, **given})[1] == msgspec.convert(given, InvokeOptions)
    with pytest.raises(RequestError, match=r"webhook_events: 'strated'\. Did you mean 'started'\? Expected some of: started, "):
        read({"payload": {}, "webhook": "https://h", "webhook_events": ["strated"]})
