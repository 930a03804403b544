"""Worker tokens: short-lived JWTs, signed with a key that lives in the data folder (`signing_keys`), and checked on every connect.

RS256, because published workers that check their token against a JWKS take nothing else. The algorithm is a constant. Header fields
that point to other keys (`jku`, `x5u`, `jwk`) are never read. A header with `crit` is refused, because no extension is supported.
"""

import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import jwt
import msgspec

from gen_orchestrator.auth.signing_keys import ALGORITHM, LEEWAY_S, SigningKeys

ISSUER = "gen-orchestrator"
AUDIENCE = "gen-worker"
LIFE_S = 3600.0
MAX_TOKEN_BYTES = 8192
_BY_HAND = re.compile(r"-hand-[0-9a-f]{6}$")


def id_by_hand(release_id: str) -> str:
    """A new id for a worker started by a person. Such a worker outlives the program that issued its token."""
    return f"{release_id}-hand-{secrets.token_hex(3)}"


def joined_by_hand(worker_id: str) -> bool:
    """Whether this is the id of a worker started by a person."""
    return _BY_HAND.search(worker_id) is not None


def release_of(worker_id: str) -> str:
    """The release of the worker with this id, whether started by the platform or by a person."""
    return _BY_HAND.sub("", worker_id) if joined_by_hand(worker_id) else worker_id.rpartition("-")[0]


class TokenError(ValueError):
    """The token is not accepted. The text is for the log; the worker is only told that it was refused."""


class WorkerClaims(msgspec.Struct, frozen=True):
    """A token's statements about its worker; the scheduler trusts no other source for them. `life_s`: seconds from issue to expiry."""

    worker_id: str
    owner: str
    release_id: str
    exp: int = 0  # unix seconds
    life_s: float = LIFE_S


class WorkerTokens:
    """Issues and verifies tokens. Callable from any thread."""

    def __init__(self, keys: SigningKeys, unix_s: Callable[[], float] = time.time) -> None:
        self.keys = keys
        self._unix_s = unix_s
        self._revoked: set[str] = set()

    @classmethod
    def from_folder(cls, folder: Path, unix_s: Callable[[], float] = time.time) -> Self:
        """With the keys of this data folder; the first one is created if there is none, readable by its owner only."""
        return cls(SigningKeys(folder), unix_s)

    @property
    def jwks(self) -> bytes:
        """The document that lets others verify tokens: every key whose tokens may still be valid."""
        return msgspec.json.encode({"keys": [key.jwk for key in self.keys.valid()]})

    def issue(self, claims: WorkerClaims) -> str:
        """A token for one worker of one release, valid for `life_s` from now on."""
        now_s, key = self._unix_s(), self.keys.current
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
        self.keys.will_sign_until(key, now_s + claims.life_s)
        return jwt.encode(fields, key.private, algorithm=ALGORITHM, headers={"kid": key.kid})

    def verify(self, token: str) -> WorkerClaims:
        """The claims of a token; `TokenError` says why it is not accepted."""
        if not token or len(token) > MAX_TOKEN_BYTES:
            raise TokenError("no token" if not token else f"a token of {len(token)} characters")
        try:
            header = jwt.get_unverified_header(token)
            if "crit" in header:
                raise TokenError("a header with crit")
            key = self.keys.find(str(header.get("kid", self.keys.current.kid))[:100])
            if key is None:
                raise TokenError("signed with a key that is not ours, or no longer valid")
            fields = jwt.decode(
                token,
                key.public,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                # A clock that was set back after the issue is no reason to refuse: only `exp` limits our tokens.
                options={"require": ["exp", "iat", "sub", "jti"], "verify_iat": False},
            )
            claims = msgspec.convert({**fields, "worker_id": fields["sub"], "life_s": fields["exp"] - fields["iat"]}, WorkerClaims)
        except (jwt.PyJWTError, msgspec.ValidationError) as exc:
            raise TokenError(f"{type(exc).__name__}: {exc}") from None
        if fields["jti"] in self._revoked:
            raise TokenError("revoked")
        return claims

    def revoke(self, token: str) -> None:
        """Refuse this token for the rest of this process's life."""
        fields = jwt.decode(token, options={"verify_signature": False})
        self._revoked.add(fields.get("jti", ""))
