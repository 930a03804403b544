"""Guarded downloads against a real server on loopback, reached through a name server of the test's own."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gen_worker.net.guard import BlockedURLError, DownloadError, GuardedBackend, GuardedDownloader, TooLargeError, is_public

PUBLIC = "public.test"
BODY = b"0123456789" * 10


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        target = {"/to-private": "http://private.test/x", "/to-file": "file:///etc/passwd", "/loop": "/loop", "/to-file-name": "/plain"}
        if location := target.get(self.path):
            self.send_response(302)
            self.send_header("location", location)
            self.end_headers()
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("content-length", "500")
            self.end_headers()
            self.wfile.write(BODY)
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 4096)
            except OSError:
                return
        elif self.path == "/gzip":
            self.send_response(200)
            self.send_header("content-encoding", "gzip")
            self.end_headers()
        elif self.path == "/plain":
            self.send_response(200)
            self.send_header("content-type", "text/plain; charset=utf-8")
            self.send_header("content-length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)
        else:
            self.send_response(503 if self.path == "/busy" else 404)
            self.end_headers()

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def downloader(port: int) -> GuardedDownloader:
    names = {PUBLIC: "127.0.0.1", "private.test": "10.0.0.7"}

    def resolve(host: str, _: int) -> list[str]:
        return [names.get(host, host)]

    # For the test, loopback stands for the public Internet; every other check is the real one.
    backend = GuardedBackend(resolve, lambda address: address == "127.0.0.1" or is_public(address))
    return GuardedDownloader(backend, ports=(80, 443, port))


def test_a_download(downloader: GuardedDownloader, port: int, tmp_path: Path) -> None:
    found = downloader.fetch(f"http://{PUBLIC}:{port}/to-file-name", tmp_path / "x", 1000)
    assert (found.size_bytes, found.content_type) == (100, "text/plain")
    assert (tmp_path / "x").read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("/to-private", BlockedURLError, "host 'private.test' has the address 10.0.0.7, which is not public"),
        ("/to-file", BlockedURLError, "scheme 'file'"),
        ("/loop", BlockedURLError, "more than 5 redirects"),
        ("/short", DownloadError, "failed: peer closed connection|ended after 100 of 500 bytes"),
        ("/endless", TooLargeError, "more than the 1000 bytes"),
        ("/gzip", DownloadError, "encoding 'gzip'"),
        ("/busy", DownloadError, "answered HTTP 503"),
        ("/none", DownloadError, "answered HTTP 404"),
    ],
)
def test_what_is_refused(downloader: GuardedDownloader, port: int, tmp_path: Path, path: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        downloader.fetch(f"http://{PUBLIC}:{port}{path}", tmp_path / "x", 1000)


def test_a_declared_length_over_the_limit_is_refused_before_reading(downloader: GuardedDownloader, port: int, tmp_path: Path) -> None:
    with pytest.raises(TooLargeError, match="100 bytes; at most 50"):
        downloader.fetch(f"http://{PUBLIC}:{port}/plain", tmp_path / "x", 50)
    assert not (tmp_path / "x").exists()


def test_other_ports_are_refused(downloader: GuardedDownloader, tmp_path: Path) -> None:
    with pytest.raises(BlockedURLError, match="port 22"):
        downloader.fetch(f"http://{PUBLIC}:22/", tmp_path / "x", 50)


def test_one_private_address_among_several_is_enough_to_refuse(tmp_path: Path) -> None:
    downloader = GuardedDownloader(GuardedBackend(lambda host, port: ["93.184.216.34", "192.168.1.1"]))
    with pytest.raises(BlockedURLError, match=r"192\.168\.1\.1"):
        downloader.fetch("http://mixed.test/", tmp_path / "x", 50)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.1.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.1.1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "198.18.0.1",
        "2001:0:1::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)
