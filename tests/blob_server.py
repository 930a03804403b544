"""A file server on 127.0.0.1 that supports ranges, and misbehaves in every way that a test requests."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import msgspec

Route = Callable[["Exchange"], None]


class Blob(msgspec.Struct):
    """Content under a path, and how it is served."""

    data: bytes
    etag: str = '"v1"'
    tag_per_answer: bool = False  # another etag each time, whatever `If-Range` says
    ranges: bool = True
    cut_after: int = 0  # bytes of each answer, then the connection is closed
    cuts: int = 1 << 30  # answers that are cut
    chunk_pause_s: float = 0.0
    pause_s: float = 0.0  # before each answer
    fail: list[int] = []  # statuses of the next answers
    lie_range: bool = False
    expires: bool = False  # only the newest `?token=` is served
    lied_data: bytes = b""  # served in place of `data`, so many times:
    lies: int = 0


class BlobServer:
    """`sent` counts body bytes by path; `requests` lists method, path and Range of each request."""

    def __init__(self) -> None:
        self.blobs: dict[str, Blob] = {}
        self.routes: dict[str, Route] = {}  # by path prefix
        self.sent: dict[str, int] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.token = "1"
        self.lock = threading.Lock()
        self.rate_bytes_s = 0.0  # of all connections together
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="blob-server", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def sent_bytes(self) -> int:
        return sum(self.sent.values())

    def add(self, path: str, data: bytes, **how: object) -> str:
        """Serve bytes under a path; their address."""
        self.blobs[path] = Blob(data, **how)  # type: ignore[arg-type]
        return f"{self.url}{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class Exchange(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    owner: BlobServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        return

    def json_body(self) -> dict[str, object]:
        found: dict[str, object] = msgspec.json.decode(self.body or b"{}")
        return found

    def reply(self, status: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        data = msgspec.json.encode(body)
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))  # whoever wants it: the next request comes behind it
        owner = self.owner
        with owner.lock:
            owner.requests.append((self.command, parts.path, self.headers.get("range", "")))
            owner.headers.append({name.lower(): value for name, value in self.headers.items()})
        blob = owner.blobs.get(parts.path)
        if blob is None:
            route = next((route for prefix, route in owner.routes.items() if parts.path.startswith(prefix)), None)
            if route is None:
                self.reply(404, {"error": "not_found"})
            else:
                route(self)
            return
        time.sleep(blob.pause_s)  # waits: the server is slow, as it was told
        with owner.lock:
            status = blob.fail.pop(0) if blob.fail else 0
            if blob.expires and parse_qs(parts.query).get("token", [""])[0] != owner.token:
                status = 403
            data, blob.lies = (blob.lied_data, blob.lies - 1) if blob.lies else (blob.data, 0)
        if status:
            self.reply(status, {"error": "asked for"})
            return
        self._send(parts.path, blob, data)

    def _send(self, path: str, blob: Blob, data: bytes) -> None:
        start, end = 0, len(data)
        wanted = self.headers.get("range", "")
        if_range = self.headers.get("if-range", "")
        if wanted and blob.ranges and (blob.tag_per_answer or if_range in ("", blob.etag)):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(len(data), int(last) + 1 if last else len(data))
            if start >= len(data):
                self.send_response(416)
                self.send_header("content-range", f"bytes */{len(data)}")
                self.send_header("content-length", "0")
                self.end_headers()
                return
            self.send_response(206)
            shown = start + 1 if blob.lie_range else start
            self.send_header("content-range", f"bytes {shown}-{end - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("etag", f'"{len(self.owner.requests)}"' if blob.tag_per_answer else blob.etag)
        self.send_header("content-length", str(end - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = end
        with self.owner.lock:
            if blob.cut_after and blob.cuts > 0 and end - start > blob.cut_after:
                blob.cuts -= 1
                stop = start + blob.cut_after
        self._stream(path, memoryview(data)[start:stop], blob.chunk_pause_s)
        if stop < end:
            self.close_connection = True

    def _stream(self, path: str, data: memoryview, pause_s: float) -> None:
        piece = 64 << 10 if pause_s or self.owner.rate_bytes_s else 1 << 20
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            try:
                self.wfile.write(part)
            except OSError:
                self.close_connection = True
                return
            with self.owner.lock:
                self.owner.sent[path] = self.owner.sent.get(path, 0) + len(part)
            if pause_s:
                time.sleep(pause_s)  # waits: likewise
            if self.owner.rate_bytes_s:
                time.sleep(len(part) / self.owner.rate_bytes_s)  # waits: likewise


def _handler(owner: BlobServer) -> type[BaseHTTPRequestHandler]:
    return type("BlobExchange", (Exchange,), {"owner": owner})
