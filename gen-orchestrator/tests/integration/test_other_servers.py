"""Verbs whose address belongs to another server than a platform say so, and what to do."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from platform_process import COZYCTL


class _Answers(BaseHTTPRequestHandler):
    status = 404
    kind = "text/html"
    body = b"<html>not here</html>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-type", self.kind)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a server that answers everything so: status, type, body."""
    status, kind, body = request.param
    handler = type("Answers", (_Answers,), {"status": status, "kind": kind, "body": body})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


NO_ROUTE = b'{"title": "Not Found", "status": 404, "detail": "there is nothing at /v1/status", "code": "not_found"}'


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ((404, "text/html", b"<html>not here</html>"), "answers GET /v1/status with status 404, unlike a platform"),
        ((200, "text/html", b"<html>hello</html>"), "answers GET /v1/status without JSON"),
        ((200, "application/json", b'{"status": "ok"}'), "It is a dev runner (cozyctl dev), or older"),
        ((404, "application/problem+json", NO_ROUTE), "it has no GET /v1/status. It is a dev runner"),
    ],
    indirect=["address"],
)
def test_a_server_of_another_kind_is_named(address: str, says: str) -> None:
    done = subprocess.run([str(COZYCTL), "ps", "--url", address], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {address} is not a platform: "), done.stderr
    assert says in done.stderr, done.stderr
    assert "Start one with: cozyctl up (another address: --url, or COZY_URL)" in done.stderr


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    done = subprocess.run(
        [str(COZYCTL), "ps"], env={**os.environ, "COZY_URL": url}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "expected one such as http://127.0.0.1:8080" in done.stderr) == (2, True), done.stderr
