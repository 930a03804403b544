"""The socket that a server listens on, and its address for people."""

import errno
import socket


class ListenError(ValueError):
    """The address is not available; the message says why and what helps."""


def listening_socket(listen: str, example: str) -> socket.socket:
    """A bound socket for `host:port` (port 0: any free one); `ListenError` says why it is not available, and shows `example`."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ListenError(f"--listen {listen!r}: expected HOST:PORT, such as {example}")
    host = host.strip("[]")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError as exc:
        is_used = exc.errno == errno.EADDRINUSE
        used = f"; port {port} is already used: stop the other server, or take a free port with --listen {host}:0" if is_used else ""
        raise ListenError(f"cannot listen on {listen}: {exc.strerror or exc}{used}") from None
    return sock


def url_of(sock: socket.socket) -> str:
    """`http://host:port` of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://{'[' + host + ']' if ':' in host else host}:{port}"
