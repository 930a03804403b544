"""One file over HTTP with ranges, as fast as the kernel sends it; `--rtt-ms` waits before each answer, the rates bound what is sent.
`/sent` says how many bytes of it have gone out.

python range_server.py FILE [--rtt-ms 25] [--rate-mb-s 200] [--connection-mb-s 40]
"""

import argparse
import os
import socket
import sys
import threading
import time
from pathlib import Path


class Link:
    """Bytes a second shared by all connections: a bucket that refills."""

    def __init__(self, bytes_s: float) -> None:
        self._bytes_s = bytes_s
        self._lock = threading.Lock()
        self._free_s = time.monotonic()

    def pass_on(self, size: int) -> None:
        if not self._bytes_s:
            return
        with self._lock:
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s) + size / self._bytes_s
            wait_s = self._free_s - now_s
        if wait_s > 0:
            time.sleep(wait_s)


class Sent:
    """Bytes of the file that were handed to the kernel, all connections together."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self.total += size


SENT = Sent()


def serve(connection: socket.socket, path: Path, options: argparse.Namespace, link: Link) -> None:
    size = path.stat().st_size
    own = Link(options.connection_mb_s * 1e6)
    with connection, path.open("rb") as file, connection.makefile("rb") as lines:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request := lines.readline():
            if request.startswith(b"GET /sent "):
                while lines.readline().strip():
                    pass
                body = str(SENT.total).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                continue
            start, end, status = 0, size, "200 OK"
            while (line := lines.readline().strip()) != b"":
                if line.lower().startswith(b"range: bytes="):
                    first, _, last = line.split(b"=")[1].partition(b"-")
                    start, end, status = int(first), min(size, int(last) + 1 if last else size), "206 Partial Content"
            time.sleep(options.rtt_ms / 1000)
            head = f'HTTP/1.1 {status}\r\ncontent-length: {end - start}\r\nETag: "1"\r\n'
            if status[0:3] == "206":
                head += f"content-range: bytes {start}-{end - 1}/{size}\r\n"
            connection.sendall(head.encode() + b"\r\n")
            limited = options.rate_mb_s or options.connection_mb_s
            while start < end:
                piece = min(end - start, 128 << 10 if limited else 64 << 20)
                link.pass_on(piece)
                own.pass_on(piece)
                went = os.sendfile(connection.fileno(), file.fileno(), start, piece)
                SENT.add(went)
                start += went


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--rtt-ms", type=float, default=0)
    parser.add_argument("--rate-mb-s", type=float, default=0)
    parser.add_argument("--connection-mb-s", type=float, default=0)
    options = parser.parse_args()
    link = Link(options.rate_mb_s * 1e6)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_quietly, args=(connection, options.file, options, link), daemon=True).start()


def _quietly(*arguments: object) -> None:
    try:
        serve(*arguments)  # type: ignore[arg-type]
    except (OSError, ValueError):
        pass


if __name__ == "__main__":
    sys.exit(main())
