"""Bad input from callers, authors and operators: each with the message that helps."""

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.bad_input_project import CODE
from tests.conftest import Runner, sse_events, write_project


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("bad")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    found.stop()


def post(runner: Runner, function: str, body: bytes) -> tuple[int, dict]:
    response = runner.http.post(f"/v1/run/{function}", content=body, headers={"content-type": "application/json"})
    return response.status_code, response.json()


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


def raw_connection(runner: Runner) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(runner.url).netloc, timeout=60)


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


@pytest.mark.parametrize(
    ("ref", "status", "text"),
    [
        ("../x", 400, "path traversal"),
        ("a/../../x", 400, "path traversal"),
        ("..\\x", 400, "path traversal"),
        ("https://example.org/x", 400, "is a URL"),
        ("", 400, "output ref is empty"),
        ("a\x00b", 400, "control character"),
        ("x" * 5000, 400, "at most 1024"),
        ("y" * 300, 400, "more than 255 bytes"),
        ("/etc/x", 200, "etc/x"),
        ("a//b/./c", 200, "a/b/c"),
        ("%2e%2e/x", 200, "%2e%2e/x"),
    ],
)
def test_output_refs(runner: Runner, ref: str, status: int, text: str) -> None:
    response = runner.run("save", {"prompt": ref})
    assert response.status_code == status
    answer = response.json()
    assert text in (answer["output"]["text"] if status == 200 else answer["error_message"])
    assert not (runner.outputs.parent / "x").exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/x",
        "http://127.0.0.1/x",
        "http://[::1]/x",
        "http://0.0.0.0/x",
        "http://2130706433/x",
        "http://0x7f.1/x",
        "http://localhost/x",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/x",
        "http://10.0.0.1/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://user:pw@example.org/x",
        "file:///etc/passwd",
        "gopher://example.org/x",
        "http://no-such-host.invalid/x",
        "http:///x",
    ],
)
def test_input_urls_that_are_not_public(runner: Runner, url: str) -> None:
    response = runner.run("read", {"image": {"ref": url.format(port=urlsplit(runner.url).port)}})
    assert response.status_code == 400
    assert "input url blocked" in response.json()["error_message"]
    assert response.json()["errors"][0]["pointer"] == "/image"


def test_a_callers_local_path_is_dropped(runner: Runner) -> None:
    response = runner.run("read", {"image": {"ref": "x", "local_path": "/etc/hostname"}})
    assert response.status_code == 400
    assert "there is no file under the ref 'x'" in response.json()["error_message"]


NESTED = [
    (lambda image: {"page": {"image": image, "steps": 999}}, "/page/image", "hello 50"),
    (lambda image: {"row": {"image": image}}, "/row/image", "hello"),
    (lambda image: {"pair": [image]}, "/pair/0", "hello"),
    (lambda image: {"pages": {"a/b": [{"image": image, "steps": 0}]}}, "/pages/a~1b/0/image", "hello 1"),
]


@pytest.mark.parametrize(("payload", "pointer", "text"), NESTED)
def test_files_in_classes_of_every_kind_are_fetched_and_clamped(runner: Runner, payload: Any, pointer: str, text: str) -> None:
    assert runner.run("read-nested", payload({"ref": "data:,hello"})).json()["output"] == {"text": text}
    response = runner.run("read-nested", payload({"ref": "x", "local_path": "/etc/hostname"}))
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("ref", ["../../../etc/passwd", "/etc/passwd", "data:text/plain;base64,@@", "data:nonsense"])
def test_input_refs_that_lead_nowhere(runner: Runner, ref: str) -> None:
    response = runner.run("read", {"image": {"ref": ref}})
    assert response.status_code == 400
    assert response.json()["error_type"] == "validation"


@pytest.mark.parametrize("function", ["leave", "aleave", "interrupt", "stop-iteration", "astop-iteration", "bug"])
def test_an_authors_exit_ends_the_run_not_the_runner(runner: Runner, function: str) -> None:
    response = runner.run(function)
    assert response.status_code == 500
    answer = response.json()
    assert (answer["error_type"], answer["safe_message"]) == ("internal", "internal error")
    assert "hunter2" not in answer["safe_message"]
    assert runner.run("echo").status_code == 200


def test_a_stray_tasks_exit_leaves_the_async_loop_running(runner: Runner) -> None:
    assert runner.run("aleave-by-task", timeout_ms=5000).status_code in (200, 500, 504)
    assert runner.run("aleave").json()["error_type"] == "internal"


@pytest.mark.parametrize("function", ["endless", "aendless"])
def test_an_endless_generator_that_nobody_reads_ends_by_itself(runner: Runner, function: str) -> None:
    response = runner.run(function)
    assert response.status_code == 503
    answer = response.json()
    assert answer["error_type"] == "resource"
    assert "read along with Accept: text/event-stream" in answer["error_message"]
    assert len(answer["events"]) <= 10_000


@pytest.mark.parametrize("function", ["endless", "aendless"])
def test_an_endless_generator_waits_for_its_reader(runner: Runner, function: str) -> None:
    with runner.http.stream("POST", f"/v1/run/{function}", json={}, headers={"accept": "text/event-stream"}) as response:
        run_id = response.headers["x-run-id"]
        events = sse_events(response)
        for _ in range(10):
            next(events)
        seen: list[str] = []

        def paused() -> bool:
            # What the kernel buffers for a slow reader is soon full; from then on the generator stands still.
            seen.append(runner.http.get(f"/v1/runs/{run_id}").headers["etag"])
            time.sleep(0.2)
            return len(seen) > 1 and seen[-1] == seen[-2]

        runner.until(paused, timeout_s=30)
    assert runner.http.get(f"/v1/runs/{run_id}", params={"wait": 5}).json()["status"] == "canceled"
    runner.until(lambda: not runner.http.get("/v1/status").json()["threads_left"])


def test_a_huge_delta_is_an_error_not_a_silent_loss(runner: Runner) -> None:
    answer = runner.run("huge").json()
    assert answer["error_type"] == "fatal"
    assert "yielded an item of 100011 bytes; at most 65536 are allowed" in answer["error_message"]
    assert "output.error" in [event["event_type"] for event in answer["events"]]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("lies", "returned dict; declared is Out"),
        ("lies-in-a-stream", "yielded str; declared is Out"),
        ("returns-nothing-to-stream", "returned NoneType; declared is a stream of Out"),
        ("odd", "cannot be encoded"),
    ],
)
def test_outputs_that_are_not_what_was_declared(runner: Runner, function: str, message: str) -> None:
    response = runner.run(function, {"prompt": "x"})
    assert response.status_code == 500
    assert message in response.json()["error_message"]


def test_what_a_caller_reads_is_scrubbed(runner: Runner) -> None:
    assert runner.run("secret").json()["safe_message"] == "no Bearer <redacted> at <url> in <path>"


def test_an_event_flood_is_bounded(runner: Runner) -> None:
    response = runner.run("flood")
    assert len(response.json()["events"]) <= 10_000


def test_an_async_function_that_blocks_does_not_block_the_runner(runner: Runner) -> None:
    started = runner.http.post("/v1/run/blocks-the-loop", json={}, headers={"prefer": "respond-async"})
    began_s = time.monotonic()
    assert runner.http.get("/v1/status").status_code == 200
    assert time.monotonic() - began_s < 0.9
    assert runner.http.get(started.headers["location"], params={"wait": 5}).json()["status"] == "succeeded"


def test_a_missing_extra_is_named_with_its_command(runner: Runner) -> None:
    assert "pip install 'gen-worker[torch]'" in runner.run("device").text or "pip install 'gen-worker[torch]'" in runner.log.read_text()


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
    assert b"came too slowly" in received


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
