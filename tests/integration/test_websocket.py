"""Websockets apart from their frames: who may open one, broken handshakes and frames, silence."""

import asyncio
import base64
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import websockets
from tests.conftest import Runner, write_project
from tests.realtime_project import CODE, COZY
from tests.waiting import eventually, until
from websockets.sync.client import connect

from gen_worker.http.asgi import Request
from gen_worker.http.connection import Connection
from gen_worker.http.crowd import ConnectionLimits, Crowd
from gen_worker.http.websocket import WebSocket, accept_fields

KEY = base64.b64encode(bytes(range(16))).decode()
ASKED = {"Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("websocket")
    found = Runner(write_project(folder / "project", CODE, COZY), folder / "outputs")
    yield found
    assert found.stop() == 0
    assert "Traceback" not in found.log.read_text()


def frame(data: bytes, *, first: int = 0x82, masked: bool = True) -> bytes:
    size = len(data)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")
    if not masked:
        return bytes([first]) + length + data
    return bytes([first, length[0] | 0x80]) + length[1:] + bytes(4) + data


def exchange(
    runner: Runner,
    headers: dict[str, str | None],
    behind: bytes = b"",
    *,
    target: str = "/v1/realtime/mirror",
    method: str = "GET",
    until: bytes = b"\0end",
) -> bytes:
    """What comes back: up to `until`, or until the server closes."""
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in {**ASKED, **headers}.items() if value is not None]]
    address = urlsplit(runner.url)
    received = b""
    with socket.create_connection((address.hostname, address.port), 20) as sock:
        try:
            sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + behind)
            while until not in received and (chunk := sock.recv(65536)):
                received += chunk
        except ConnectionError:
            pass
    return received


def status_of(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


CLOSE = frame(b"\x03\xe8", first=0x88)


@pytest.mark.parametrize(
    ("headers", "options", "status"),
    [
        ({}, {}, 101),
        ({"Upgrade": "h2c, WebSocket", "Connection": "keep-alive, upgrade"}, {}, 101),
        ({"Origin": "http://localhost:9999"}, {}, 101),
        ({"Origin": "https://evil.example"}, {}, 403),
        ({"Origin": "null"}, {}, 403),
        ({"Origin": "http://[::1"}, {}, 400),
        ({"Sec-Fetch-Site": "cross-site"}, {}, 403),
        ({"Host": "evil.example"}, {}, 421),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, {}, 421),
        ({"Host": None}, {}, 400),
        ({"Sec-WebSocket-Version": "8"}, {}, 426),
        ({"Sec-WebSocket-Version": None}, {}, 426),
        ({"Upgrade": "h2c"}, {}, 426),
        ({"Upgrade": None, "Connection": "close"}, {}, 426),
        ({"Sec-WebSocket-Key": None}, {}, 400),
        ({"Sec-WebSocket-Key": "short"}, {}, 400),
        ({"Sec-WebSocket-Key": "²" * 16}, {}, 400),
        ({}, {"method": "POST"}, 405),
        ({}, {"target": "/v1/realtime/miror"}, 404),
        ({}, {"target": "/v1/realtime/echo"}, 404),
        ({}, {"target": "/v1/realtime/"}, 404),
        ({}, {"target": "/v1/realtime/mirror/x"}, 404),
        ({}, {"target": "/v1/realtime/mirror?timeout=5"}, 400),
        ({}, {"target": "/v1/realtime/mirror?timeout_ms=-1"}, 400),
        ({}, {"target": "/v1/realtime/mirror?timeout_ms=99999999999"}, 400),
        ({}, {"target": "/v1/realtime/mirror?run_id=../x"}, 400),
    ],
    ids=str,
)
def test_who_may_open_one_and_how(runner: Runner, headers: dict[str, str | None], options: dict[str, str], status: int) -> None:
    received = exchange(runner, headers, CLOSE, **options)
    assert status_of(received) == status, received
    head, _, body = received.partition(b"\r\n\r\n")
    if status == 101:
        accepted = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        assert b"sec-websocket-accept: " + accepted in head
        assert body == b"\x88\x02\x03\xe8"
    else:
        assert b"application/problem+json" in head
        assert json.loads(body)["status"] == status
    if status == 426:
        assert b"sec-websocket-version: 13" in head
    until(lambda: runner.http.get("/v1/status").json()["runs"]["active"] == 0)


def test_the_other_kind_of_function_is_pointed_at(runner: Runner) -> None:
    assert "called by POST /v1/run/echo" in runner.http.get("/v1/realtime/echo").json()["hint"]
    assert "/v1/realtime/mirror" in runner.run("mirror").json()["hint"]


def test_an_id_that_is_taken(runner: Runner) -> None:
    url = runner.url.replace("http", "ws", 1)
    with connect(f"{url}/v1/realtime/mirror?run_id=taken", proxy=None), pytest.raises(websockets.InvalidStatus) as refused:
        connect(f"{url}/v1/realtime/mirror?run_id=taken", proxy=None)
    assert refused.value.response.status_code == 409


@pytest.mark.parametrize(
    ("behind", "answered"),
    [
        (frame(b"hello") + frame(b"again"), b"\x82\x05hello\x82\x05again"),
        (frame(b"x" * 200_000) + frame(b"close"), b"x" * 200_000 + b"\x88\x08\x03\xe8closed"),
        (frame(b"he", first=0x02) + frame(b"", first=0x89) + frame(b"llo", first=0x80) + frame(b"close"), b"\x8a\x00\x82\x05hello"),
        (frame(b"unmasked", masked=False), b"\x03\xea"),
        (frame(b"\xff\xfe", first=0x81), b"\x03\xef"),
        (frame(b"x", first=0x83), b"\x03\xea"),
        (frame(b"x", first=0xC2), b"\x03\xea"),
        (frame(b"continued", first=0x80), b"\x03\xea"),
        (frame(b"x" * 200, first=0x89), b"\x03\xea"),
        (frame(b"\x00", first=0x88), b"\x88"),
        (b"\x82\xff" + (1 << 62).to_bytes(8, "big") + bytes(4) + b"x" * (17 << 20), b"\x03\xf1frame_too_large"),
        (b"GET / HTTP/1.1\r\n\r\n", b"\x03\xea"),
    ],
    ids=["behind the request", "much", "ping between pieces", "unmasked", "no UTF-8", "opcode", "compressed", "continued", "long ping", "close of one byte", "endless", "HTTP"],
)  # fmt: skip
def test_frames_as_they_stand(runner: Runner, behind: bytes, answered: bytes) -> None:
    received = exchange(runner, {}, behind, until=answered)
    body = received.partition(b"\r\n\r\n")[2]
    assert status_of(received) == 101
    if b"frame_too_large" not in answered or body:  # who sends on after the refusal may lose it to a reset
        assert answered in body, body[-100:]
    assert runner.run("echo").json()["success"]


def test_behind_other_requests_on_one_connection(runner: Runner) -> None:
    first = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3
    asked = "GET /v1/realtime/mirror HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in ASKED.items()) + "\r\n"
    address = urlsplit(runner.url)
    with socket.create_connection((address.hostname, address.port), 20) as sock:
        sock.sendall(first + asked.encode() + frame(b"hello"))
        received = b""
        while not received.endswith(b"\x82\x05hello"):
            received += sock.recv(65536)
    assert received.count(b"HTTP/1.1 200") == 3


def test_random_bytes_never_harm(runner: Runner) -> None:
    for seed in range(30):
        noise = os.urandom(2000) if seed else bytes(2000)
        assert status_of(exchange(runner, {}, noise + CLOSE)) == 101
    assert runner.run("echo").json()["success"]


class Listener:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def message(self, data: bytes) -> bool:
        self.heard.append(data)
        return True

    def too_large(self) -> None:
        self.heard.append("too large")

    def left(self) -> None:
        self.heard.append("left")

    def stopping(self) -> None:
        self.heard.append("stopping")


async def test_who_is_silent_is_asked_and_who_does_not_answer_is_gone() -> None:
    """The server's part alone, with a short patience."""
    listeners: list[Listener] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        listeners.append(Listener())
        request = Request({**scope, "path_params": {}}, receive, send)
        scope["upgrade"](accept_fields(request), WebSocket(listeners[-1], max_message_bytes=1000))

    crowd = Crowd(ConnectionLimits(ping_s=0.05))
    state = SimpleNamespace(connections=set(), tasks=set())
    server = await asyncio.get_running_loop().create_server(lambda: Connection(app, crowd, state), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with websockets.connect(f"ws://127.0.0.1:{port}/", proxy=None, ping_interval=None) as lively:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(("GET / HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in ASKED.items()) + "\r\n").encode())
        await reader.readuntil(b"\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 60) == b"\x89\x00", "one ping, then the end"
        writer.close()
        await eventually(lambda: listeners[1].heard == ["left"])
        assert len(crowd) == len(state.connections) == 1
        await lively.send(b"still here")
        await eventually(lambda: listeners[0].heard == [b"still here"])
    await eventually(lambda: listeners[0].heard == [b"still here", "left"] and not len(crowd) and not state.connections)
    server.close()
