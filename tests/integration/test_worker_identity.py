"""The identity of the worker and of its scheduler: TLS, client certificates, tokens, their verification."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.certificates import Authority
from tests.conftest import WorkerProcess
from tests.waiting import eventually
from tests.wire_project import CODE

from gen_worker.errors import AuthError
from gen_worker.net.jwks import JwksSettings, JwksVerifier
from gen_worker.runtime.identity import Identity
from gen_worker.testing.loopback import LoopbackScheduler

Start = Callable[..., WorkerProcess]


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    return project(CODE)


def credentials(authority: Authority, certificate: tuple[Path, Path], *, client_ca: bool = False) -> grpc.ServerCredentials:
    cert_file, key_file = certificate
    pair = (key_file.read_bytes(), cert_file.read_bytes())
    return grpc.ssl_server_credentials([pair], authority.ca_file.read_bytes() if client_ca else None, require_client_auth=client_ca)


class TestTls:
    async def test_with_a_ca_of_ones_own(self, start_worker: Start, folder: Path, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "pki")
        async with LoopbackScheduler(credentials=credentials(authority, authority.issue("server"))) as scheduler:
            for address, env in ((f"grpcs://{scheduler.address}", {}), (scheduler.address, {"USE_TLS": "true"})):
                worker = start_worker(folder, address, SCHEDULER_TLS_CA_FILE=str(authority.ca_file), **env)
                assert await scheduler.call("echo", {"prompt": "secret"}) == {"text": "secret"}
                worker.process.terminate()
                await worker.ended()
                await scheduler.until(lambda: not scheduler.workers)

    async def test_a_wrong_ca_gets_no_token(self, start_worker: Start, folder: Path, tmp_path: Path) -> None:
        authority, other = Authority(tmp_path / "pki"), Authority(tmp_path / "other", "other-ca")
        async with LoopbackScheduler(credentials=credentials(authority, authority.issue("server"))) as scheduler:
            worker = start_worker(folder, f"https://{scheduler.address}", SCHEDULER_TLS_CA_FILE=str(other.ca_file))
            await eventually(lambda: "scheduler_connect_failed" in worker.log)
            assert scheduler.streams == 0

    async def test_the_server_name_option(self, start_worker: Start, folder: Path, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "pki")
        certificate = authority.issue("server", addresses=(), names=("scheduler.internal",))
        async with LoopbackScheduler(credentials=credentials(authority, certificate)) as scheduler:
            env = {"USE_TLS": "1", "SCHEDULER_TLS_CA_FILE": str(authority.ca_file)}
            worker = start_worker(folder, scheduler.address, **env)
            await eventually(lambda: "scheduler_connect_failed" in worker.log)
            assert scheduler.streams == 0
            start_worker(folder, scheduler.address, **env, SCHEDULER_TLS_SERVER_NAME="scheduler.internal")
            assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}

    async def test_client_certificates(self, start_worker: Start, folder: Path, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "pki")
        async with LoopbackScheduler(credentials=credentials(authority, authority.issue("server"), client_ca=True)) as scheduler:
            env = {"USE_TLS": "1", "SCHEDULER_TLS_CA_FILE": str(authority.ca_file)}
            without = start_worker(folder, scheduler.address, **env)
            await eventually(lambda: "scheduler_connect_failed" in without.log)
            assert scheduler.streams == 0
            half = start_worker(folder, scheduler.address, **env, SCHEDULER_TLS_CERT_FILE=str(authority.ca_file))
            assert await half.ended() == 1
            assert "both SCHEDULER_TLS_CERT_FILE and SCHEDULER_TLS_KEY_FILE" in half.log
            cert_file, key_file = authority.issue("worker")
            start_worker(folder, scheduler.address, **env, SCHEDULER_TLS_CERT_FILE=str(cert_file), SCHEDULER_TLS_KEY_FILE=str(key_file))
            assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}

    async def test_a_hint_does_not_take_the_token_out_of_tls(self, start_worker: Start, folder: Path, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "pki")
        async with (
            LoopbackScheduler(credentials=credentials(authority, authority.issue("server"))) as secure,
            LoopbackScheduler() as plain,
        ):
            secure.reject_with = ("FAILED_PRECONDITION", f"not_leader:http://{plain.address}")
            worker = start_worker(folder, f"https://{secure.address}", SCHEDULER_TLS_CA_FILE=str(authority.ca_file))
            await eventually(lambda: worker.log.count("scheduler_connect_failed") >= 4)
            assert plain.streams == 0
            assert secure.streams >= 2


class Keys:
    """A JWKS server with one key, and tokens signed by it."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.kid = "key-1"
        self.answer: Any = None
        self.fetches = 0
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.fetches += 1
                body = json.dumps(keys.answer or keys.jwks()).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks"

    def jwks(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": self.kid, "use": "sig"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"}]}

    def token(self, key: Any = None, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        body = {"sub": "worker-1", "iss": "scheduler", "aud": "workers", "exp": int(time.time()) + 60, **claims}
        return jwt.encode(body, key or self.key, algorithm=algorithm, headers={"kid": self.kid, **(headers or {})})


@pytest.fixture
def keys() -> Iterator[Keys]:
    found = Keys()
    yield found
    found.server.shutdown()
    found.server.server_close()


class TestVerification:
    def verifier(self, keys: Keys, **settings: Any) -> JwksVerifier:
        return JwksVerifier(JwksSettings(keys.url, **settings), "WORKER_JWT")

    def test_a_good_token(self, keys: Keys) -> None:
        verifier = self.verifier(keys, issuer="scheduler", audience="workers")
        assert verifier.verify(keys.token())["sub"] == "worker-1"
        verifier.verify(keys.token())
        assert keys.fetches == 1, "keys are cached"

    @pytest.mark.parametrize(
        "claims",
        [{"exp": 1}, {"nbf": 9_999_999_999}, {"iss": "somebody"}, {"aud": "others"}, {"exp": None}],
        ids=["expired", "not yet", "issuer", "audience", "no expiry"],
    )
    def test_wrong_claims(self, keys: Keys, claims: dict[str, Any]) -> None:
        token = keys.token(**claims) if claims != {"exp": None} else jwt.encode({"iss": "scheduler"}, keys.key, "RS256", {"kid": keys.kid})
        with pytest.raises(AuthError, match="does not verify") as raised:
            self.verifier(keys, issuer="scheduler", audience="workers").verify(token)
        assert token not in str(raised.value)

    def test_wrong_keys_and_algorithms(self, keys: Keys) -> None:
        verifier = self.verifier(keys)
        other = rsa.generate_private_key(65537, 2048)
        public = keys.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        bad = {
            "another key": keys.token(other),
            "unsigned": jwt.encode({"exp": 9_999_999_999}, None, algorithm="none", headers={"kid": keys.kid}),
            "hmac with the public key": _hmac_token(public, keys.kid),
            "rs512": keys.token(algorithm="RS512"),
            "unknown kid": keys.token(headers={"kid": "nobody"}),
            "a key of another type": keys.token(headers={"kid": "symmetric"}),
            "critical header": keys.token(headers={"crit": ["b64"], "b64": True}),
            "no token": "nonsense",
        }
        for token in bad.values():
            with pytest.raises(AuthError):
                verifier.verify(token)

    def test_header_urls_are_not_fetched(self, keys: Keys) -> None:
        verifier = self.verifier(keys)
        verifier.verify(keys.token())
        with pytest.raises(AuthError):
            verifier.verify(keys.token(rsa.generate_private_key(65537, 2048), headers={"jku": keys.url + "/evil"}))
        assert keys.fetches == 1

    def test_a_new_key_is_fetched_once(self, keys: Keys) -> None:
        verifier = self.verifier(keys)
        verifier.verify(keys.token())
        keys.kid = "key-2"
        verifier.verify(keys.token())
        assert keys.fetches == 2

    @pytest.mark.parametrize("answer", [[1], {"keys": 3}, {"keys": [{"kty": "RSA", "kid": "key-1", "n": "!", "e": "AQAB"}]}, "text"])
    def test_answers_that_are_no_jwks(self, keys: Keys, answer: Any) -> None:
        keys.answer = answer
        with pytest.raises(AuthError):
            self.verifier(keys).verify(keys.token())

    def test_a_server_that_is_not_there(self, keys: Keys) -> None:
        with pytest.raises(AuthError, match="cannot be fetched"):
            JwksVerifier(JwksSettings("http://127.0.0.1:1/jwks"), "WORKER_JWT").verify(keys.token())

    async def test_a_worker_does_not_start_with_a_token_that_does_not_verify(self, start_worker: Start, folder: Path, keys: Keys) -> None:
        good, bad = keys.token(), keys.token(exp=1)
        env = {"SCHEDULER_JWKS_URL": keys.url, "SCHEDULER_JWT_ISSUER": "scheduler", "SCHEDULER_JWT_AUDIENCE": "workers"}
        worker = start_worker(folder, "127.0.0.1:1", WORKER_JWT=bad, **env)
        assert await worker.ended() == 1
        assert "Signature has expired" in worker.log
        assert bad not in worker.log
        async with LoopbackScheduler() as scheduler:
            start_worker(folder, scheduler.address, WORKER_JWT=good, **env)
            assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}
            assert scheduler.workers[0].token == good


def test_tokens_that_cannot_be_any() -> None:
    for text in ("", " ", "two words", "line\nend", "x" * 20_000, "ümlaut"):
        with pytest.raises(ValueError, match=r"WORKER_JWT|worker token"):
            Identity(text)
    identity = Identity(" token ")
    assert identity.token == "token"
    assert "token>" not in repr(identity).replace("<redacted>", "")


def _hmac_token(secret: bytes, kid: str) -> str:
    """HS256 over the RSA public key: what a confused verifier would accept. PyJWT refuses to make one."""
    import base64
    import hashlib
    import hmac

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    signed = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{part({'exp': 9_999_999_999})}"
    return signed + "." + base64.urlsafe_b64encode(hmac.new(secret, signed.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
