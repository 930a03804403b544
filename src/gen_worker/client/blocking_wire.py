"""Connections to one server, for blocking code, by httpcore."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from gen_worker.client.address import answer_of, lost, pool_options, read_address, to_httpcore
from gen_worker.client.effects import Answer, LostError, Request
from gen_worker.client.settings import CONNECT_TIMEOUT_S


class Stream:
    """An answer whose body is read piece by piece."""

    def __init__(self, wire: "Wire", response: Any) -> None:
        self.answer = answer_of(response, b"")
        self._wire = wire
        self._response = response
        self._open = True
        self._pieces = response.iter_stream()

    def read(self) -> bytes:
        with self._wire.losses():
            for piece in self._pieces:
                if piece:
                    return bytes(piece)
        return b""

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            with contextlib.suppress(LostError), self._wire.losses():
                self._response.close()
        finally:
            self._wire.places.release()


class Wire:
    """Connections to one server. Requests that wait for one queue here: httpcore's own queue costs the square of its length."""

    def __init__(self, url: str, connections: int) -> None:
        import httpcore

        self._address = read_address(url)
        self.places = threading.Semaphore(connections)
        self._pool = httpcore.ConnectionPool(**pool_options(self._address, connections))

    def send(self, request: Request) -> Answer:
        stream = self.open(request)
        try:
            if not 200 <= stream.answer.status < 300:
                return stream.answer
            pieces = []
            while piece := stream.read():
                pieces.append(piece)
            return msgspec.structs.replace(stream.answer, body=b"".join(pieces))
        finally:
            stream.close()

    def open(self, request: Request) -> Stream:
        self.places.acquire()
        try:
            with self.losses():
                response = self._pool.handle_request(to_httpcore(request, self._address, request.content, CONNECT_TIMEOUT_S))
        except BaseException:
            self.places.release()
            raise
        stream = Stream(self, response)
        if not 200 <= response.status < 300:
            try:
                with self.losses():
                    stream.answer = answer_of(response, response.read())
            finally:
                stream.close()
        return stream

    def close(self) -> None:
        self._pool.close()

    @contextlib.contextmanager
    def losses(self) -> Iterator[None]:
        """Converts httpcore's exceptions into `LostError`."""
        try:
            yield
        except Exception as exc:
            raise lost(exc, self._address) from exc
