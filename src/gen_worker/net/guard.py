"""Downloads from addresses that callers name: only public ones, checked again at every redirect (SSRF protection)."""

import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpcore
import msgspec

from gen_worker.clock import SystemClock
from gen_worker.net.retry import asked_s
from gen_worker.shared_files import open_own

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 15.0
TOTAL_TIMEOUT_S = 120.0
_PORTS = {"http": 80, "https": 443}
# Global by the registry, but a route into a private network: NAT64, 6to4, Teredo and benchmarking ranges.
_TUNNELS = [ipaddress.ip_network(net) for net in ("64:ff9b::/96", "2002::/16", "2001::/32", "198.18.0.0/15")]

Resolve = Callable[[str, int], Iterable[str]]


class BlockedURLError(ValueError):
    """The URL is not one that this worker may fetch."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"input url blocked: {reason}")


class DownloadError(OSError):
    """A download failed. `status` is the HTTP status, where one came; `asked_s` the seconds that the server asks to be left alone."""

    def __init__(self, message: str, status: int | None = None, asked_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.asked_s = asked_s


class TooLargeError(ValueError):
    """More bytes than allowed."""


class Downloaded(msgspec.Struct, frozen=True):
    """A finished download."""

    size_bytes: int
    content_type: str | None


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public Internet, also when it is wrapped in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_multicast or any(ip in net for net in _TUNNELS if net.version == ip.version):
        return False
    return ip.is_global


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host name, as the system resolves it."""
    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


class GuardedBackend(httpcore.SyncBackend):
    """Opens connections to public addresses only: the name is resolved once, all its addresses are checked, and the
    connection goes to a checked one, so that a second answer of the name server changes nothing."""

    def __init__(self, resolve: Resolve = resolve, allowed: Callable[[str], bool] = is_public) -> None:
        super().__init__()
        self._resolve = resolve
        self._allowed = allowed

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        try:
            addresses = list(self._resolve(host, port))
        except (OSError, UnicodeError):
            raise BlockedURLError(f"host {host!r} cannot be resolved") from None
        refused = [address for address in addresses if not self._allowed(address)]
        if refused or not addresses:
            raise BlockedURLError(f"host {host!r} has the address {', '.join(refused) or 'none'}, which is not public")
        return super().connect_tcp(addresses[0], port, *args, **kwargs)

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        raise BlockedURLError("unix sockets are not fetched from")


class GuardedDownloader:
    """Fetches public http(s) URLs to files. Blocking: call it from a thread. Proxies of the environment are not used."""

    def __init__(self, backend: httpcore.NetworkBackend | None = None, ports: Iterable[int] = (80, 443)) -> None:
        self._backend = backend or GuardedBackend()
        self._ports = frozenset(ports)

    def fetch(self, url: str, path: Path, max_bytes: int) -> Downloaded:
        """Write the body of `url` to `path`; at most `max_bytes` (0: no limit), 5 redirects, two minutes.

        Raises `BlockedURLError`, `TooLargeError`, or `DownloadError` for what may pass.
        """
        deadline_s = time.monotonic() + TOTAL_TIMEOUT_S
        with httpcore.ConnectionPool(network_backend=self._backend, max_keepalive_connections=0) as pool:
            for _ in range(MAX_REDIRECTS + 1):
                self._check(url)
                try:
                    next_url = self._fetch_one(pool, url, path, max_bytes, deadline_s)
                except httpcore.TimeoutException:
                    raise DownloadError("timed out") from None
                except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as exc:
                    raise DownloadError(f"failed: {exc or type(exc).__name__}") from exc
                if isinstance(next_url, Downloaded):
                    return next_url
                url = next_url
        raise BlockedURLError(f"more than {MAX_REDIRECTS} redirects")

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise BlockedURLError(f"it cannot be read ({exc})") from None
        if parts.scheme not in _PORTS:
            raise BlockedURLError(f"scheme {parts.scheme!r}; expected http or https")
        if not parts.hostname or parts.username is not None:
            raise BlockedURLError("it needs a host and must not hold credentials")
        if (port or _PORTS[parts.scheme]) not in self._ports:
            raise BlockedURLError(f"port {port}; allowed are {', '.join(map(str, sorted(self._ports)))}")

    def _fetch_one(self, pool: httpcore.ConnectionPool, url: str, path: Path, max_bytes: int, deadline_s: float) -> Downloaded | str:
        timeouts = {"connect": CONNECT_TIMEOUT_S, "read": READ_TIMEOUT_S, "write": READ_TIMEOUT_S, "pool": CONNECT_TIMEOUT_S}
        headers = [("accept", "*/*"), ("accept-encoding", "identity"), ("user-agent", "gen-worker")]
        with pool.stream("GET", _ascii(url), headers=headers, extensions={"timeout": timeouts}) as response:
            fields = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            wish_s = asked_s(response.status, {name.decode("latin-1"): value for name, value in fields.items()}, SystemClock())
            if response.status in (301, 302, 303, 307, 308) and b"location" in fields:
                return urljoin(url, fields[b"location"])
            if response.status != 200:
                raise DownloadError(f"answered HTTP {response.status}", response.status, wish_s)
            if fields.get(b"content-encoding", "identity") != "identity":
                raise DownloadError(f"answered in encoding {fields[b'content-encoding']!r}, which was not asked for")
            declared = fields.get(b"content-length", "")
            if max_bytes and declared.isdigit() and int(declared) > max_bytes:
                raise TooLargeError(f"{declared} bytes; at most {max_bytes} are allowed")
            size_bytes = self._copy(response, path, max_bytes, deadline_s)
            if declared.isdigit() and size_bytes != int(declared):
                raise DownloadError(f"ended after {size_bytes} of {declared} bytes")
            return Downloaded(size_bytes, fields.get(b"content-type", "").partition(";")[0].strip() or None)

    def _copy(self, response: httpcore.Response, path: Path, max_bytes: int, deadline_s: float) -> int:
        size_bytes = 0
        with os.fdopen(open_own(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            for chunk in response.iter_stream():
                size_bytes += len(chunk)
                if max_bytes and size_bytes > max_bytes:
                    raise TooLargeError(f"more than the {max_bytes} bytes that are allowed")
                if time.monotonic() > deadline_s:
                    raise DownloadError(f"took longer than {TOTAL_TIMEOUT_S:.0f} s")
                file.write(chunk)
        return size_bytes


def _ascii(url: str) -> str:
    parts = urlsplit(url)
    try:
        url.encode("ascii")
        return url
    except UnicodeEncodeError:
        host = (parts.hostname or "").encode("idna").decode()
        netloc = f"{host}:{parts.port}" if parts.port else host
        return parts._replace(netloc=netloc, path=quote(parts.path, "/%"), query=quote(parts.query, "=&%?/")).geturl()
