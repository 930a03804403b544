"""The parts of `httpcore` that both clients need, loaded on first use: addresses, proxies, certificates, connection errors."""

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec

from gen_worker.client.effects import Answer, LostError, Request

if TYPE_CHECKING:
    import ssl

    import httpcore


class Address(msgspec.Struct, frozen=True):
    """The base URL of a server. `prefix`: the path before `/v1` when a proxy adds one."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"


_PORTS = {"http": 80, "https": 443}


def read_address(url: str) -> Address:
    """A base URL such as `http://127.0.0.1:8080`; `ValueError` when it is invalid."""
    expected = "expected http://HOST[:PORT] or https://HOST[:PORT]"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(f"url {url[:200]!r}: {expected} ({exc})") from None
    if parts.scheme not in _PORTS or not host or parts.query or parts.fragment:
        raise ValueError(f"url {url[:200]!r}: {expected}")
    if parts.username is not None:
        raise ValueError(f"url of {host}: it contains a user name; pass the key as key=, or set COZY_API_KEY")
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def proxy_of(address: Address) -> "httpcore.Proxy | None":
    """The proxy for this address in the environment, as `urllib` reads it; none for this machine."""
    from urllib.request import getproxies, proxy_bypass

    if address.host in ("localhost", "::1") or address.host.startswith("127.") or proxy_bypass(address.host):
        return None
    url = getproxies().get(address.scheme)
    if not url:
        return None
    import httpcore

    parts = urlsplit(url if "://" in url else f"http://{url}")
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return httpcore.Proxy(f"{parts.scheme}://{host}:{parts.port or _PORTS.get(parts.scheme, 1080)}", auth=auth)


def trusted(address: Address) -> "ssl.SSLContext | None":
    """The system's certificates, those of SSL_CERT_FILE, and certifi's."""
    if address.scheme != "https":
        return None
    import ssl

    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def pool_options(address: Address, connections: int) -> dict[str, Any]:
    """Options for both kinds of connection pool."""
    return {
        "ssl_context": trusted(address),
        "proxy": proxy_of(address),
        "max_connections": connections,
        "max_keepalive_connections": connections,
        "keepalive_expiry": 10.0,  # our servers close an idle connection after 15 s
    }


def to_httpcore(request: Request, address: Address, content: Any, connect_timeout_s: float) -> "httpcore.Request":
    """The request in httpcore's form. `content`: its body, in the form for this kind of client."""
    import httpcore

    headers = {"host": address.authority, "user-agent": "gen-worker", **request.headers}
    if isinstance(request.content, bytes) and (request.content or request.method in ("POST", "PUT")):
        headers["content-length"] = str(len(request.content))
    url = httpcore.URL(
        scheme=address.scheme.encode(),
        host=address.host.encode("idna"),
        port=address.port,
        target=f"{address.prefix}{request.path}".encode(),
    )
    timeouts = {"connect": connect_timeout_s, "read": request.read_timeout_s, "write": request.read_timeout_s}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return httpcore.Request(request.method, url, headers=pairs, content=content, extensions={"timeout": timeouts})


def answer_of(response: "httpcore.Response", body: bytes) -> Answer:
    """An answer whose headers have lower-case names; the values of a repeated header are joined."""
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Answer(response.status, headers, body)


def lost(exc: Exception, address: Address) -> LostError:
    """Why there is no answer, in the system's words if possible. An exception that is not a connection error is raised again."""
    import httpcore

    if isinstance(exc, (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout, httpcore.ProxyError)):
        return LostError(f"no server answers at {address}: {_why(exc)}", sent=False)
    if isinstance(exc, (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError)):
        silent = isinstance(exc, (httpcore.ReadTimeout, httpcore.WriteTimeout))
        return LostError(f"the connection to {address} broke: {_why(exc)}", sent=True, silent=silent)
    raise exc


def words_of_system(exc: BaseException) -> str:
    """The system's words beneath a library's error, such as `connection refused`; empty when there are none."""
    found: BaseException | None = exc
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror.lower()
        found = found.__cause__ or found.__context__
    return ""


def _why(exc: BaseException) -> str:
    if words := words_of_system(exc):
        return words
    text = str(exc) or type(exc).__name__
    return "no answer in time" if text.endswith("Timeout") or text == "timed out" else text
