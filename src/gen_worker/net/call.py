"""A request that another thread can end, also before its answer has begun."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
import urllib3.connection


class Call:
    """A request, so that another thread can end it at any moment: while it connects, waits for an answer or reads one.

    One after the other may use the same `Call`. After `hang_up` no further request starts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._over = False
        self.is_connecting = False

    def hang_up(self) -> None:
        """Whoever waits in this request gets an error now; one that is still connecting gets it when that has ended."""
        with self._lock:
            self._over = True
            sock = getattr(self._connection, "sock", None)
            # Not SSLSocket.shutdown: that takes the TLS state away from the thread that is reading.
            with contextlib.suppress(OSError, TypeError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # type: ignore[arg-type]

    def end(self) -> None:
        """The connection belongs to somebody else now."""
        with self._lock:
            self._connection = None

    @contextmanager
    def in_this_thread(self) -> Iterator[None]:
        """Connections that this thread uses meanwhile are this call's."""
        _calls.current = self
        self.is_connecting = True
        try:
            yield
        finally:
            self.is_connecting = False
            _calls.current = None

    def uses(self, connection: Any) -> None:
        """A request is about to be written to this connection; `ConnectionError` if it is not wanted any more."""
        with self._lock:
            if self._over:
                raise ConnectionAbortedError("the request was ended")
            self._connection = connection
            self.is_connecting = connection.sock is None


_calls = threading.local()


class _NotesCall:
    """Tells the call of this thread which connection it uses."""

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._note()

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._note()
        super().request(*args, **kwargs)  # type: ignore[misc]

    def _note(self) -> None:
        call = getattr(_calls, "current", None)
        if call is not None:
            call.uses(self)


class _HttpConnection(_NotesCall, urllib3.connection.HTTPConnection):
    pass


class _HttpsConnection(_NotesCall, urllib3.connection.HTTPSConnection):
    pass


class HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection
