"""Connections that use too much: long headers, many headers, slow ones, very many connections. Other callers are served meanwhile, with
constant memory."""

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.conftest import Runner, write_project
from tests.runner_project import CODE

BODY = b'{"prompt":"a"}'
HEAD = b"POST /v1/run/echo HTTP/1.1\r\nHost: localhost\r\n"
WHOLE = HEAD + b"Content-Length: 14\r\n\r\n" + BODY
LAST = HEAD + b"Connection: close\r\nContent-Length: 14\r\n\r\n" + BODY


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("connections")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    assert found.stop() == 0
    assert "Traceback" not in found.log.read_text()


def connect(runner: Runner, timeout_s: float = 20) -> socket.socket:
    address = urlsplit(runner.url)
    return socket.create_connection((address.hostname, address.port), timeout_s)


def exchange(runner: Runner, *pieces: bytes) -> bytes:
    """What comes back until the server closes."""
    received = b""
    with connect(runner) as sock:
        try:
            for piece in pieces:
                sock.sendall(piece)
            while chunk := sock.recv(65536):
                received += chunk
        except ConnectionError:
            pass
    return received


def statuses(received: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


def resident_bytes(runner: Runner) -> int:
    return int(Path(f"/proc/{runner.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([HEAD, *[b"".join(b"X-%d: y\r\n" % number for number in range(10_000))] * 20, b"\r\n"], 431),
        ([HEAD, b"".join(b"X-%d: y\r\n" % number for number in range(200)), b"Connection: close\r\n\r\n"], 431),
        ([HEAD + b"X: ", *[b"a" * 1_000_000] * 50], 431),
        ([HEAD + b"X: " + b"a" * 70_000 + b"\r\nConnection: close\r\n\r\n"], 431),
        ([b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"], 431),
        ([HEAD + b"Transfer-Encoding: chunked\r\n\r\ne;" + b"x" * 1_000_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"], 400),
        ([HEAD + b"Content-Length: -1\r\n\r\n"], 400),
        ([HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"], 400),
        ([HEAD + b"Content-Length: 14\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY], 400),
        ([b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"], 400),
        ([b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n"], 400),
        ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 400),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"A" * 500], 400),
        ([b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n"], 400),
    ],
)
def test_what_is_too_much_is_refused_once_as_a_problem_with_flat_memory(runner: Runner, pieces: list[bytes], status: int) -> None:
    before = resident_bytes(runner)
    received = exchange(runner, *pieces)
    if received:  # a client that sends on after the refusal may lose it to a reset
        assert statuses(received) == [status]
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head
        assert json.loads(body)["status"] == status
    assert resident_bytes(runner) - before < 20 << 20
    assert runner.run("echo", {"prompt": "on"}).json()["output"] == {"text": "on"}


def test_trailers_are_bounded_and_not_taken_for_headers(runner: Runner) -> None:
    chunked = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n" + BODY + b"\r\n0\r\n"
    assert statuses(exchange(runner, chunked + b"prefer: respond-async\r\n\r\n")) == [200]
    many = b"".join(b"x%d: y\r\n" % number for number in range(100_000))
    assert statuses(exchange(runner, chunked + many + b"\r\n")) in ([], [400], [431])
    assert runner.run("echo").status_code == 200


def test_pipelined_requests_are_answered_in_order(runner: Runner) -> None:
    bodies = [b'{"prompt":"%06d"}' % number for number in range(300)]
    requests = [HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    received = exchange(runner, b"".join(requests) + LAST)
    assert statuses(received) == [200] * 301
    assert [int(found) for found in re.findall(rb'"text":"(\d{6})"', received)] == list(range(300))


def test_a_request_in_small_pieces_and_one_that_expects_100(runner: Runner) -> None:
    with connect(runner) as sock:
        for byte in LAST:
            sock.sendall(bytes([byte]))
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    with connect(runner) as sock:
        sock.sendall(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(BODY)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_versions_heads_and_upgrades(runner: Runner, version: bytes) -> None:
    stream = (
        b"POST /v1/run/words HTTP/%b\r\nHost: localhost\r\nConnection: close\r\nAccept: text/event-stream\r\nContent-Length: 16\r\n\r\n"
        % version
    )
    received = exchange(runner, stream + b'{"prompt":"a b"}')
    assert (b"transfer-encoding: chunked" in received) is (version == b"1.1")
    assert received.count(b"event: output") == 2
    head = exchange(runner, b"HEAD /v1/status HTTP/%b\r\nHost: localhost\r\nConnection: close\r\n\r\n" % version)
    assert statuses(head) == [200]
    assert head.endswith(b"\r\n\r\n")
    upgrade = b"GET /livez HTTP/%b\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" % version
    assert statuses(exchange(runner, upgrade)) == [200]


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost/livez", b"localhost", 200),
        (b"http://127.0.0.1:8081/livez?x", b"other.example", 200),  # what the target names counts, not the header
        (b"http://[::1]:8081/livez", b"localhost", 200),
        (b"http://other.example/livez", b"localhost", 421),
        (b"http://localhost", b"localhost", 200),
        (b"/livez", b"other.example", 421),
    ],
)
def test_the_host_that_a_target_names(runner: Runner, target: bytes, host: bytes, status: int) -> None:
    assert statuses(exchange(runner, b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (target, host))) == [status]


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\ne\r\n" + BODY + b"\r\n0\r\n\r\n", 501, "'gzip, chunked'"),
        (b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "HTTP/2.0"),
        (b"GET /livez HTTP/0.9\r\nHost: localhost\r\n\r\n", 505, "HTTP/0.9"),
    ],
)
def test_what_is_not_supported_is_not_taken_for_what_is(runner: Runner, request_: bytes, status: int, said: str) -> None:
    received = exchange(runner, request_)
    assert statuses(received) == [status]
    assert said in json.loads(received.partition(b"\r\n\r\n")[2])["detail"]


def after_half_close(runner: Runner, sent: bytes) -> bytes:
    """What comes after a client has closed its own side, as `nc -N` does."""
    received = b""
    with connect(runner) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while chunk := sock.recv(65536):
                received += chunk
    return received


def test_a_client_that_has_said_all_is_answered(runner: Runner) -> None:
    alive = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert statuses(after_half_close(runner, alive)) == [200]
    assert statuses(after_half_close(runner, alive * 3)) == [200] * 3
    assert statuses(after_half_close(runner, alive + HEAD)) == [200]  # the second one never comes
    assert after_half_close(runner, HEAD + b"Content-Length: 14\r\n\r\n{") == b""
    runner.until(lambda: statuses(after_half_close(runner, WHOLE)) == [200])  # a busy machine may take longer than the client is given
    stream = b"POST /v1/run/words HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nContent-Length: 16\r\n\r\n"
    runner.until(lambda: after_half_close(runner, stream + b'{"prompt":"a b"}').count(b"event: output") == 2)
    nap = b'{"payload":{"seconds":600},"run_id":"left"}'
    assert after_half_close(runner, HEAD.replace(b"echo", b"nap") + b"Content-Length: %d\r\n\r\n" % len(nap) + nap) == b""
    runner.until(lambda: runner.http.get("/v1/runs/left").json()["status"] == "canceled")  # the client may have left for good


def test_garbage_after_a_request_never_lands_in_the_middle_of_its_answer(runner: Runner) -> None:
    slow = b"POST /v1/run/nap HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n" + b'{"seconds":0.3}'
    received = exchange(runner, slow + b"\x00garbage\r\n\r\n")
    assert statuses(received) == [200]
    assert received.endswith(b"}")


def test_a_head_that_drips_is_closed_in_time_and_idle_ones_too(runner: Runner) -> None:
    dripping, idle = connect(runner, 1), connect(runner, 30)
    received, began_s = b"", time.monotonic()
    dripping.sendall(HEAD + b"X-a: ")
    while time.monotonic() - began_s < 40:
        try:
            dripping.sendall(b"a")
            chunk = dripping.recv(4096)
        except TimeoutError:
            continue
        except ConnectionError:
            break
        if not chunk:
            break
        received += chunk
    assert statuses(received) == [408]
    assert idle.recv(10) == b""
    dripping.close()
    idle.close()


def test_idle_connections_make_room_for_who_works(project: Callable[..., Path], tmp_path: Path) -> None:
    few = Runner(project(CODE), tmp_path / "outputs", env={"PYTHONPATH": _limit_descriptors(tmp_path, 200)})
    with contextlib.ExitStack() as idle:
        _crowd(few, idle, 400)
        napping = few.http.post("/v1/run/nap", json={"seconds": 600}, headers={"prefer": "respond-async"}).headers["location"]
        for _ in range(20):
            assert few.run("look", {"image": {"ref": "data:x/y;base64,eHg="}}).status_code == 200
        few.until(lambda: len(list(Path(f"/proc/{few.process.pid}/fd").iterdir())) < 190)
        with connect(few) as working:
            for _ in range(3):
                _crowd(few, idle, 100)
                # They are accepted once a later one is answered. Otherwise those of two rounds could come after one answer, and 150 have room.
                few.until(lambda: statuses(exchange(few, LAST)) == [200])
                working.sendall(WHOLE)
                answer = working.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200"), (answer, few.log.read_text()[-2000:])
        assert few.http.get(few.http.post(napping + "/cancel").headers.get("location", napping)).json()["status"] == "canceled"
    assert few.stop() == 0


def _crowd(runner: Runner, held: contextlib.ExitStack, count: int) -> None:
    """Connections that do nothing, until `held` ends."""
    for _ in range(count):
        held.enter_context(connect(runner))


BEGUN = HEAD + b"Content-Length: 1000000\r\n\r\n"


def test_bodies_that_do_not_come_keep_nobody_out(project: Callable[..., Path], tmp_path: Path) -> None:
    """Twice as many of them as there are places, some with a first byte, some with a byte now and then, and new ones all the while."""
    few = Runner(project(CODE), tmp_path / "outputs", env={"PYTHONPATH": _limit_descriptors(tmp_path, 200)})
    stalled: list[socket.socket] = []
    enough = threading.Event()

    def stall(count: int) -> None:
        for number in range(count):
            sock = connect(few)
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # it was closed already
                sock.send(BEGUN + b"{" * (number % 2))
            stalled.append(sock)

    def stall_on() -> None:
        while not enough.wait(0.05):
            stall(10)
            for sock in stalled[-100::7]:
                with contextlib.suppress(OSError):
                    sock.send(b" ")
            for sock in stalled[:-300]:
                sock.close()
            del stalled[:-300]

    stall(400)
    attack = threading.Thread(target=stall_on)
    attack.start()
    try:
        answered = 0
        end_s = time.monotonic() + 60
        while answered < 20 and time.monotonic() < end_s:
            found = statuses(exchange(few, LAST))
            assert found in ([200], [503])  # a body is given a quarter of a second, and all may have begun in that
            answered += found == [200]
        assert answered == 20
    finally:
        enough.set()
        attack.join()
        for sock in stalled:
            sock.close()
    assert few.stop() == 0


def _limit_descriptors(folder: Path, count: int) -> str:
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({count}, {count}))\n")
    return str(folder / "site")


def send_on(sock: socket.socket, data: bytes) -> None:
    for _ in range((64 << 20) // len(data)):
        sock.sendall(data)


def test_who_asks_on_and_on_and_reads_nothing_is_read_no_further(runner: Runner) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    exchange(runner, LAST)
    before_bytes = resident_bytes(runner)
    with connect(runner, 1) as sock:
        with pytest.raises(TimeoutError):
            send_on(sock, request * 2000)
        assert resident_bytes(runner) - before_bytes < 24 << 20
        assert statuses(exchange(runner, LAST)) == [200]


def test_pipelined_requests_are_all_answered_in_their_order_once_the_answers_are_read(runner: Runner) -> None:
    count = 3000
    names = [f"/v1/runs/{number}" for number in range(count)]
    requests = b"".join([b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % name.encode() for name in names])
    received: list[bytes] = []
    with connect(runner) as sock:
        sender = threading.Thread(target=sock.sendall, args=(requests + LAST,))
        sender.start()
        while chunk := sock.recv(65536):
            received.append(chunk)
        sender.join(60)
    text = b"".join(received)
    assert statuses(text) == [404] * count + [200]
    assert re.findall(rb'"instance":"([^"]*)"', text) == [name.encode() for name in names]
