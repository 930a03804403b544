"""A lone caller is answered by the function's own thread. Nothing but the time may differ."""

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.conftest import Runner, write_project

CODE = """
import asyncio
import time

import msgspec

from gen_worker import ActionContext, worker_function


class In(msgspec.Struct):
    prompt: str
    seconds: float = 0.0
    times: int = 1


class Out(msgspec.Struct):
    text: str


@worker_function
def echo(ctx: ActionContext, payload: In) -> Out:
    time.sleep(payload.seconds)
    return Out(payload.prompt * payload.times)


@worker_function
async def async_echo(ctx: ActionContext, payload: In) -> Out:
    await asyncio.sleep(payload.seconds)
    return Out(payload.prompt * payload.times)
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("early")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    assert found.stop() == 0
    assert "Traceback" not in found.log.read_text()


def connect(runner: Runner) -> socket.socket:
    address = urlsplit(runner.url)
    return socket.create_connection((address.hostname, address.port), 60)


@pytest.fixture
def clients(runner: Runner) -> Iterator[list[http.client.HTTPConnection]]:
    """Two connections that stay open."""
    made = [client_of(runner), client_of(runner)]
    yield made
    for client in made:
        client.close()


def client_of(runner: Runner) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(runner.url).netloc, timeout=60)


def request_of(function: str, **payload: Any) -> bytes:
    body = json.dumps(payload).encode()
    return b"POST /v1/run/%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (function.encode(), len(body), body)


def ask(client: http.client.HTTPConnection, method: str, path: str, payload: Any = None) -> tuple[int, Any]:
    client.request(method, path, None if payload is None else json.dumps(payload))
    answer = client.getresponse()
    return answer.status, json.loads(answer.read())


def read_answer(sock: socket.socket, received: bytes = b"") -> tuple[bytes, bytes]:
    """The body of one answer, and what came behind it."""
    while b"\r\n\r\n" not in received:
        chunk = sock.recv(65536)
        assert chunk, received
        received += chunk
    head, _, rest = received.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(rest) < length:
        rest += sock.recv(1 << 20)
    return rest[:length], rest[length:]


@pytest.mark.parametrize("function", ["echo", "async-echo"])
def test_who_has_an_answer_finds_its_run_ended_with_the_same_events(clients: list[http.client.HTTPConnection], function: str) -> None:
    caller, observer = clients
    for number in range(150):
        status, answer = ask(caller, "POST", f"/v1/run/{function}", {"prompt": str(number)})
        assert (status, answer["output"]) == (200, {"text": str(number)})
        status, run = ask(observer, "GET", f"/v1/runs/{answer['run_id']}")
        assert (run["status"], run["output"]) == ("succeeded", answer["output"])
        assert run["timings"]["total_ms"] == answer["timing_ms"]["total_ms"]
        assert [event["event_type"] for event in answer["events"]][-1] == "task.completed"
        status, found = ask(observer, "GET", "/v1/status")
        assert found["runs"]["queued"] == 0
    observer.request("GET", f"/v1/runs/{answer['run_id']}/events?events=all", headers={"accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in observer.getresponse().read().splitlines()]
    told = [event["event_type"] for event in answer["events"]]
    assert [line["data"]["event_type"] for line in lines[: len(told)] if "event_type" in line["data"]] == told
    assert lines[-1]["event"] == "done"


@pytest.mark.parametrize("function", ["echo", "async-echo"])
def test_a_long_answer_is_whole_however_slowly_it_is_read(runner: Runner, function: str) -> None:
    with connect(runner) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(request_of(function, prompt="0123456789", times=300_000))
        body, behind = read_answer(sock)
        assert json.loads(body)["output"] == {"text": "0123456789" * 300_000}
        assert not behind
        sock.sendall(request_of(function, prompt="next"))  # the connection goes on behind it
        assert json.loads(read_answer(sock)[0])["output"] == {"text": "next"}


def test_answers_come_in_the_order_of_their_requests(runner: Runner) -> None:
    with connect(runner) as sock:
        wanted = [(("echo", "async-echo")[number % 2], str(number)) for number in range(12)]
        sock.sendall(b"".join(request_of(function, prompt=text) for function, text in wanted))
        rest = b""
        for _, text in wanted:
            body, rest = read_answer(sock, rest)
            assert json.loads(body)["output"] == {"text": text}


def test_who_left_is_answered_on_nobody_elses_connection(runner: Runner) -> None:
    """A descriptor's number is given again at once."""
    for number in range(40):
        leaving = connect(runner)
        leaving.sendall(request_of("echo", prompt="not yours", seconds=0.02))
        if number % 2:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        leaving.close()
        with connect(runner) as sock:
            sock.sendall(request_of("echo", prompt="mine", seconds=0.02))
            body, behind = read_answer(sock)
            assert json.loads(body)["output"] == {"text": "mine"}
            assert not behind


def test_a_run_ends_once_when_its_time_ends_as_it_returns(clients: list[http.client.HTTPConnection]) -> None:
    client, observer = clients
    ends = set()
    for number in range(120):
        status, answer = ask(
            client, "POST", "/v1/run/echo", {"payload": {"prompt": "x", "seconds": 0.0034 + 0.00001 * number}, "timeout_ms": 4}
        )
        ends.add(status)
        assert answer["success"] == (status == 200)
        _, run = ask(observer, "GET", f"/v1/runs/{answer['run_id']}")
        assert (run["status"] == "succeeded") == answer["success"]
    assert ends <= {200, 504}


def test_a_cancel_that_comes_as_the_function_returns_agrees_with_the_answer(clients: list[http.client.HTTPConnection]) -> None:
    client, observer = clients
    for number in range(60):
        run_id = f"early-cancel-{number}"
        answers: list[Any] = []

        def call(run_id: str = run_id, answers: list[Any] = answers) -> None:
            payload = {"payload": {"prompt": "x", "seconds": 0.004}, "run_id": run_id}
            answers.append(ask(client, "POST", "/v1/run/echo", payload))

        caller = threading.Thread(target=call)
        caller.start()
        deadline_s = time.monotonic() + 60
        while (found := ask(observer, "POST", f"/v1/runs/{run_id}/cancel"))[0] == 404:
            assert time.monotonic() < deadline_s
        caller.join(60)
        ((_, answer),) = answers
        _, run = ask(observer, "GET", f"/v1/runs/{run_id}")
        assert run["status"] == found[1]["status"]
        assert run["status"] == ("succeeded" if answer["success"] else "canceled")


def test_descriptors_do_not_grow(runner: Runner, clients: list[http.client.HTTPConnection]) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{runner.process.pid}/fd").iterdir()))

    client, _ = clients
    ask(client, "POST", "/v1/run/echo", {"prompt": "x"})
    before = descriptors()
    for _ in range(200):
        ask(client, "POST", "/v1/run/echo", {"prompt": "x"})
    assert descriptors() == before
