"""Workers that join by hand, over real gRPC: which are accepted, which are refused, and that tokens are renewed on the stream."""

import asyncio
import base64
import hmac
import time
from collections.abc import Callable
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from scheduler_on_a_port import Scheduler, hello, in_a_loop

from gen_orchestrator.auth.worker_tokens import AUDIENCE, ISSUER, WorkerClaims, WorkerTokens, id_by_hand, joined_by_hand, release_of
from gen_worker.wire import codec
from gen_worker.wire.messages import Batch, Event, Registration

ME = WorkerClaims("w1", "ann", "rel")
Change = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> WorkerTokens:
    return WorkerTokens.from_folder(tmp_path_factory.mktemp("keys"))


def forged(tokens: WorkerTokens, *, key: Any = None, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    now = int(time.time())
    fields = {"iss": ISSUER, "aud": AUDIENCE, "sub": "w1", "owner": "ann", "release_id": "rel", "jti": "j", "iat": now, "exp": now + 60}
    fields = {name: value for name, value in {**fields, **claims}.items() if value is not None}
    return jwt.encode(fields, tokens.keys.current.private if key is None else key, algorithm=algorithm, headers=headers)


def signed_with_the_public_key(token: str, public: bytes) -> str:
    """What a naive verifier takes: it lets the token choose HS256, and uses the public key as its secret. PyJWT refuses to make one."""

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    text = f"{encoded(msgspec.json.encode({'alg': 'HS256', 'typ': 'JWT'}))}.{token.split('.')[1]}"
    return f"{text}.{encoded(hmac.digest(public, text.encode(), 'sha256'))}"


@in_a_loop
async def test_wrong_tokens_are_refused_alike(tokens: WorkerTokens, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = WorkerTokens.from_folder(tmp_path_factory.mktemp("other"))
    public = tokens.keys.current.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    now = int(time.time())
    wrong = {
        "none": "", "text": "x", "alg none": forged(tokens, key="", algorithm="none"),
        "HS256 with the public key": signed_with_the_public_key(forged(tokens), public),
        "another key": forged(other), "another kid": forged(other, headers={"kid": tokens.keys.current.kid}),
        "jku": forged(other, headers={"jku": "http://127.0.0.1:1/jwks.json"}), "crit": forged(tokens, headers={"crit": ["b64"]}),
        "expired": forged(tokens, exp=now - 60), "future": forged(tokens, nbf=now + 600), "audience": forged(tokens, aud="else"),
        "issuer": forged(tokens, iss="else"), "no exp": forged(tokens, exp=None), "no owner": forged(tokens, owner=None),
        "no id": forged(tokens, jti=None),
    }  # fmt: skip
    async with Scheduler(tokens) as scheduler:
        told = {what: await scheduler.refusal(token) for what, token in wrong.items()}
        assert {text for text in told.values() if "UNAUTHENTICATED" not in text} == set(), told
        assert "RESOURCE_EXHAUSTED" in await scheduler.refusal(forged(tokens, more="x" * 900_000))  # gRPC does not even pass it on
        assert len({text for what, text in told.items()}) == 1, told
        assert len(scheduler.pool) == 0


@in_a_loop
async def test_a_token_is_good_for_its_owners_release_only(tokens: WorkerTokens) -> None:
    async with Scheduler(tokens) as scheduler:
        for release_id in ("other", "nowhere"):
            told = await scheduler.refusal(tokens.issue(WorkerClaims("w1", "ann", release_id)))
            assert "PERMISSION_DENIED" in told
        assert "security.worker_refused" in scheduler.said.getvalue()
        assert len(scheduler.pool) == 0


@pytest.mark.parametrize(
    ("registration", "word"),
    [
        (hello(available_functions=("f",) * 1_000_000), "1000000 available_functions"),
        (hello(function_concurrency={f"f{number}": 1 for number in range(20_000)}), "20000 function_concurrency"),
        (hello(disk_models=("m" * (1 << 20),)), "a name of 1048576 characters"),
        (Registration(protocol_major=0, protocol_minor=9), "unsupported_worker_protocol:0.9"),
        (Registration(protocol_major=2), "unsupported_worker_protocol:2.0"),
    ],
)
@in_a_loop
async def test_registrations_that_cannot_be_taken_say_why(tokens: WorkerTokens, registration: Registration, word: str) -> None:
    async with Scheduler(tokens) as scheduler:
        assert word in await scheduler.refusal(tokens.issue(ME), registration)
        assert len(scheduler.pool) == 0


@in_a_loop
async def test_a_token_is_renewed_before_it_is_over(tokens: WorkerTokens) -> None:
    async with Scheduler(tokens) as scheduler, asyncio.timeout(60):
        first = tokens.issue(msgspec.structs.replace(ME, life_s=4.0))
        async with scheduler.joined(first, hello()) as stream:
            while True:
                message = codec.decode(await stream.receive())
                found = [one for one in (message.messages if isinstance(message, Batch) else [message]) if isinstance(one, Event)]
                if found:
                    break
        assert found[0].event_type == "worker.jwt.rotate"
        second = msgspec.json.decode(found[0].payload)["worker_jwt"]
        assert (tokens.verify(second).worker_id, tokens.verify(second).life_s) == ("w1", 4.0)
        assert tokens.verify(second).exp > tokens.verify(first).exp


def test_others_can_verify_tokens_with_the_published_keys(tokens: WorkerTokens) -> None:
    token = tokens.issue(ME)
    (key,) = [each for each in jwt.PyJWKSet.from_json(tokens.jwks.decode()).keys if each.key_id == jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key.key, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)["release_id"] == "rel"


@in_a_loop
async def test_a_worker_that_refuses_because_it_drains_gets_no_more(tokens: WorkerTokens) -> None:
    """One that an earlier leader has sent away joins the next one while its last runs go on."""
    async with Scheduler(tokens) as scheduler, asyncio.timeout(60), scheduler.joined(tokens.issue(ME), hello()) as stream:
        refusal = Event("r1", "task.rejected", b'{"reason":"worker_draining","function_name":"f"}')
        await stream.send(codec.encode(refusal))
        while (worker := scheduler.pool.get("w1")) is None or not worker.draining:
            await asyncio.sleep(0)
        assert worker.state == "draining"


def test_ids_tell_the_release_and_who_started_the_worker() -> None:
    for release_id in ("probe-0123456789ab", "left-hand-0123456789ab"):
        by_hand = id_by_hand(release_id)
        assert (joined_by_hand(by_hand), release_of(by_hand)) == (True, release_id)
        assert (joined_by_hand(f"{release_id}-abcdef"), release_of(f"{release_id}-abcdef")) == (False, release_id)
