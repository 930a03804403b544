"""One HTTP GET of a byte range; tells apart what servers really answer."""

import contextlib
import http.client
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import urllib3

from gen_worker.names import whole_number
from gen_worker.net.call import Call, HttpPool, HttpsPool
from gen_worker.net.part_file import clean_etag
from gen_worker.net.retry import HttpError, PassingError, Retries, asked_s

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
MAX_REDIRECTS = 5
EXPIRED = frozenset({401, 403, 410})
READ_BYTES = 1 << 20


class Link(msgspec.Struct, frozen=True):
    """A URL, and headers for its own host only."""

    url: str
    headers: Mapping[str, str] = {}


class WrongRangeError(PassingError):
    """The answer is not the requested range. If the server does this again, it may still send the whole file."""


class RangeReply:
    """An answer. `start` is the position of its bytes (0 for a whole file), `total` the file's size if known."""

    def __init__(self, response: Any, start: int, is_range: bool, total: int | None, link: Link) -> None:
        self._response = response
        self.start = start
        self.is_range = is_range
        self.total = total
        self.link = link  # the URL after redirects
        self.etag = clean_etag(response.headers.get("etag", ""))

    def read_into(self, buffer: memoryview) -> int:
        """The next bytes; 0 at the end, `PassingError` when the connection breaks."""
        try:
            return int(_source(self._response).readinto(buffer))
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as exc:
            raise PassingError(f"the connection broke: {exc}") from exc

    def chunks(self, buffer: memoryview) -> Generator[memoryview]:
        """The bytes as they arrive, in pieces of at most the buffer's size. A piece is valid until the next one is
        requested.

        Raises `PassingError` when the connection breaks.
        """
        while size := self.read_into(buffer):
            yield buffer[:size]

    def hang_up(self) -> None:
        """From another thread: abort a read that waits for bytes."""
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._response.shutdown()


class RangeClient:
    """Keeps connections. Proxies come from the environment as usual. Redirects never send headers to another host.

    One request is one try. `retries` is for callers that retry.
    """

    def __init__(self, connections: int = 16, *, read_timeout_s: float = READ_TIMEOUT_S, retries: Retries | None = None) -> None:
        self.retries = retries or Retries()
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s)
        self._options: dict[str, Any] = {"maxsize": connections, "timeout": timeout, "retries": False}
        self._pools: dict[str, urllib3.PoolManager] = {}

    @contextmanager
    def get(self, link: Link, start: int = 0, end: int | None = None, etag: str = "", call: Call | None = None) -> Iterator[RangeReply]:
        """GET `[start, end)`; end None: to the last byte. `HttpError` for a refusal, `PassingError` for a broken
        connection.

        Another thread may abort it by `call.hang_up`.
        """
        call = call or Call()
        with call.in_this_thread():
            response, final = self._follow(link, start, end, etag)
        try:
            yield self._understood(response, final, start, end)
        finally:
            call.end()
            # After a complete read the connection goes back to the pool; otherwise the rest could be mistaken for the next answer.
            if not _is_read(response):
                response.close()
            response.release_conn()

    def read(self, link: Link, end: int, max_bytes: int = 64 << 20) -> bytes:
        """The first `end` bytes of a file, or all of it if it is shorter. Raises `HttpError` and `PassingError`."""
        with self.get(link, 0, end) as reply:
            data = bytearray()
            for chunk in reply.chunks(memoryview(bytearray(min(end, READ_BYTES)))):
                data += chunk
                if len(data) >= min(end, max_bytes):
                    break
        return bytes(data[:end])

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    def _follow(self, link: Link, start: int, end: int | None, etag: str) -> tuple[Any, Link]:
        headers = {"accept-encoding": "identity", "user-agent": "gen-worker"}
        if start or end is not None:
            headers["range"] = f"bytes={start}-{'' if end is None else end - 1}"
            if etag and not etag.startswith("W/"):
                headers["if-range"] = etag
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = pool_for(link.url, self._pools, self._options).request(
                    "GET", link.url, headers={**headers, **link.headers}, preload_content=False, redirect=False
                )
            except (urllib3.exceptions.HTTPError, OSError) as exc:
                raise PassingError(f"no answer from {_host(link.url)}: {exc}") from exc
            if response.status not in (301, 302, 303, 307, 308):
                return response, link
            response.drain_conn()
            response.release_conn()
            link = _redirected(link, response.headers.get("location", ""))
        raise PassingError(f"more than {MAX_REDIRECTS} redirects")

    def _understood(self, response: Any, link: Link, start: int, end: int | None) -> RangeReply:
        host = _host(link.url)
        if response.status not in (200, 206):
            headers = {name.lower(): value for name, value in response.headers.items()}
            raise HttpError(response.status, host, asked_s(response.status, headers, self.retries.clock))
        if response.headers.get("content-encoding", "identity") != "identity":
            raise PassingError(f"{host} sent compressed bytes, which were not asked for")
        if response.status == 200:
            length = response.headers.get("content-length", "")
            return RangeReply(response, 0, False, whole_number(length), link)
        got_start, got_end, total = _content_range(response.headers.get("content-range", ""))
        if got_start != start or (end is not None and got_end > end):
            raise WrongRangeError(f"{host} answered with bytes {got_start}-{got_end}, asked for {start}-{end}")
        return RangeReply(response, start, True, total, link)


def pool_for(url: str, pools: dict[str, urllib3.PoolManager], options: Mapping[str, Any]) -> urllib3.PoolManager:
    """The pool for a URL, through the environment's proxies; created and kept in `pools` under the proxy's URL ("" is direct)."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url {url[:40]!r}: expected http:// or https://")
    proxy = "" if _is_loopback(parts.hostname) or proxy_bypass(parts.hostname) else getproxies().get(parts.scheme, "")
    if proxy not in pools:
        pool = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(num_pools=8, **options)
        pool.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
        pools[proxy] = pool
    return pools[proxy]


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _content_range(text: str) -> tuple[int, int, int | None]:
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    start, end = whole_number(first), whole_number(last)
    if unit.lower() != "bytes" or start is None or end is None:
        raise WrongRangeError(f"an answer with the Content-Range {text[:80]!r}")
    return start, end + 1, whole_number(total)


def _redirected(link: Link, location: str) -> Link:
    try:
        url = urljoin(link.url, location)
        old, new = urlsplit(link.url), urlsplit(url)
    except ValueError as exc:
        raise PassingError(f"{_host(link.url)} redirected to an address that cannot be read: {exc}") from None
    if not location or (old.scheme == "https" and new.scheme != "https"):
        raise PassingError(f"{_host(link.url)} redirected to {new.scheme or 'nowhere'}://{new.hostname or ''}")
    same = (old.scheme, old.netloc) == (new.scheme, new.netloc)
    return Link(url, link.headers if same else {})


def _source(response: Any) -> Any:
    """The object to read from: the standard library's response, which fills a buffer; urllib3's own `readinto` copies each piece."""
    inner = getattr(response, "_fp", None)
    return inner if isinstance(inner, http.client.HTTPResponse) else response


def _is_read(response: Any) -> bool:
    source = _source(response)
    return bool(source.isclosed()) if source is not response else bool(response.length_remaining == 0)


def _host(url: str) -> str:
    """The host alone, because presigned URLs contain secrets."""
    return urlsplit(url).hostname or url[:40]
