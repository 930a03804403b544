"""Odd headers, queries and paths on every route: an answer of 4xx with a problem, never 500, never plain text."""

import json
import os
import random
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.conftest import Runner, write_project
from tests.runner_project import CODE

ROUTES = [
    ("POST", "/v1/run/echo"),
    ("POST", "/v1/run/words"),
    ("POST", "/v1/warmup/echo"),
    ("GET", "/v1/realtime/mirror"),
    ("GET", "/v1/runs"),
    ("GET", "/v1/runs/known"),
    ("GET", "/v1/runs/known/events"),
    ("POST", "/v1/runs/known/cancel"),
    ("GET", "/v1/files/o/x.txt"),
    ("GET", "/v1/status"),
    ("GET", "/v1/models/status"),
    ("POST", "/v1/models/prefetch"),
    ("POST", "/v1/models/load"),
    ("POST", "/v1/models/unload"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/docs/console.js"),
]
VALUES = [
    "",
    "²",
    "\xff\xfe",
    "http://[::1",
    "http://[::1]:99999999",
    "http://\xff",
    "null",
    '"',
    ";;,,==",
    "a" * 4000,
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=B; charset=idna",
    "multipart/form-data; boundary=B; charset=unicode_escape",
    "application/json; charset=hex",
    "bytes=²-",
    "bytes=9-1",
    "bytes=99999-",
    "bytes=-",
    "0-0",
    "W/",
    "*",
    "-1",
    "9" * 30,
    "wait=²",
    "gzip",
    "text/event-stream;q=²",
]
HEADERS = [
    "accept",
    "prefer",
    "content-type",
    "content-encoding",
    "origin",
    "if-none-match",
    "if-range",
    "range",
    "last-event-id",
    "idempotency-key",
    "sec-fetch-site",
    "expect",
    "cookie",
    "host",
]
QUERIES = ["wait", "status", "function", "cursor", "after", "events"]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("odd")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    (found.outputs / "o").mkdir(parents=True)
    (found.outputs / "o/x.txt").write_text("0123456789")
    (found.outputs / "o/loop").symlink_to("loop")
    (found.outputs / "o/long").symlink_to("a" * 200)
    os.mkfifo(found.outputs / "o/fifo")
    assert found.run("echo", run_id="known").status_code == 200
    yield found
    assert found.stop() == 0
    assert "runner.failed" not in found.log.read_text()
    assert "Traceback" not in found.log.read_text()


def exchange(runner: Runner, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to raw bytes, the connection closed by the server."""
    address = urlsplit(runner.url)
    with socket.create_connection((address.hostname, address.port), 60) as sock:
        sock.sendall(request)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, body


def ask(runner: Runner, method: str, target: str, headers: dict[str, str], body: bytes = b"{}") -> tuple[int, dict[str, str], bytes]:
    fields = {"host": "127.0.0.1", "content-type": "application/json", "connection": "close", "content-length": str(len(body)), **headers}
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    return exchange(runner, head.encode("latin-1") + body)


def check(status: int, headers: dict[str, str], body: bytes, shown: object) -> None:
    assert status < 500, (shown, status, body[:300])
    if status >= 400:
        assert headers["content-type"] in ("application/problem+json", "application/json"), (shown, headers)
        if body:
            json.loads(body)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_odd_header_values(runner: Runner, method: str, path: str) -> None:
    for name in HEADERS:
        for value in VALUES:
            check(*ask(runner, method, path, {name: value}), (name, value))


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_odd_queries_and_paths(runner: Runner, method: str, path: str) -> None:
    values = ["", "%B2", "%FF%FE", "-1", "9" * 5000, "%00", "bogus", "[::1", "a&a", "%", "%zz", "1e3"]
    for name in QUERIES:
        for value in values:
            check(*ask(runner, method, f"{path}?{name}={value}", {}), (name, value))
    for suffix in ("/", "//", "%00", "%2e%2e%2f", "/..", "%ff", "/" + "a" * 5000, "/" + "/".join("a" * 900), ";x", "?" + "a=b&" * 5000):
        check(*ask(runner, method, path + suffix, {}), suffix)


def test_many_headers_at_once(runner: Runner) -> None:
    chosen = random.Random(7)
    for _ in range(300):
        method, path = chosen.choice(ROUTES)
        headers = {chosen.choice(HEADERS): chosen.choice(VALUES) for _ in range(4)}
        check(*ask(runner, method, path, headers), (path, headers))


@pytest.mark.parametrize("name", ["idempotency-key", "authorization", "content-type", "host", "origin", "last-event-id", "range"])
def test_a_header_with_one_value_comes_once(runner: Runner, name: str) -> None:
    value = runner.url.removeprefix("http://") if name == "host" else "application/json"
    for method, path in ROUTES[:6]:
        lines = [f"{method} {path} HTTP/1.1", f"{name}: {value}", "content-length: 2", f"{name}: {value}", "connection: close"]
        lines += [] if name == "host" else ["host: localhost"]
        status, _, body = exchange(runner, "\r\n".join([*lines, "", "{}"]).encode())
        assert (status, json.loads(body)["detail"]) == (400, f"2 headers '{name}'; expected one")
    answer = runner.http.post(
        "/v1/run/echo", json={"prompt": "a"}, headers=[("prefer", "wait=5"), ("prefer", "x"), ("accept", "a/b"), ("accept", "*/*")]
    )
    assert answer.status_code == 200, "lists may be repeated"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "PURGE"])
def test_a_method_that_a_path_has_not_is_a_problem_with_what_is_allowed(runner: Runner, method: str) -> None:
    for _, path in ROUTES:
        status, headers, body = ask(runner, method, path, {})
        assert (status, headers["content-type"]) == (405, "application/problem+json")
        assert headers["allow"]
        assert json.loads(body)["code"] == "method_not_allowed"


def test_options_say_what_a_path_allows(runner: Runner) -> None:
    for method, path in ROUTES:
        status, headers, body = ask(runner, "OPTIONS", path, {})
        assert (status, body) == (204, b"")
        assert {method, "OPTIONS"} <= set(headers["allow"].split(", "))
        assert "content-length" not in headers


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8081", "[::1", "localhost@evil.example"])
def test_a_foreign_host_is_misdirected_on_every_route(runner: Runner, method: str, path: str, host: str) -> None:
    status, headers, body = ask(runner, method, path, {"host": host, "origin": f"http://{host}"})
    assert (status, headers["content-type"]) == (421, "application/problem+json")
    assert "--allow-host" in json.loads(body)["hint"]


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/run/nothing"])
def test_a_foreign_host_learns_nothing_of_what_is_there(runner: Runner, path: str) -> None:
    assert ask(runner, "POST", path, {"host": "evil.example"})[0] == 421


def test_further_hosts_are_named(runner: Runner, tmp_path: Path) -> None:
    other = Runner(write_project(tmp_path / "project", CODE), tmp_path / "outputs", "--allow-host", "My-Box.local")
    assert ask(other, "GET", "/v1/runs", {"host": "my-box.local:80"})[0] == 200
    assert ask(other, "GET", "/v1/runs", {"host": "127.0.0.1"})[0] == 200
    assert ask(other, "GET", "/v1/runs", {"host": "your-box.local"})[0] == 421
    assert other.stop() == 0


def test_an_origin_that_is_none_is_400(runner: Runner) -> None:
    for origin in ("http://[::1", "http://a:b", "http://[x]"):
        status, _, body = ask(runner, "POST", "/v1/run/echo", {"origin": origin})
        assert (status, json.loads(body)["code"]) == (400, "invalid_origin")


@pytest.mark.parametrize(
    "name", ["o/loop", "o/long", "o/fifo", "o", "o/x.txt/y", "/".join(["b" * 250] * 20), "b" * 300, "%2e%2e/x", "o/none"]
)
def test_what_is_no_file_is_not_found(runner: Runner, name: str) -> None:
    status, _, body = ask(runner, "GET", f"/v1/files/{name}", {})
    assert (status, json.loads(body)["error"]) == (404, "unknown_file")


@pytest.mark.parametrize(
    ("value", "status", "body"),
    [
        ("bytes=2-3", 206, b"23"),
        ("BYTES=-2", 206, b"89"),
        ("bytes=9-1", 200, b"0123456789"),
        ("items=0-1", 200, b"0123456789"),
        ("bytes=", 200, b"0123456789"),
        ("bytes=--1", 200, b"0123456789"),
        ("bytes=0-0,99-", 206, b"0"),
        ("bytes=99-", 416, None),
        ("bytes=-0,99-", 416, None),
    ],
)
def test_ranges(runner: Runner, value: str, status: int, body: bytes | None) -> None:
    found, headers, data = ask(runner, "GET", "/v1/files/o/x.txt", {"range": value})
    assert found == status
    if body is None:
        assert headers["content-range"] == "bytes */10"
        assert json.loads(data)["code"] == "range_not_satisfiable"
    else:
        assert data == body


def test_several_ranges_come_in_parts(runner: Runner) -> None:
    found, headers, data = ask(runner, "GET", "/v1/files/o/x.txt", {"range": "bytes=8-,0-1,99-"})
    assert (found, headers["content-type"].partition(";")[0]) == (206, "multipart/byteranges")
    assert re.findall(rb"content-range: (bytes [^\r]*)\r\n\r\n([^\r]*)", data, re.IGNORECASE) == [
        (b"bytes 0-1/10", b"01"),
        (b"bytes 8-9/10", b"89"),
    ]


def test_conditions_of_reading(runner: Runner) -> None:
    path, whole = "/v1/files/o/x.txt", b"0123456789"
    known = ask(runner, "GET", path, {})[1]
    etag, modified = known["etag"], known["last-modified"]
    for headers, status in (
        ({"if-none-match": f"W/{etag}"}, 304),
        ({"if-none-match": '"x"', "if-modified-since": modified}, 200),
        ({"if-modified-since": modified}, 304),
        ({"if-modified-since": "yesterday"}, 200),
        ({"if-match": etag}, 200),
        ({"if-match": f"W/{etag}"}, 412),
        ({"if-match": '"x", *'}, 412),
        ({"if-match": "*", "if-unmodified-since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 200),
        ({"if-unmodified-since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 412),
        ({"if-unmodified-since": modified}, 200),
    ):
        assert ask(runner, "GET", path, headers)[0] == status, headers
    for if_range, data in ((etag, b"0"), (modified, b"0"), (f"W/{etag}", whole), ('"x"', whole), ("", whole), (f"{etag}, {etag}", whole)):
        assert ask(runner, "GET", path, {"range": "bytes=0-0", "if-range": if_range})[2] == data, if_range
    assert ask(runner, "HEAD", path, {"range": "bytes=99-"})[0] == 200, "ranges are for GET alone"


def test_queries_that_mean_nothing_are_refused_with_what_is_meant(runner: Runner) -> None:
    bogus = runner.http.get("/v1/runs", params={"status": "bogus"})
    assert bogus.status_code == 400
    for word in ("queued", "running", "succeeded", "failed", "canceled"):
        assert word in bogus.json()["detail"]
    assert runner.http.get("/v1/runs", params={"cursor": "gone"}).status_code == 400
    run_id = runner.run("echo").json()["run_id"]
    assert runner.http.get(f"/v1/runs/{run_id}", params={"wait": "²"}).status_code == 400
    for method, path, said in (
        ("GET", "/v1/runs?sttus=failed", "unknown query parameter 'sttus'. Did you mean 'status'? Known here: cursor, function, status"),
        ("GET", "/v1/runs?limit=1", "unknown query parameter 'limit'. Known here: cursor, function, status"),
        ("GET", "/v1/status?verbose", "unknown query parameter 'verbose'. This route takes none"),
        ("HEAD", "/v1/runs?status=failed", ""),
        ("POST", "/v1/run/echo?event=all", "unknown query parameter 'event'. Did you mean 'events'? Known here: events"),
        ("POST", "/v1/models/load?model_id=a", "unknown query parameter 'model_id'. This route takes none"),
    ):
        answer = runner.http.request(method, path, json={} if method == "POST" else None)
        assert (answer.status_code, said) == ((400, answer.json()["detail"]) if said else (200, "")), path
    for path in ("/livez?t=1", "/docs?from=mail"):
        assert runner.http.get(path).status_code == 200


def test_a_stream_as_plain_json_is_the_list_of_its_outputs(runner: Runner) -> None:
    listed = runner.http.post("/v1/run/words", json={"prompt": "a b"}, headers={"accept": "application/json"}).json()
    assert listed["output"] == listed["outputs"] == [{"chunk": "a"}, {"chunk": "b"}]
    contract = runner.http.post("/v1/run/words", json={"prompt": "a b"}).json()
    assert contract["output"] is None
    assert contract["outputs"] == [{"chunk": "a"}, {"chunk": "b"}]


def test_a_content_coding_is_refused_by_name(runner: Runner) -> None:
    status, _, body = ask(runner, "POST", "/v1/run/echo", {"content-encoding": "gzip"})
    assert (status, json.loads(body)["code"]) == (415, "unsupported_coding")


def test_wait_and_respond_async_together(runner: Runner) -> None:
    soon = runner.http.post("/v1/run/echo", json={"prompt": "x"}, headers={"prefer": "Respond-Async, wait=9"})
    assert (soon.status_code, soon.headers["preference-applied"]) == (200, "respond-async, wait=9")
    assert soon.json()["output"] == {"text": "x"}


@pytest.mark.parametrize(
    "charset", ["idna", "undefined", "hex", "unicode_escape", "utf-7", "raw_unicode_escape", "punycode", "mbcs", "\xff", ""]
)
@pytest.mark.parametrize("text", [rb"\ud800", b"+2AA-", b"\xff\xfe", b"a"])
def test_charsets_of_forms(runner: Runner, charset: str, text: bytes) -> None:
    for name in (b"prompt", b"\xffprompt", b"payload"):
        body = b'--B\r\ncontent-disposition: form-data; name="' + name + b'"\r\n\r\n' + text + b"\r\n--B--\r\n"
        headers = {"content-type": f"multipart/form-data; boundary=B; charset={charset}"}
        check(*ask(runner, "POST", "/v1/run/echo", headers, body), (charset, name, text))


def test_a_refusal_is_read_after_the_whole_body_was_sent(runner: Runner) -> None:
    for path in ("/v1/run/no-such-function", "/no/such/route"):
        with socket.create_connection(("127.0.0.1", urlsplit(runner.url).port or 0), timeout=60) as client:
            size = 8 << 20
            client.sendall(f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n".encode())
            client.sendall(b"x" * size)
            assert b" 404 " in client.recv(1 << 16).partition(b"\r\n")[0], path


def test_a_request_right_behind_a_large_one_is_read_as_it_is(runner: Runner) -> None:
    def request(text: bytes) -> bytes:
        body = b'{"prompt":"%b"}' % text
        return b"POST /v1/run/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    address = urlsplit(str(runner.http.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(request(b"x" * (1 << 20)) + request(b"y" * 40_000) + request(b"last"))
        received = b""
        while b'"last"' not in received and (piece := connection.recv(1 << 20)):
            received += piece
    assert [received.count(status) for status in (b"HTTP/1.1 200", b"HTTP/1.1 400")] == [3, 0]
