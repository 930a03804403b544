"""Guarded downloads from a real server on loopback, reached through the test's own name server."""

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import pytest
from tests.address_corpus import NO_ADDRESS, NOT_PUBLIC, REFUSED_URLS

from gen_worker.net.guard import BlockedURLError, DownloadError, GuardedBackend, GuardedDownloader, TooLargeError, is_public

PUBLIC = "public.test"
BODY = b"0123456789" * 10


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        target = {"/to-private": "http://private.test/x", "/to-file": "file:///etc/passwd", "/loop": "/loop", "/to-file-name": "/plain"}
        path, _, asked = self.path.partition("?")
        if location := target.get(self.path) or (path == "/to" and unquote_to_bytes(asked).decode("latin-1")):
            self.send_response(302)
            self.send_header("location", location)
            self.end_headers()
        elif self.path == "/odd-length":
            self.wfile.write("HTTP/1.1 200 OK\r\ncontent-length: ²\r\n\r\n".encode("latin-1"))
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


@pytest.mark.parametrize("url", [url.replace("example.com", PUBLIC) for url in REFUSED_URLS])
def test_nothing_is_sent_for_a_url_that_is_refused(counted: "CountingServer", tmp_path: Path, url: str) -> None:
    """Wherever its name leads: here to a server that listens, so that one packet would be a connection."""
    downloader = GuardedDownloader(GuardedBackend(counted.resolve, lambda address: True), ports=(80, 443, counted.port))
    with pytest.raises(BlockedURLError):
        downloader.fetch(url, tmp_path / "x", 50)
    assert (counted.asked, counted.connections) == ([], 0)


@pytest.mark.parametrize("address", [*NOT_PUBLIC, *NO_ADDRESS])
def test_nothing_is_sent_to_a_name_with_an_address_that_is_not_public(counted: "CountingServer", tmp_path: Path, address: str) -> None:
    """Also where it stands behind one that is, in an answer of a name server."""
    backend = GuardedBackend(
        lambda host, port: ["127.0.0.1", address], lambda a: is_public("1.1.1.1" if a == "127.0.0.1" != address else a)
    )
    downloader = GuardedDownloader(backend, ports=(counted.port,))
    with pytest.raises(BlockedURLError, match="which is not public: "):
        downloader.fetch(f"http://{PUBLIC}:{counted.port}/", tmp_path / "x", 50)
    assert counted.connections == 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "169.254.169.254", "[::1]", "[::ffff:7f00:1]", "[fec0::1]", "[64:ff9b::a9fe:a9fe]", "[::127.0.0.1]", "[::10.0.0.1]"],
)
def test_addresses_in_urls_are_not_looked_up(counted: "CountingServer", tmp_path: Path, host: str) -> None:
    with pytest.raises(BlockedURLError, match="which is not public: "):
        GuardedDownloader(GuardedBackend(counted.resolve)).fetch(f"http://{host}/", tmp_path / "x", 50)
    assert counted.asked == []


ODD_TARGETS = [
    "http://[::1",
    "http://127.1/",
    "//localhost/",
    "http:\\\\127.0.0.1/",
    "//a@b/",
    "\\\\127.0.0.1",
    "http://\xff/",
    "//[::1%25lo]/",
    "ftp://x.example/",
]


@pytest.mark.parametrize("target", ODD_TARGETS)
def test_redirects_are_read_as_strictly(downloader: GuardedDownloader, port: int, tmp_path: Path, target: str) -> None:
    with pytest.raises(BlockedURLError):
        downloader.fetch(f"http://{PUBLIC}:{port}/to?{quote(target)}", tmp_path / "x", 50)


def test_a_redirect_within_a_site_is_followed(downloader: GuardedDownloader, port: int, tmp_path: Path) -> None:
    for target in ("/plain", "plain", "./x/../plain", f"//{PUBLIC}:{port}/plain", f"http://{PUBLIC}:{port}/plain#x"):
        assert downloader.fetch(f"http://{PUBLIC}:{port}/to?{quote(target)}", tmp_path / "x", 1000).size_bytes == 100


def test_a_length_that_is_no_number_is_not_believed(downloader: GuardedDownloader, port: int, tmp_path: Path) -> None:
    with pytest.raises(DownloadError):
        downloader.fetch(f"http://{PUBLIC}:{port}/odd-length", tmp_path / "x", 1000)


def test_the_next_address_is_tried_where_the_first_takes_no_connection(port: int, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.2", port))  # bound and not listening, so that nobody else can take it
        backend = GuardedBackend(lambda host, _: ["127.0.0.2", "127.0.0.1"], lambda address: True)
        found = GuardedDownloader(backend, ports=(port,)).fetch(f"http://{PUBLIC}:{port}/plain", tmp_path / "x", 1000)
        assert found.size_bytes == 100


class CountingServer:
    """Counts who asks for a name and who connects."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    def resolve(self, host: str, _: int) -> list[str]:
        self.asked.append(host)
        return ["127.0.0.1"]

    @property
    def connections(self) -> int:
        count = 0
        while True:
            try:
                self._socket.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def counted() -> Iterator[CountingServer]:
    server = CountingServer()
    yield server
    server.close()
