"""The part of an OCI registry that a push needs: uploads of blobs, and manifests. https://github.com/opencontainers/distribution-spec"""

import hashlib
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Registry:
    """On loopback, in memory."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}  # by tag
        self.parts: dict[str, bytes] = {}  # by address of the upload
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def do_GET(self) -> None:
            self.answer(200 if self.path == "/v2/" else 404)

        def do_HEAD(self) -> None:
            digest = self.path.rpartition("/")[2]
            found = registry.blobs.get(digest)
            self.answer(404) if found is None else self.answer(200, Docker_Content_Digest=digest)

        def do_POST(self) -> None:
            self.body()
            upload = uuid.uuid4().hex
            self.answer(202, Location=f"{self.path}{upload}", Docker_Upload_UUID=upload)

        def do_PATCH(self) -> None:
            data = registry.parts[self.path] = self.body()
            self.answer(202, Location=self.path, Range=f"0-{len(data) - 1}")

        def do_PUT(self) -> None:
            data = self.body()
            if "/manifests/" in self.path:
                registry.manifests[self.path.rpartition("/")[2]] = data
            else:
                data = registry.parts.pop(self.path.partition("?")[0], b"") + data
                registry.blobs[f"sha256:{hashlib.sha256(data).hexdigest()}"] = data
            self.answer(201, Docker_Content_Digest=f"sha256:{hashlib.sha256(data).hexdigest()}")

    return Handler
