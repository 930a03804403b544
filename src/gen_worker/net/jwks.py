"""Verifies tokens with a JWKS: who signed them, for whom, until when. Blocking."""

import json
import time
from typing import Any
from urllib.parse import urlsplit

import httpcore
import msgspec

from gen_worker.errors import AuthError, MissingExtraError
from gen_worker.net.deadline import DeadlineBackend

ALGORITHMS = ("RS256",)  # also compared with the key's own type: a token must not choose how it is verified
MAX_JWKS_BYTES = 1 << 20
JWKS_TIMEOUT_S = 5.0


class JwksSettings(msgspec.Struct, frozen=True):
    """Where verification keys come from, and what a token must contain."""

    url: str
    issuer: str = ""
    audience: str = ""
    ttl_s: float = 300.0


class JwksVerifier:
    """Verifies tokens with a JWKS: RS256 only, keys cached, fetched once more for an unknown `kid`. Needs the extra
    [jwt].

    `what` is the token's name in messages, such as `WORKER_JWT`.
    """

    def __init__(self, settings: JwksSettings, what: str = "the token") -> None:
        try:
            import jwt
        except ImportError:
            raise MissingExtraError("PyJWT", "jwt", f"checking {what} against a JWKS") from None
        self._jwt = jwt
        self._settings = settings
        self._what = what
        self._keys: dict[str, Any] = {}
        self._fetched_s = float("-inf")

    def verify(self, token: str) -> dict[str, Any]:
        """The claims; `AuthError` says what is wrong, without the token's text."""
        jwt = self._jwt
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise AuthError(f"{self._what} is signed with {str(header.get('alg'))[:20]!r}; only {', '.join(ALGORITHMS)} is accepted")
            if "crit" in header:
                raise AuthError(f"{self._what} has critical header parameters (crit), none of which are supported")
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key(header.get("kid")),
                algorithms=list(ALGORITHMS),
                issuer=self._settings.issuer or None,
                audience=self._settings.audience or None,
                options={"verify_aud": bool(self._settings.audience), "require": ["exp"]},
            )
        except jwt.PyJWTError as exc:
            raise AuthError(f"{self._what} does not verify against {_host(self._settings.url)}: {type(exc).__name__}: {exc}") from None
        return claims

    def _key(self, kid: Any) -> Any:
        if not isinstance(kid, str):
            raise AuthError(f"{self._what} has no key id (kid) in its header")
        expired = time.monotonic() - self._fetched_s > self._settings.ttl_s
        if expired or kid not in self._keys:
            self._fetch()
        if kid not in self._keys:
            raise AuthError(f"{self._what} was signed with the key {kid[:100]!r}, which {_host(self._settings.url)} does not list")
        return self._keys[kid]

    def _fetch(self) -> None:
        backend = DeadlineBackend(httpcore.SyncBackend(), JWKS_TIMEOUT_S)  # whoever verifies a token waits meanwhile
        try:
            with httpcore.ConnectionPool(network_backend=backend) as pool, pool.stream("GET", self._settings.url) as response:
                body = b""
                for chunk in response.iter_stream():
                    body += chunk
                    if len(body) > MAX_JWKS_BYTES:
                        raise AuthError(f"the JWKS of {_host(self._settings.url)} is larger than {MAX_JWKS_BYTES} bytes")
                if response.status != 200:
                    raise AuthError(f"{_host(self._settings.url)} answered HTTP {response.status} instead of a JWKS")
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as exc:
            raise AuthError(f"the JWKS of {_host(self._settings.url)} cannot be fetched: {exc or type(exc).__name__}") from exc
        try:
            listed = json.loads(body)["keys"]
            usable = [key for key in listed if isinstance(key, dict) and key.get("kty") == "RSA" and "kid" in key]
            self._keys = {str(key["kid"]): self._jwt.PyJWK(key, "RS256").key for key in usable}
        except (ValueError, KeyError, TypeError, self._jwt.PyJWTError) as exc:
            raise AuthError(f"the answer of {_host(self._settings.url)} is not a JWKS: {type(exc).__name__}") from None
        self._fetched_s = time.monotonic()


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
