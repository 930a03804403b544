"""Signed URLs: valid for one path and method until a given time, signed with a secret that all nodes share."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

LIFE_S = 900
SAME_S = 3600  # a lasting URL stays the same for this long


class SignedUrls:
    """`base` is the address by which workers reach this server."""

    def __init__(self, secret: bytes, base: str, now_s: Callable[[], float]) -> None:
        self._secret = secret
        self._base = base.rstrip("/")
        self._now_s = now_s

    def sign(self, path: str, life_s: float = LIFE_S, method: str = "GET") -> str:
        """The absolute URL of a path that begins with `/` and is not percent-encoded."""
        return self._base + self.signed_path(path, life_s, method)[0]

    def signed_path(self, path: str, life_s: float, method: str) -> tuple[str, int]:
        """The URL without its server, and its expiry in unix seconds. A URL for GET is also valid for HEAD."""
        return self._path_until(path, int(self._now_s() + life_s), method)

    def lasting_path(self, path: str, life_s: float) -> tuple[str, int]:
        """The same for GET, for `life_s` and up to an hour more: requested again within the hour, it is the same URL."""
        return self._path_until(path, int(self._now_s() + life_s) // SAME_S * SAME_S + SAME_S, "GET")

    def _path_until(self, path: str, until: int, method: str) -> tuple[str, int]:
        fields = {"until": until, "signature": self._signature(path, str(until), method)}
        return f"{quote(path, safe='/:')}?{urlencode(fields)}", until

    def is_valid(self, path: str, query: Mapping[str, str], method: str = "GET") -> bool:
        """Whether a request for `path` with this query was signed here and has not expired."""
        until, given = query.get("until", ""), query.get("signature", "")
        wanted = self._signature(path, until, "GET" if method == "HEAD" else method)
        right = hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace"))
        return right and until.isascii() and until.isdigit() and len(until) < 16 and int(until) > self._now_s()

    def _signature(self, path: str, until: str, method: str) -> str:
        text = f"{method} {until} {path}".encode("utf-8", "replace")
        return hashlib.blake2b(text, key=self._secret, digest_size=24, person=b"signed url").hexdigest()
