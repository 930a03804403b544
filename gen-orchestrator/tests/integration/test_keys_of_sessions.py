"""A session lasts no longer than the key that opened it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from platform_process import PlatformProcess
from realtime_served import up_served

from gen_worker.client import AuthenticationError, Client, RunCanceledError, SessionError


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    with up_served(tmp_path_factory.mktemp("keys"), "--keys") as (_, found):
        yield found


def ask(platform: PlatformProcess, method: str, path: str, **options: Any) -> Any:
    operator = (platform.data / "operator.key").read_text().strip()
    answer = httpx.request(
        method, platform.url + path, headers={"authorization": f"Bearer {operator}"}, timeout=60, trust_env=False, **options
    )
    assert answer.status_code < 300, answer.text
    return answer.json()


def made(platform: PlatformProcess, **more: Any) -> tuple[str, Client]:
    key = ask(platform, "POST", "/v1/keys", json={"owner": "local", "scopes": ["invoke"], **more})
    return key["key_id"], Client(platform.url, key=key["key"])


def test_a_revoked_key_ends_its_open_sessions_and_no_others(platform: PlatformProcess) -> None:
    key_id, client = made(platform)
    _, other_client = made(platform)
    with client, other_client, client.session("local/demo/mirror") as session, other_client.session("local/demo/mirror") as other:
        for each in (session, other):
            each.send("x")
            assert each.receive() == b"x"
        ask(platform, "DELETE", f"/v1/keys/{key_id}")
        with pytest.raises(SessionError, match="was revoked") as ended:
            session.receive()
        assert (ended.value.close_code, ended.value.reason, ended.value.retryable) == (1008, "key_revoked", False)
        other.send("still")
        assert other.receive() == b"still"
        with pytest.raises(AuthenticationError):
            client.session("local/demo/mirror").open()
        with pytest.raises(RunCanceledError, match="key_revoked"):
            other_client.handle(session.id).result(wait_s=60)
    run = ask(platform, "GET", f"/v1/runs/{session.id}")
    assert run["session"]["reason"] == "key_revoked"


def test_a_session_ends_when_its_key_expires(platform: PlatformProcess) -> None:
    for life_s in (2.0, 10.0, 50.0):  # on a busy machine it may expire before the session is open
        _, client = made(platform, life_s=life_s)
        with client, contextlib.suppress(AuthenticationError), client.session("local/demo/mirror") as session:
            with pytest.raises(SessionError) as ended:
                session.receive()
            assert (ended.value.close_code, ended.value.reason) == (1008, "key_expired")
            return
    pytest.fail("no session was open before its key expired")
