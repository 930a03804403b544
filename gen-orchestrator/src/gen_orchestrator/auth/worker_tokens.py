"""Worker tokens: short-lived JWTs, signed with a key that lives in the data folder, and checked on every connect.

Only RS256, EdDSA and ES256 would be fit for several issuers; one issuer here signs with EdDSA. The algorithm is a constant list, and
header fields that point elsewhere (`jku`, `x5u`, `jwk`) are never read.
"""

import secrets
import time
from pathlib import Path
from typing import Self

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gen_orchestrator.auth.folder_keys import folder_key

ALGORITHM = "EdDSA"
ISSUER = "gen-orchestrator"
AUDIENCE = "gen-worker"
LIFE_S = 3600.0
LEEWAY_S = 30
MAX_TOKEN_BYTES = 8192
KEY_NAME = "worker-tokens.key"


class TokenError(ValueError):
    """The token is not accepted. The text is for the log; the worker is told nothing but that."""


class WorkerClaims(msgspec.Struct, frozen=True):
    """What a token says of its worker; the scheduler believes nothing else about these."""

    worker_id: str
    owner: str
    release_id: str


class WorkerTokens:
    """Issues and verifies."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._private = key
        self._public = key.public_key()
        self._revoked: set[str] = set()

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """With the key of this data folder, made when there is none. Readable by its owner only."""
        return cls(_load(folder_key(folder / KEY_NAME, _new_key)))

    def issue(self, claims: WorkerClaims, life_s: float = LIFE_S) -> str:
        """A token for one worker of one release."""
        now_s = time.time()
        fields = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": claims.worker_id,
            "owner": claims.owner,
            "release_id": claims.release_id,
            "jti": secrets.token_hex(12),
            "iat": int(now_s),
            "exp": int(now_s + life_s),
        }
        return jwt.encode(fields, self._private, algorithm=ALGORITHM)

    def verify(self, token: str) -> WorkerClaims:
        """The claims of a token; `TokenError` says why it is not accepted."""
        if not token or len(token) > MAX_TOKEN_BYTES:
            raise TokenError("no token" if not token else f"a token of {len(token)} characters")
        try:
            fields = jwt.decode(
                token,
                self._public,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "sub", "jti"]},
            )
            claims = msgspec.convert({**fields, "worker_id": fields["sub"]}, WorkerClaims)
        except (jwt.PyJWTError, msgspec.ValidationError) as exc:
            raise TokenError(f"{type(exc).__name__}: {exc}") from None
        if fields["jti"] in self._revoked:
            raise TokenError("revoked")
        return claims

    def revoke(self, token: str) -> None:
        """Accept this token no more, for as long as this process lives."""
        fields = jwt.decode(token, options={"verify_signature": False})
        self._revoked.add(fields.get("jti", ""))


def _new_key() -> bytes:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _load(text: bytes) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(text, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"the key of worker tokens is a {type(key).__name__}; expected Ed25519")
    return key
