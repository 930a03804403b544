"""Small JSON requests to an API: one answer, bounded in time and size. Blocking."""

from typing import Any
from urllib.parse import urlsplit

import msgspec
import urllib3

from gen_worker.clock import Clock, SystemClock
from gen_worker.net.range_client import CONNECT_TIMEOUT_S, pool_for
from gen_worker.net.retry import PassingError, asked_s

MAX_ANSWER_BYTES = 64 << 20
TIMEOUT_S = 30.0


class Answer(msgspec.Struct, frozen=True):
    """The answer. `body` is the parsed JSON, None when it was no JSON. `asked_s`: how long a refusal asks to wait, in seconds."""

    status: int
    body: Any
    asked_s: float | None = None


class JsonClient:
    """Requests with one bearer token to one base URL. The token goes nowhere else: redirects are not followed."""

    def __init__(self, base_url: str, token: str = "", *, timeout_s: float = TIMEOUT_S, clock: Clock = SystemClock()) -> None:  # noqa: B008 - without state
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base URL {base_url[:200]!r}: expected http://host or https://host")
        self.host = parts.hostname
        self._base = base_url.rstrip("/")
        self._headers = {"accept": "application/json", "user-agent": "gen-worker"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s)
        self._clock = clock
        self._pools: dict[str, urllib3.PoolManager] = {}

    def get(self, path: str) -> Answer:
        return self._request("GET", path, None)

    def post(self, path: str, body: Any) -> Answer:
        return self._request("POST", path, msgspec.json.encode(body))

    def _request(self, method: str, path: str, body: bytes | None) -> Answer:
        url = self._base + path
        headers = self._headers | ({"content-type": "application/json"} if body is not None else {})
        try:
            response: Any = pool_for(url, self._pools, {"timeout": self._timeout, "retries": False}).request(
                method, url, body=body, headers=headers, preload_content=False, redirect=False
            )
            data = response.read(MAX_ANSWER_BYTES + 1)
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise PassingError(f"no answer from {self.host}: {exc}") from exc
        if len(data) > MAX_ANSWER_BYTES:
            raise PassingError(f"{self.host} answered with more than {MAX_ANSWER_BYTES} bytes")
        wish_s = asked_s(response.status, {name.lower(): value for name, value in response.headers.items()}, self._clock)
        try:
            return Answer(response.status, msgspec.json.decode(data), wish_s)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Answer(response.status, None, wish_s)
