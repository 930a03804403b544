"""Downloads from URLs given by callers: only from public addresses, checked again at every redirect (SSRF protection)."""

import os
import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpcore
import msgspec

from gen_worker.clock import SystemClock
from gen_worker.names import whole_number
from gen_worker.net.deadline import DeadlineBackend, left
from gen_worker.net.public_addresses import is_public, why_not_public
from gen_worker.net.public_urls import BlockedURLError, PublicURL, read_host, read_url
from gen_worker.net.retry import asked_s
from gen_worker.net.writing_out import WritingOut
from gen_worker.shared_files import open_own

__all__ = [
    "BlockedURLError",
    "DownloadError",
    "Downloaded",
    "GuardedBackend",
    "GuardedDownloader",
    "OpenBackend",
    "TooLargeError",
    "is_public",
]

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 15.0
TOTAL_TIMEOUT_S = 120.0
MAX_ADDRESSES_TRIED = 3

Resolve = Callable[[str, int], Iterable[str]]


class DownloadError(OSError):
    """A download failed. `status` is the HTTP status, if one was received; `asked_s`: the seconds that the server asks to wait."""

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


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host name, as resolved by the system."""
    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


class GuardedBackend(httpcore.SyncBackend):
    """Opens connections to public addresses only, for all requests to addresses given by others: inputs, webhooks.

    A name is resolved once, all its addresses are checked, and the connection goes to a checked one, so a second answer
    of the name server changes nothing. A single address that is not public is enough to refuse: mixing them is an
    attempt to reach the private one.
    """

    def __init__(self, resolve: Resolve = resolve, allowed: Callable[[str], bool] = is_public) -> None:
        super().__init__()
        self._resolve = resolve
        self._allowed = allowed

    def addresses(self, host: str, port: int) -> list[str]:
        """The checked addresses of a host; `BlockedURLError` when one of them is not public, or there is none."""
        try:
            found = [host] if _is_address(host) else list(self._resolve(read_host(host), port))
        except (OSError, UnicodeError):
            raise BlockedURLError(f"host {host!r} cannot be resolved") from None
        refused = [address for address in found if not self._allowed(address)]
        if refused:
            shown = ", ".join(address[:60] for address in refused[:3])
            why = why_not_public(refused[0]) or "refused here"
            raise BlockedURLError(f"host {host!r} has the address {shown}, which is not public: {why}")
        if not found:
            raise BlockedURLError(f"host {host!r} has no address")
        return found

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        """`timeout` is for all addresses together, and for the name server's answer. Each address has an equal part of what is left."""
        until_s = time.monotonic() + (CONNECT_TIMEOUT_S if timeout is None else timeout)
        found = self.addresses(host, port)[:MAX_ADDRESSES_TRIED]
        for n, address in enumerate(found[:-1]):
            try:
                share_s = left(until_s, None, httpcore.ConnectTimeout) / (len(found) - n)
                return super().connect_tcp(address, port, share_s, *args, **kwargs)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):  # for example on a machine without IPv6
                continue
        return super().connect_tcp(found[-1], port, left(until_s, None, httpcore.ConnectTimeout), *args, **kwargs)

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        raise BlockedURLError("unix sockets are not allowed")


class OpenBackend(GuardedBackend):
    """Opens connections to all addresses, with the same limits: for addresses that the operator allowed."""

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host; `ConnectError` when there is none."""
        try:
            found = [host] if _is_address(host) else list(self._resolve(host, port))
        except (OSError, UnicodeError) as exc:
            raise httpcore.ConnectError(f"host {host[:100]!r} cannot be resolved: {exc}") from exc
        if not found:
            raise httpcore.ConnectError(f"host {host[:100]!r} has no address")
        return found


class GuardedDownloader:
    """Fetches public http(s) URLs to files. Blocking: call it from a thread. Proxies in the environment are ignored."""

    def __init__(
        self, backend: httpcore.NetworkBackend | None = None, ports: Iterable[int] = (80, 443), *, total_s: float = TOTAL_TIMEOUT_S
    ) -> None:
        self._backend = backend or GuardedBackend()
        self._total_s = total_s
        self._ports = frozenset(ports)

    def fetch(self, url: str, path: Path, max_bytes: int) -> Downloaded:
        """Write the body of `url` to `path`: at most `max_bytes` (0: no limit), 5 redirects, two minutes in all.

        Raises `BlockedURLError`, `TooLargeError`, or `DownloadError` for temporary errors.
        """
        deadline_s, backend = time.monotonic() + self._total_s, DeadlineBackend(self._backend, self._total_s)
        with httpcore.ConnectionPool(network_backend=backend, max_keepalive_connections=0) as pool:
            for _ in range(MAX_REDIRECTS + 1):
                read = self.check(url)
                try:
                    next_url = self._fetch_one(pool, read, path, max_bytes, deadline_s)
                except httpcore.TimeoutException:
                    is_over = time.monotonic() >= deadline_s
                    raise DownloadError(f"took longer than {self._total_s:g} s" if is_over else "timed out") from None
                except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as exc:
                    raise DownloadError(f"failed: {exc or type(exc).__name__}") from exc
                if isinstance(next_url, Downloaded):
                    return next_url
                try:
                    url = urljoin(str(read), next_url)
                except ValueError:
                    raise BlockedURLError(f"it redirects to {next_url[:100]!r}, which is not a URL") from None
        raise BlockedURLError(f"more than {MAX_REDIRECTS} redirects")

    def check(self, url: str) -> PublicURL:
        """The URL's parts; `BlockedURLError` when it may not be fetched, whatever its addresses."""
        read = read_url(url)
        if read.port not in self._ports:
            raise BlockedURLError(f"port {read.port}; allowed are {', '.join(map(str, sorted(self._ports)))}")
        return read

    def _fetch_one(self, pool: httpcore.ConnectionPool, url: PublicURL, path: Path, max_bytes: int, deadline_s: float) -> Downloaded | str:
        timeouts = {"connect": CONNECT_TIMEOUT_S, "read": READ_TIMEOUT_S, "write": READ_TIMEOUT_S, "pool": CONNECT_TIMEOUT_S}
        headers = [("accept", "*/*"), ("accept-encoding", "identity"), ("user-agent", "gen-worker")]
        address = httpcore.URL(scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target.encode())
        headers.append(("host", url.netloc))
        with pool.stream("GET", address, headers=headers, extensions={"timeout": timeouts}) as response:
            fields = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            wish_s = asked_s(response.status, {name.decode("latin-1"): value for name, value in fields.items()}, SystemClock())
            if response.status in (301, 302, 303, 307, 308) and b"location" in fields:
                return fields[b"location"]
            if response.status != 200:
                raise DownloadError(f"answered HTTP {response.status}", response.status, wish_s)
            if fields.get(b"content-encoding", "identity") != "identity":
                raise DownloadError(f"answered in encoding {fields[b'content-encoding']!r}, which was not requested")
            declared = whole_number(fields.get(b"content-length", ""))
            if max_bytes and declared is not None and declared > max_bytes:
                raise TooLargeError(f"{declared} bytes; at most {max_bytes} are allowed")
            size_bytes = self._copy(response, path, max_bytes, deadline_s)
            if declared is not None and size_bytes != declared:
                raise DownloadError(f"ended after {size_bytes} of {declared} bytes")
            return Downloaded(size_bytes, fields.get(b"content-type", "").partition(";")[0].strip() or None)

    def _copy(self, response: httpcore.Response, path: Path, max_bytes: int, deadline_s: float) -> int:
        size_bytes = 0
        with os.fdopen(open_own(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            out = WritingOut(file)
            for chunk in response.iter_stream():
                size_bytes += len(chunk)
                if max_bytes and size_bytes > max_bytes:
                    raise TooLargeError(f"more than the {max_bytes} bytes that are allowed")
                if time.monotonic() > deadline_s:
                    raise DownloadError(f"took longer than {self._total_s:g} s")
                out.write(chunk)
        return size_bytes


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
