"""The head of a request as an ASGI scope, and what of it is refused."""

from typing import Any
from urllib.parse import unquote

import httptools

VERSIONS = ("1.1", "1.0")


class RefusedError(Exception):
    """The head or body breaks a rule or a limit: status, code and detail of the answer. Raised through the parser."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = (status, code, detail)


def check_coding(value: bytes) -> None:
    """Refuse a transfer coding that we would not undo: the body would be taken for what it is not (RFC 9112, 6.1)."""
    if value.strip().lower() != b"chunked":
        raise RefusedError(
            501, "invalid_request", f"transfer-encoding {value.decode('latin-1')!r} is not supported; send chunked, or a length"
        )


def scope_of(
    version: str,
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    server: tuple[str, int] | None,
    client: tuple[str, int] | None,
) -> dict[str, Any]:
    """The scope of a request. A target with a host in it (`GET http://host/path`) names the host, whatever the Host header says (RFC 9112,
    3.2.2): who may ask for which host is decided by that header later.
    """
    if version not in VERSIONS:
        raise RefusedError(505, "invalid_request", f"HTTP/{version} is not supported; send HTTP/1.1")
    url = httptools.parse_url(target)
    if url.host is not None:
        host = b"[%b]" % url.host if b":" in url.host else url.host
        named = host if url.port is None else b"%b:%d" % (host, url.port)
        headers[:] = [(b"host", named), *[field for field in headers if field[0] != b"host"]]
    raw_path = url.path or b"/"  # `http://host` alone has none
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": version,
        "server": server,
        "client": client,
        "scheme": "http",
        "root_path": "",
        "method": method.decode("ascii"),
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": url.query or b"",
        "headers": headers,
        "state": {},
    }
