"""A small file API over a folder, for tests and the mock orchestrator, protected by one token."""

import hashlib
import hmac
import json
import mimetypes
import os
import shutil
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

import msgspec

from gen_worker.contract.files import FILE_ROUTE, SHA256_HEADER, SIZE_HEADER, TYPE_HEADER, SavedFile
from gen_worker.files.local_outputs import normalize_output_ref

CHUNK_BYTES = 1 << 20


class FileServer:
    """Serves `PUT`, `POST` (create only), `GET` and `HEAD` of `/api/v1/file/<ref>`. `requests` lists method and ref of each request."""

    def __init__(self, folder: Path, listen: str = "127.0.0.1:0", token: str = "") -> None:
        host, _, port = listen.rpartition(":")
        self.folder = folder.resolve()
        self.token = token
        self.requests: list[tuple[str, str]] = []
        self.fail_with: list[int] = []  # statuses for the next requests
        self._server = ThreadingHTTPServer((host, int(port)), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="file-server", daemon=True)

    @property
    def address(self) -> str:
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    @property
    def base_url(self) -> str:
        return f"http://{self.address}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def path_of(self, ref: str) -> Path | None:
        """The path of a ref; None when it leads outside the folder."""
        try:
            path = self.folder / normalize_output_ref(ref)
        except ValueError:
            return None
        return path if path.resolve().is_relative_to(self.folder) else None


def _handler(owner: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            self._send_file(with_body=True)

        def do_HEAD(self) -> None:
            self._send_file(with_body=False)

        def do_PUT(self) -> None:
            self._store(create=False)

        def do_POST(self) -> None:
            self._store(create=True)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            return

        def _path(self) -> Path | None:
            """The requested file; None after an answer that says why not."""
            split = urlsplit(self.path).path
            ref = unquote(split.removeprefix(FILE_ROUTE))
            owner.requests.append((self.command, ref))
            if owner.fail_with:
                self._answer(owner.fail_with.pop(0), {"detail": "asked for"})
                return None
            given = self.headers.get("authorization", "")
            if owner.token and not hmac.compare_digest(given, f"Bearer {owner.token}"):
                self._answer(401, {"error": "unauthorized"})
                return None
            path = owner.path_of(ref) if split.startswith(FILE_ROUTE) else None
            if path is None:
                self._answer(404, {"error": "not_found"})
            return path

        def _send_file(self, *, with_body: bool) -> None:
            path = self._path()
            if path is None:
                return
            if not path.is_file():
                self._answer(404, {"error": "not_found"})
                return
            with path.open("rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                self.send_response(200)
                self.send_header("content-type", mimetypes.guess_type(path.name)[0] or "application/octet-stream")
                self.send_header("content-length", str(size_bytes))
                if not with_body:
                    self.send_header(SIZE_HEADER, str(size_bytes))
                    self.send_header(SHA256_HEADER, hashlib.file_digest(file, "sha256").hexdigest())
                    self.send_header(TYPE_HEADER, mimetypes.guess_type(path.name)[0] or "application/octet-stream")
                self.end_headers()
                if with_body:
                    shutil.copyfileobj(file, self.wfile, CHUNK_BYTES)

        def _store(self, *, create: bool) -> None:
            path = self._path()
            length = self.headers.get("content-length", "")
            if path is None or not length.isdigit():
                self.close_connection = True  # the body is not read
                if path is not None:
                    self._answer(411, {"error": "length_required"})
                return
            if create and path.exists():
                self.close_connection = True
                self._answer(409, {"error": "exists"})
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            digest, left = hashlib.sha256(), int(length)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".saving-", delete=False) as file:
                while left and (chunk := self.rfile.read(min(CHUNK_BYTES, left))):
                    left -= len(chunk)
                    digest.update(chunk)
                    file.write(chunk)
            if left:
                Path(file.name).unlink()
                self.close_connection = True
                return
            Path(file.name).replace(path)
            self._answer(200, msgspec.to_builtins(SavedFile(str(path.relative_to(owner.folder)), int(length), digest.hexdigest())))

        def _answer(self, status: int, body: dict[str, object]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler
