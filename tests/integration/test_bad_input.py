"""Wrong requests, each answered with a helpful message: payloads, bodies, paths, origins."""

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.bad_input_project import CODE
from tests.conftest import Runner, write_project


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("bad")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    found.stop()


def post(runner: Runner, function: str, body: bytes) -> tuple[int, dict]:
    response = runner.http.post(f"/v1/run/{function}", content=body, headers={"content-type": "application/json"})
    return response.status_code, response.json()


def raw_connection(runner: Runner) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(runner.url).netloc, timeout=60)


@pytest.mark.parametrize(
    ("payload", "pointer", "message"),
    [
        ({"leaves": [{"number": 1}, {"number": "2"}]}, "/leaves/1/number", "payload.leaves[1].number: expected int, got str."),
        (
            {"leaves": [{"nummer": 1}]},
            "/leaves/0/number",
            "required field 'number' is missing. Unknown field 'nummer'. Did you mean 'number'?",
        ),
        ({}, "/leaves", "payload: required field 'leaves' is missing."),
        ({"leaves": [], "share": "all"}, "/share", "payload.share: expected float, got str."),
        ([], "", "payload: expected object, got array."),
    ],
)
def test_wrong_types_and_missing_fields_at_depth(runner: Runner, payload: object, pointer: str, message: str) -> None:
    status, answer = post(runner, "tree", json.dumps({"payload": payload}).encode())
    assert status == 400
    assert answer["error_type"] == "validation"
    assert message in answer["safe_message"]
    assert answer["errors"][0]["pointer"] == pointer


def test_an_unknown_function_names_the_nearest(runner: Runner) -> None:
    response = runner.run("ecko")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].startswith("no function 'ecko'. Did you mean 'echo'?")
    assert response.json()["error"] == "unknown_function"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"{", "the body is not JSON"),
        (b'{"prompt": NaN}', "the body is not JSON: JSON is malformed: invalid character"),
        (b"[" * 10_000 + b"]" * 10_000, "payload: expected object, got array."),
        (b'{"payload":{"prompt":' + b"[" * 10_000 + b"]" * 10_000 + b"}}", "nested too deep"),
        (b'{"x":' * 10_000 + b"1" + b"}" * 10_000, "nested too deep"),
        (b'{"prompt": "\xff\xfe"}', "UTF-8"),
        (b'{"payload":{},"timeout_ms":"soon"}', "option 'timeout_ms': Expected `int | null`, got `str`"),
        (b'{"payload":{},"timeout_ms":-1}', "expected milliseconds from 0"),
        (b'{"payload":{},"run_id":"../x"}', "expected 1 to 128 letters"),
        (b'{"payload":{},"run_id":"a\\r\\nb"}', "expected 1 to 128 letters"),
        (b'{"payload":{},"resolved_cozy_models_by_id":[]}', "option 'resolved_cozy_models_by_id'"),
    ],
)
def test_bodies_that_cannot_be_read(runner: Runner, body: bytes, message: str) -> None:
    began_s = time.monotonic()
    status, answer = post(runner, "echo", body)
    assert status == 400
    assert message in (answer.get("detail") or answer["safe_message"])
    assert time.monotonic() - began_s < 5


def test_five_megabytes_pass(runner: Runner) -> None:
    status, answer = post(runner, "echo", json.dumps({"prompt": "x" * 5_000_000}).encode())
    assert (status, answer["output"]) == (200, {"text": "5000000"})


def test_a_gigabyte_is_refused_by_its_declared_length(runner: Runner) -> None:
    connection = raw_connection(runner)
    connection.putrequest("POST", "/v1/run/echo")
    connection.putheader("content-length", str(1 << 30))
    connection.endheaders()
    connection.send(b'{"prompt":"')
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["detail"] == "request body of 1073741824 bytes; at most 268435456 are accepted"
    connection.close()


def test_a_gigabyte_in_chunks_is_cut_off(runner: Runner) -> None:
    connection = raw_connection(runner)
    connection.putrequest("POST", "/v1/run/echo")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    chunk = b"x" * (4 << 20)
    sent = 0
    try:
        while sent < 1 << 30:
            connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            sent += len(chunk)
    except OSError:
        pass
    assert sent < 1 << 30
    connection.close()
    assert runner.run("echo", {"prompt": "still here"}).status_code == 200
    rss = int(Path(f"/proc/{runner.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert rss < 900 << 20


def test_a_body_that_trickles_is_answered_after_fifteen_seconds(runner: Runner) -> None:
    with socket.create_connection((urlsplit(runner.url).hostname, urlsplit(runner.url).port), timeout=30) as sock:
        sock.sendall(b"POST /v1/run/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n")
        sock.settimeout(1)
        received = b""
        for _ in range(25):
            sock.sendall(b"{")
            try:
                while chunk := sock.recv(4096):
                    received += chunk
                break
            except TimeoutError:
                continue
    assert received.startswith(b"HTTP/1.1 408")
    assert b"arrived too slowly" in received


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), ("http://localhost:3000", 200), (None, 200), ("self", 200)],
)
def test_pages_of_other_sites_cannot_run_functions(runner: Runner, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"origin": runner.url if origin == "self" else origin}
    response = runner.http.post("/v1/run/echo", json={}, headers=headers)
    assert response.status_code == status
    if status == 403:
        assert response.json()["code"] == "cross_site"


def test_unknown_paths_and_methods_are_problems(runner: Runner) -> None:
    response = runner.http.get("/v2/nothing")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert runner.http.get("/v1/run/echo").status_code == 405
    assert runner.http.get("/v1/runs/none").json()["error"] == "unknown_run"


def test_a_body_that_stops_half_way_holds_no_run(runner: Runner) -> None:
    with socket.create_connection((urlsplit(runner.url).hostname, urlsplit(runner.url).port)) as sock:
        sock.sendall(b'POST /v1/run/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"prompt"')
        assert runner.http.get("/v1/status").json()["runs"]["active"] == 0
