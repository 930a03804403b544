"""The client with servers and proxies that misbehave: what it sends again, what it does not, and what its callers are told."""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.waiting import until

from gen_worker.client import (
    AsyncClient,
    Client,
    EventsLostError,
    GatewayError,
    OverloadedError,
    Patience,
    RunFailedError,
    UnreachableError,
)
from gen_worker.client.profiles import Profile, ProfileError, Profiles
from gen_worker.net.retry import RetryPolicy

QUICK = Patience(
    RetryPolicy(tries=4, first_pause_s=0.001, max_pause_s=0.002, max_asked_s=60),
    RetryPolicy(tries=6, first_pause_s=0.001, max_pause_s=0.002),
)
RUN = {"id": "r1", "status": "succeeded", "function": "f", "output": {"text": "ä"}, "events_url": "/v1/runs/r1/events"}
REF = "me/e/f"


class Misbehaving(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.server.script.pop(0)(self)

    do_GET = do_POST = do_PUT = _do  # noqa: N815 - the base class's names

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Answers each request by the next line of its script."""

    daemon_threads, request_queue_size = True, 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Misbehaving)
        self.script: list[Callable[[Misbehaving], None]] = []
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def keys(self) -> set[str | None]:
        return {headers.get("idempotency-key") for _, _, headers, _ in self.seen}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, patience=QUICK) as found:
        yield found


def says(status: int, body: object, kind: str = "application/json", **headers: str) -> Callable[[Misbehaving], None]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(handler: Misbehaving) -> None:
        handler.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def cuts(handler: Misbehaving) -> None:
    """Ends the connection without a word."""
    handler.close_connection = True


def half(handler: Misbehaving) -> None:
    """Ends the connection in the middle of a body."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "r1", "sta')
    handler.close_connection = True


def streams(*lines: object, run_id: str = "r1") -> Callable[[Misbehaving], None]:
    """NDJSON, and then the end of the connection."""

    def answer(handler: Misbehaving) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "application/x-ndjson")
        handler.send_header("connection", "close")
        handler.send_header("x-run-id", run_id)
        handler.end_headers()
        for line in lines:
            handler.wfile.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        handler.close_connection = True

    return answer


def item(ident: str, number: object) -> dict[str, object]:
    return {"id": ident, "event": "output", "data": number}


DONE = {"event": "done", "data": {**RUN, "output": None}}
BUSY = {"title": "Too Many Requests", "status": 429, "detail": "1000 runs are waiting", "code": "overloaded", "hint": "queue depth 1000"}
HTML = b"<html><body><h1>502 Bad Gateway</h1>nginx</body></html>"


@pytest.mark.parametrize(
    "faults",
    [
        [says(429, BUSY, "application/problem+json", retry_after="0")],
        [says(503, {"code": "store_unavailable", "detail": "later"}, "application/problem+json", retry_after="0")],
        [says(502, HTML, "text/html"), says(504, b"", "text/plain")],
        [says(500, {"error_type": "internal", "run_id": "", "safe_message": "internal error", "success": False})],
        [cuts, half, cuts],
        [says(503, b"\xff\xfe not JSON")],
    ],
)
def test_a_request_that_broke_is_sent_again_under_its_key(server: Server, client: Client, faults: list[Any]) -> None:
    server.script = [*faults, says(200, RUN)]
    assert client.run(REF, {"prompt": "x"}) == {"text": "ä"}
    assert len(server.keys()) == 1
    assert len({body for *_, body in server.seen}) == 1


def test_without_a_key_only_what_cannot_have_been_taken_is_sent_again(server: Server, client: Client) -> None:
    server.script = [says(429, BUSY, retry_after="0"), cuts]
    with pytest.raises(UnreachableError, match="broke"):
        client.run(REF, idempotency_key="")
    assert server.keys() == {None}
    server.script = [says(502, HTML, "text/html")]
    with pytest.raises(GatewayError, match="502"):
        client.run(REF, idempotency_key="")
    assert len(server.seen) == 3


def test_a_functions_error_is_not_sent_again(server: Server, client: Client) -> None:
    error = {"code": "retryable", "detail": "not yet", "status": 503, "retryable": True, "title": "x"}
    server.script = [says(503, {**RUN, "status": "failed", "output": None, "error": error}, retry_after="1")]
    with pytest.raises(RunFailedError, match="not yet") as failed:
        client.run(REF)
    assert (failed.value.retryable, failed.value.run.error.status) == (True, 503)  # type: ignore[union-attr]
    assert len(server.seen) == 1


def test_tries_end_with_what_the_server_said_last(server: Server, client: Client) -> None:
    server.script = [says(429, BUSY, retry_after="0")] * 4
    with pytest.raises(OverloadedError, match="1000 runs are waiting") as busy:
        client.run(REF)
    assert (busy.value.status, busy.value.code, busy.value.hint, len(server.seen)) == (429, "overloaded", "queue depth 1000", 4)
    server.script = [says(429, BUSY, retry_after="3600")]  # an hour: not waited for
    with pytest.raises(OverloadedError) as later:
        client.run(REF)
    assert later.value.retry_after_s == 3600


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(200, b"<html>Sign in</html>", "text/html"), "200 with text/html, expected a run: '<html>Sign in</html>'"),
        (says(200, b"", "application/json"), "expected a run"),
        (says(200, ["no", "run"]), "expected a run"),
        (says(301, b"", location="https://other.example/"), "301"),
        (says(401, b"\x80\x81", "application/octet-stream"), "401 with application/octet-stream"),
        (says(404, b"Not Found", "text/plain"), "404 with text/plain"),
        (says(418, {"id": 5, "status": "?"}), "418"),
        (says(400, b"{" * 100_000), "400"),
    ],
)
def test_an_answer_that_is_none_of_ours_is_shown_and_not_asked_for_again(server: Server, client: Client, answer: Any, words: str) -> None:
    server.script = [answer]
    with pytest.raises(GatewayError) as refused:
        client.run(REF)
    assert words in str(refused.value)
    assert refused.value.code == "unexpected_answer"
    assert len(str(refused.value)) < 700
    if "301" in words:
        assert "other.example" in refused.value.hint


def test_a_newer_servers_words_are_taken(server: Server, client: Client) -> None:
    server.script = [says(202, {**RUN, "status": "thinking", "output": None, "new": [1]}), says(200, {**RUN, "new": {"a": 1}})]
    assert client.run(REF) == {"text": "ä"}
    assert server.seen[1][1] == "/v1/runs/r1?wait=20"


def test_a_stream_is_taken_up_where_it_broke(server: Server, client: Client) -> None:
    server.script = [
        streams({"event": "status", "data": {}}, item("1-1", 0), b"\n", item("1-2", 1), b'{"id":"1-3","event":"outp'),
        cuts,
        says(503, HTML, "text/html"),
        streams(item("1-3", 2), b"no event\n"),
        streams(item("1-4", 3), DONE),
    ]
    assert list(client.stream(REF)) == [0, 1, 2, 3]
    assert [headers.get("last-event-id") for _, _, headers, _ in server.seen] == [None, "1-2", "1-2", "1-2", "1-3"]
    assert {path for _, path, _, _ in server.seen[1:]} == {"/v1/runs/r1/events"}


def test_a_stream_that_never_began_is_sent_again(server: Server, client: Client) -> None:
    server.script = [cuts, says(502, HTML, "text/html"), streams(item("1-1", "ä\u2028\x00"), DONE)]
    assert list(client.stream(REF)) == ["ä\u2028\x00"]
    assert len(server.keys()) == 1


def test_a_stream_that_cannot_be_taken_up_says_which_run_goes_on(server: Server, client: Client) -> None:
    server.script = [streams(item("1-1", 0)), *[cuts] * 20]
    with pytest.raises(UnreachableError, match="broke"):
        list(client.stream(REF))


def test_another_attempt_repeats_what_was_given_or_the_stream_ends(server: Server, client: Client) -> None:
    again = {"event": "restart", "data": {"attempt": 2}}
    server.script = [streams(item("1-1", 0), item("1-2", 1), again, item("2-1", 0), item("2-2", 1), item("2-3", 2), DONE)]
    assert list(client.stream(REF)) == [0, 1, 2]
    cancelled = says(200, {**RUN, "status": "canceled"})
    server.script = [streams(item("1-1", 0), item("1-2", 1), again, item("2-1", 0), item("2-2", 7), DONE), cancelled]
    got = []
    with pytest.raises(EventsLostError) as lost:
        got.extend(client.stream(REF))
    assert lost.value.code == "stream_restarted"
    assert server.seen[-1][1] == "/v1/runs/r1/cancel"
    server.script = [streams(item("1-1", 0), {"event": "snapshot", "data": {"missed": 3, "next": "1-5", "run": RUN}}), cancelled]
    with pytest.raises(EventsLostError, match="3 events"):
        list(client.stream(REF))


def test_a_huge_output_arrives_whole(server: Server, client: Client) -> None:
    text = "x" * (32 << 20)
    server.script = [says(200, {**RUN, "output": text}), streams(item("1-1", text), {"event": "done", "data": {**RUN, "output": text}})]
    assert client.run(REF) == text
    assert list(client.stream(REF)) == [text]


def test_many_runs_at_once_leave_no_connection(server: Server) -> None:
    async def run_all() -> list[Any]:
        async with AsyncClient(server.url, patience=QUICK, connections=16) as client:
            answers: list[Any] = await asyncio.gather(*(client.run(REF, {"n": n}) for n in range(1000)))
            return answers

    before = len(list(Path("/proc/self/fd").iterdir()))
    server.script = [says(200, RUN)] * 1000
    assert asyncio.run(run_all()) == [{"text": "ä"}] * 1000
    assert len(server.keys()) == 1000
    with Client(server.url, patience=QUICK) as client:
        server.script = [streams(item("1-1", 0)), cuts, streams(DONE), cuts, says(200, RUN), says(502, HTML)] * 5
        for _ in range(5):
            assert list(client.stream(REF)) == [0]
            assert client.run(REF) == {"text": "ä"}
            server.script.pop(0)
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before, 60)  # the server's ends close when they notice


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://x", "http://", "http://user:secret@host", "http://h:99999", "http://h/?q=1"])
def test_an_address_that_is_none_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COZY_URL", url)
    with pytest.raises(ValueError, match="url") if url else pytest.raises(UnreachableError) as refused:  # noqa: SIM117
        with Client(url or "http://127.0.0.1:1", patience=QUICK) as client:
            client.run(REF)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("ref", ["", "a/b", "a/b/c/d", "a//c", "a/b/c:", "a/b/c:Prod", "a/b/c@"])
def test_a_ref_that_is_none_is_refused(client: Client, ref: str) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        client.run(ref)


@pytest.mark.parametrize("payload", [5, "text", [1], object(), {"a": object()}, {"a": "\ud800"}, {1j: 2}])
def test_a_payload_that_is_no_json_object_is_refused(client: Client, payload: Any) -> None:
    with pytest.raises(TypeError, match="payload"):
        client.run(REF, payload)


def test_options_are_checked(client: Client) -> None:
    with pytest.raises(TypeError, match="Did you mean 'timeout_s'"):
        client.run(REF, timeout=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="timeout_s"):
        client.run(REF, timeout_s="long")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="idempotency_key"):
        client.run(REF, idempotency_key="a\nb")


def part(data: bytes, start: int, total: int, sent: int, **headers: str) -> Callable[[Misbehaving], None]:
    """A file from `start` on, of which only `sent` bytes arrive."""

    def answer(handler: Misbehaving) -> None:
        handler.send_response(206 if start else 200)
        for name, value in {"content-length": str(total - start), "etag": '"1"', **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        if start:
            handler.send_header("content-range", f"bytes {start}-{total - 1}/{total}")
        handler.end_headers()
        handler.wfile.write(data[start : start + sent])
        handler.close_connection = True

    return answer


def test_a_download_that_broke_goes_on_and_is_checked(server: Server, client: Client, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10
    digest = hashlib.sha256(data).hexdigest()
    me = says(200, {"owner": "me", "scopes": ["invoke"]})
    server.script = [me, part(data, 0, 2560, 1000), part(data, 1000, 2560, 60), part(data, 1060, 2560, 1500, x_cozy_sha256=digest)]
    assert client.files.read("uploads/a b.bin") == data
    assert [headers.get("range") for _, _, headers, _ in server.seen[1:]] == [None, "bytes=1000-", "bytes=1060-"]
    assert server.seen[1][1] == "/v1/files/me/uploads/a%20b.bin"
    other = bytes(2560)
    server.script = [part(data, 0, 2560, 1000), part(other, 0, 2560, 2560, etag='"2"')]  # it has changed: from the beginning
    assert client.files.download("a.bin", tmp_path / "a.bin").read_bytes() == other
    server.script = [part(data, 0, 2560, 2560, x_cozy_sha256="0" * 64)]
    with pytest.raises(GatewayError, match="other bytes"):
        client.files.download("a.bin", tmp_path / "b.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_an_upload_that_broke_is_sent_again_from_the_beginning(server: Server, client: Client) -> None:
    data = b"x" * 100_000
    kept = {"ref": "u/x", "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    server.script = [says(200, {"owner": "*"}), cuts, says(503, HTML, "text/html"), says(200, kept)]
    assert client.files.upload(data, "u/x").sha256 == kept["sha256"]
    assert [body for *_, body in server.seen[1:]] == [data] * 3
    assert server.seen[-1][1] == "/v1/files/local/u/x"
    server.script = [says(200, {**kept, "sha256": "0" * 64})]
    with pytest.raises(GatewayError, match="other bytes"):
        client.files.upload(data, "u/x")


def test_the_environments_proxy_is_used_but_for_this_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    server.script = [says(200, RUN), says(200, RUN)]
    with Client("http://platform.example/base", key="cz_1", patience=QUICK) as client:
        assert client.run(REF) == {"text": "ä"}
    assert server.seen[0][1] == "http://platform.example:80/base/v1/me/e/f"
    assert (server.seen[0][2]["host"], server.seen[0][2]["authorization"]) == ("platform.example", "Bearer cz_1")
    with Client(server.url, patience=QUICK) as client:
        client.run(REF)
    assert server.seen[1][1] == "/v1/me/e/f"


def test_what_the_environment_and_profiles_say(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of a profile goes to its own address only."""
    monkeypatch.setenv("COZY_HOME", str(tmp_path))
    for name in ("COZY_URL", "COZY_API_KEY", "COZY_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert Client().url == "http://127.0.0.1:8080"
    profiles = Profiles.of_user(os.environ)
    profiles.write("work", "prod", Profile(orchestrator_url=server.url, token="cz_profile"))
    profiles.use("work", "prod")
    server.script = [says(200, RUN)] * 5
    arguments: list[tuple[dict[str, str], dict[str, str], str | None]] = [
        ({}, {}, "Bearer cz_profile"),
        ({"url": server.url + "/"}, {}, "Bearer cz_profile"),
        ({"url": server.url, "key": ""}, {}, None),
        ({"profile": "work/prod"}, {"COZY_URL": "http://127.0.0.1:1", "COZY_API_KEY": "cz_env"}, "Bearer cz_profile"),
        ({}, {"COZY_URL": server.url.replace("127.0.0.1", "localhost")}, None),
    ]
    for given, env, expected in arguments:
        with monkeypatch.context() as patched:
            for name, value in env.items():
                patched.setenv(name, value)
            with Client(**given, patience=QUICK) as client:  # type: ignore[arg-type]
                client.run(REF)
        assert server.seen[-1][2].get("authorization") == expected
    with pytest.raises(ProfileError, match="work/prod"):
        Client(profile="none")
