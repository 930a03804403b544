"""Signing keys of worker tokens, in the data folder. The newest key signs; older keys verify until their last token has expired.

    worker-tokens-rs256.key              the first
    worker-tokens-rs256-2.key            made by a rotation, and so on
    worker-tokens-rs256-2.key.until      when the last token signed by this key expires, in unix seconds, or up to a quarter of an
                                         hour later; written before the token is issued

Nodes that share the folder share the keys. An unknown key may come from another node or a newer leader, so the folder is then read again.
"""

import base64
import fcntl
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from gen_orchestrator.auth.folder_keys import folder_key

ALGORITHM = "RS256"
KEY_BITS = 2048
MAX_LIFE_S = 90 * 86400  # of a token that a person requests
LEEWAY_S = 30
STEP_S = 900  # how far `until` is written ahead, so that it is not written for each token
AGAIN_S = 1.0  # minimum time between two reads of the folder in search of an unknown key
FIRST_NAME = "worker-tokens-rs256.key"
_NAME = re.compile(r"worker-tokens-rs256(?:-([0-9]{1,6}))?\.key")
_LOCK_NAME = ".worker-tokens.lock"


class SigningKey:
    """One key. `number` grows with each rotation; `until` is in unix seconds."""

    def __init__(self, number: int, path: Path, private: RSAPrivateKey, until: float) -> None:
        self.number = number
        self.path = path
        self.private = private
        self.public = private.public_key()
        self.until = until
        fields = jwt.algorithms.RSAAlgorithm.to_jwk(self.public, as_dict=True)
        # RFC 7638: the digest of the key's required members, in this order.
        thumb = hashlib.sha256(msgspec.json.encode({name: fields[name] for name in ("e", "kty", "n")})).digest()
        self.kid = base64.urlsafe_b64encode(thumb).decode().rstrip("=")
        self.jwk = {**fields, "kid": self.kid, "alg": ALGORITHM, "use": "sig"}


class SigningKeys:
    """The keys of one data folder; the first one is created here. Callable from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._keys: dict[str, SigningKey] = {}  # by key id, the oldest first
        self._read_s = float("-inf")
        self._read()

    @property
    def current(self) -> SigningKey:
        """The key that signs."""
        return list(self._keys.values())[-1]

    def valid(self) -> list[SigningKey]:
        """Keys that may have signed a token that is still valid, and the one that signs; the oldest first."""
        now_s, (*older, current) = time.time(), self._keys.values()
        return [*(key for key in older if now_s < key.until + LEEWAY_S), current]

    def find(self, kid: str) -> SigningKey | None:
        """The key with this id if it is valid."""
        if kid not in self._keys and time.monotonic() - self._read_s > AGAIN_S:
            self._read()
        return next((key for key in self.valid() if key.kid == kid), None)

    def will_sign_until(self, key: SigningKey, until: float) -> None:
        """Record until when this key must verify. Called before the token is issued."""
        if until <= key.until:
            return
        with self._guard, self._alone():
            key.until = max(until + STEP_S, _until_of(key.path, 0.0))
            _write(key.path.with_name(key.path.name + ".until"), f"{key.until:.0f}\n".encode())

    def rotate(self) -> SigningKey:
        """Create a new key, which signs from now on; remove keys that are no longer needed. Blocking."""
        text = _new_key()  # this takes a while, and others may sign meanwhile
        with self._guard, self._alone():
            keys = self._load()
            number = 1 + max((key.number for key in keys), default=0)
            path = self._folder / f"worker-tokens-rs256-{number}.key"
            _write(path.with_name(path.name + ".until"), b"0\n")
            keys.append(SigningKey(number, path, _parsed(folder_key(path, lambda: text)), 0.0))
            self._take(keys)
            valid = self.valid()
            for key in keys:
                if key not in valid:
                    key.path.unlink(missing_ok=True)
                    key.path.with_name(key.path.name + ".until").unlink(missing_ok=True)
            self._take(valid)
            return keys[-1]

    def _read(self) -> None:
        with self._guard, self._alone():
            keys = self._load()
            if not keys:
                path = self._folder / FIRST_NAME
                _write(path.with_name(path.name + ".until"), b"0\n")
                keys = [SigningKey(1, path, _parsed(folder_key(path, _new_key)), 0.0)]
            self._take(keys)

    def _load(self) -> list[SigningKey]:
        found = []
        for path in self._folder.glob("worker-tokens-rs256*.key"):
            if (name := _NAME.fullmatch(path.name)) is not None:
                until = _until_of(path, -1.0)
                if until < 0:  # from an earlier version, which did not record how long its tokens are valid
                    until = time.time() + MAX_LIFE_S
                    _write(path.with_name(path.name + ".until"), f"{until:.0f}\n".encode())
                found.append(SigningKey(int(name[1] or 1), path, _parsed(path.read_bytes()), until))
        return sorted(found, key=lambda key: key.number)

    def _take(self, keys: list[SigningKey]) -> None:
        self._keys = {key.kid: key for key in keys}
        self._read_s = time.monotonic()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock against other processes that change the keys."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def has_keys(folder: Path) -> bool:
    """Whether this is a platform's data folder whose keys are readable."""
    return any(_NAME.fullmatch(path.name) and os.access(path, os.R_OK) for path in folder.glob("worker-tokens-rs256*.key"))


def _until_of(path: Path, default: float) -> float:
    with suppress(OSError, ValueError):
        return float(path.with_name(path.name + ".until").read_text())
    return default


def _write(path: Path, data: bytes) -> None:
    """Write atomically and to the disk: whoever rotates keys after a power cut must know the token that is issued next."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _new_key() -> bytes:
    key = generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _parsed(text: bytes) -> RSAPrivateKey:
    key = serialization.load_pem_private_key(text, None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"the key of worker tokens is a {type(key).__name__}; expected RSA")
    return key
