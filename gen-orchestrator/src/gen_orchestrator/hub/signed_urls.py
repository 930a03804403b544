"""Addresses that carry their own permission: one path, until a time, signed by a secret that all nodes share."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

LIFE_S = 900


class SignedUrls:
    """`base` is the address by which workers reach this server."""

    def __init__(self, secret: bytes, base: str, now_s: Callable[[], float]) -> None:
        self._secret = secret
        self._base = base.rstrip("/")
        self._now_s = now_s

    def sign(self, path: str, life_s: float = LIFE_S) -> str:
        """The whole address of a path that begins with `/`."""
        until = str(int(self._now_s() + life_s))
        return f"{self._base}{path}?{urlencode({'until': until, 'signature': self._signature(path, until)})}"

    def is_valid(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether a request for `path` with this query was signed here, and not too long ago."""
        until, given = query.get("until", ""), query.get("signature", "")
        right = hmac.compare_digest(self._signature(path, until).encode(), given.encode("utf-8", "replace"))
        return right and until.isdigit() and len(until) < 16 and int(until) > self._now_s()

    def _signature(self, path: str, until: str) -> str:
        text = f"{until} {path}".encode("utf-8", "replace")
        return hashlib.blake2b(text, key=self._secret, digest_size=24, person=b"signed url").hexdigest()
