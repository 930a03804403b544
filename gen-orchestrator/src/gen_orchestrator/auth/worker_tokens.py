"""Worker tokens: short-lived JWTs, signed with a key that lives in the data folder, and checked on every connect.

RS256, because published workers that check their token against a JWKS take nothing else. The algorithm is a constant. Fields of the header
that point elsewhere (`jku`, `x5u`, `jwk`) are never read. A header with `crit` is refused: none of what it could name is supported.
"""

import base64
import hashlib
import re
import secrets
import time
from pathlib import Path
from typing import Self

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from gen_orchestrator.auth.folder_keys import folder_key

ALGORITHM = "RS256"
KEY_BITS = 2048
ISSUER = "gen-orchestrator"
AUDIENCE = "gen-worker"
LIFE_S = 3600.0
MAX_LIFE_S = 90 * 86400  # of one that somebody asks for
LEEWAY_S = 30
MAX_TOKEN_BYTES = 8192
_BY_HAND = re.compile(r"-hand-[0-9a-f]{6}$")
KEY_NAME = "worker-tokens-rs256.key"


def id_by_hand(release_id: str) -> str:
    """A new id for a worker that somebody starts. Such a one outlives the program that gave it its token."""
    return f"{release_id}-hand-{secrets.token_hex(3)}"


def joined_by_hand(worker_id: str) -> bool:
    """Whether this is the id of a worker that somebody started."""
    return _BY_HAND.search(worker_id) is not None


def release_of(worker_id: str) -> str:
    """The release of the worker that was given this id, here or by hand."""
    return _BY_HAND.sub("", worker_id) if joined_by_hand(worker_id) else worker_id.rpartition("-")[0]


class TokenError(ValueError):
    """The token is not accepted. The text is for the log; the worker is told nothing but that."""


class WorkerClaims(msgspec.Struct, frozen=True):
    """What a token says of its worker; the scheduler believes nothing else about these. `life_s`: from its issue to its end."""

    worker_id: str
    owner: str
    release_id: str
    exp: int = 0  # unix seconds
    life_s: float = LIFE_S


class WorkerTokens:
    """Issues and verifies. `jwks` is the document with which others may verify, too."""

    def __init__(self, key: RSAPrivateKey) -> None:
        self._private = key
        self._public = key.public_key()
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._public, as_dict=True)
        # RFC 7638: the digest of the key's required members, in this order.
        thumb = hashlib.sha256(msgspec.json.encode({name: public[name] for name in ("e", "kty", "n")})).digest()
        self._kid = base64.urlsafe_b64encode(thumb).decode().rstrip("=")
        self.jwks = msgspec.json.encode({"keys": [{**public, "kid": self._kid, "alg": ALGORITHM, "use": "sig"}]})
        self._revoked: set[str] = set()

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """With the key of this data folder, made when there is none. Readable by its owner only."""
        return cls(_load(folder_key(folder / KEY_NAME, _new_key)))

    def issue(self, claims: WorkerClaims) -> str:
        """A token for one worker of one release, from now on for its `life_s`."""
        now_s = time.time()
        fields = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": claims.worker_id,
            "owner": claims.owner,
            "release_id": claims.release_id,
            "jti": secrets.token_hex(12),
            "iat": int(now_s),
            "exp": int(now_s + claims.life_s),
        }
        return jwt.encode(fields, self._private, algorithm=ALGORITHM, headers={"kid": self._kid})

    def verify(self, token: str) -> WorkerClaims:
        """The claims of a token; `TokenError` says why it is not accepted."""
        if not token or len(token) > MAX_TOKEN_BYTES:
            raise TokenError("no token" if not token else f"a token of {len(token)} characters")
        try:
            if "crit" in jwt.get_unverified_header(token):
                raise TokenError("a header with crit")
            fields = jwt.decode(
                token,
                self._public,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "sub", "jti"]},
            )
            claims = msgspec.convert({**fields, "worker_id": fields["sub"], "life_s": fields["exp"] - fields["iat"]}, WorkerClaims)
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
    key = generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _load(text: bytes) -> RSAPrivateKey:
    key = serialization.load_pem_private_key(text, None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"the key of worker tokens is a {type(key).__name__}; expected RSA")
    return key
