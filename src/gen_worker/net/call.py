"""A request that another thread can abort, even before its answer has begun."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
import urllib3.connection


class Call:
    """A request that another thread can abort at any moment: while it connects, waits for an answer or reads one.

    Several requests may use the same `Call`, one after the other. After `hang_up` no further request starts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._over = False
        self.is_connecting = False

    def hang_up(self) -> None:
        """The thread waiting in this request gets an error now; while it is still connecting, it gets the error afterwards."""
        with self._lock:
            self._over = True
            sock = getattr(self._connection, "sock", None)
            # Not SSLSocket.shutdown: that removes the TLS state under the reading thread.
            with contextlib.suppress(OSError, TypeError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # type: ignore[arg-type]

    def end(self) -> None:
        """The connection now belongs to another request."""
        with self._lock:
            self._connection = None

    @contextmanager
    def in_this_thread(self) -> Iterator[None]:
        """Connections used by this thread meanwhile belong to this call."""
        _calls.current = self
        self.is_connecting = True
        try:
            yield
        finally:
            self.is_connecting = False
            _calls.current = None

    def uses(self, connection: Any) -> None:
        """A request is about to be written to this connection; `ConnectionError` if the call was aborted."""
        with self._lock:
            if self._over:
                raise ConnectionAbortedError("the request was ended")
            self._connection = connection
            self.is_connecting = connection.sock is None


_calls = threading.local()


class _NotesCall:
    """Tells this thread's call which connection it uses."""

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
