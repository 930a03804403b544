"""Bodies of invocations: what is payload, what is an option, and what is refused in which words."""

from typing import Any

import msgspec
import pytest

from gen_orchestrator.api.envelope import MAX_DEPTH, InvokeOptions, read_invocation
from gen_worker.http.asgi import RequestError


def read(body: Any, path: str = "/v1/o/e/f") -> tuple[Any, InvokeOptions]:
    found = read_invocation(body if isinstance(body, bytes) else msgspec.json.encode(body), path)
    return msgspec.msgpack.decode(found.payload), found.options


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"", {}),
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
        (b"true", "invalid_json", "the body is a boolean"),
        (b'"x"', "invalid_json", "the body is a string"),
        ({"payload": []}, "invalid_payload", "payload is a list; expected a JSON object"),
        (
            {"payload": {}, "timeout": 3},
            "",
            "unknown option 'timeout'. Did you mean 'timeout_s'? Options: priority, start_timeout_s, timeout_s",
        ),
        ({"payload": {}, "timeout_s": "3"}, "", "option Expected `float`, got `str` - at `$.timeout_s`"),
        ({"payload": {}, "timeout_s": -1}, "", "timeout_s=-1.0: expected seconds from 0 (none) to 604800 (a week)"),
        ({"payload": {}, "start_timeout_s": 604801}, "", "start_timeout_s=604801.0: expected seconds"),
        ({"payload": {}, "priority": "hihg"}, "", "priority 'hihg'. Did you mean 'high'? Expected: "),
        ({"payload": {}, "webhook_events": ["x"]}, "", "webhook_events: 'x'. Expected some of: "),
    ],
)
def test_what_is_refused(body: Any, error: str, words: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(body)
    code = "invalid_json" if words.startswith("the body is not") else "validation"
    assert (raised.value.status, raised.value.request_code) == (400, code)
    assert words in str(raised.value)
    assert (raised.value.error or "") == error


def test_events_of_a_webhook_need_the_webhook() -> None:
    from gen_orchestrator.domain.webhooks import EVENTS

    with pytest.raises(RequestError, match="webhook_events without webhook") as raised:
        read({"payload": {}, "webhook_events": [EVENTS[0]]})
    assert (raised.value.status, raised.value.request_code) == (400, "validation")
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
