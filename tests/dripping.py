"""Servers that answer a byte now and then, for ever: they meet every limit for one read."""

import socket
import threading
from typing import Self

EVERY_S = 0.02
HEAD = b"HTTP/1.1 200 OK\r\nX: "
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
HANDSHAKE = b"\x16\x03\x03\x3f\xff"  # a TLS record of 16 KiB that never becomes complete


class Dripping:
    """Sends `first`, then drips. `held` are the connections that are open; `ended` counts those that the other side closed."""

    def __init__(self, first: bytes) -> None:
        self._first = first
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.held = self.ended = 0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(60)

    def was_left(self) -> bool:
        """Whether the other side closed a connection, and none is open."""
        return self.held == 0 and self.ended > 0

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._drip, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _drip(self, connection: socket.socket) -> None:
        with self._lock:
            self.held += 1
        with connection:
            connection.settimeout(EVERY_S)
            ended = False
            try:
                connection.sendall(self._first)
                while not self._over.is_set() and not ended:
                    connection.sendall(b"y")
                    try:
                        ended = connection.recv(65536) == b""
                    except TimeoutError:
                        continue
            except OSError:
                ended = True
        with self._lock:
            self.held -= 1
            self.ended += ended
