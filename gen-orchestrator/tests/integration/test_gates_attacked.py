"""Gates for a release that crashes, hangs, streams, saves files, or is slow: the tag stays, and the reason is stored and shown."""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from edited_platform import TAG, edited_platform, release_at
from platform_process import COZYCTL, PlatformProcess

from gen_orchestrator.domain.canary import MIN_RUNS, takes_part

TOML = """
[functions.falter]
timeout_s = 1
"""
MORE = """
def wait_to_be_stopped(ctx: ActionContext) -> None:
    while not ctx.is_canceled():
        time.sleep(0.005)
    raise InterruptedError("canceled")

@worker_function()
def falter(ctx: ActionContext, payload: Input) -> Output:
    if VERSION == 2 and payload.text == "crashes": os._exit(7)
    if VERSION == 2 and payload.text == "hangs": wait_to_be_stopped(ctx)
    return Output(text=payload.text)

@worker_function()
def cut(ctx: ActionContext, payload: Input) -> Iterator[Word]:
    yield Word("a")
    if VERSION == 2: raise ValueError("no more words")
    yield Word("b")

@worker_function()
def fewer(ctx: ActionContext, payload: Input) -> Iterator[Delta]:
    yield from map(Delta, range(4 - VERSION))

@worker_function()
def saved(ctx: ActionContext, payload: Input) -> Saved:
    return Saved(file=ctx.save_bytes("always-the-same-name.bin", bytes([VERSION if payload.text else 0])))

@worker_function()
def slow(ctx: ActionContext, payload: Input) -> Output:
    if VERSION == 2: time.sleep(0.12)
    return Output(text="")
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """VERSION is 2 at `dev`, and 1 at `prod`."""
    with edited_platform(tmp_path_factory.mktemp("attacked"), MORE, TOML, "slow") as started:
        yield started


def golden_of(platform: PlatformProcess, function: str, payload: dict[str, Any]) -> str:
    run = platform.invoke(function, payload)
    assert run.status_code == 200, run.text
    answer = platform.http.post(f"/v1/runs/{run.json()['id']}/golden")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["golden_id"])


def promoted(platform: PlatformProcess, function: str) -> Any:
    return platform.http.put(TAG.format(function, "prod"), json={"release_id": release_at(platform, "dev", "slow")})


def verb(platform: PlatformProcess, *arguments: str) -> str:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False).stdout


@pytest.mark.parametrize(
    ("function", "payload", "told"),
    [
        ("falter", {"text": "hangs"}, "(timeout)"),
        ("cut", {}, "no more words"),
        ("fewer", {}, "3 items"),
        ("saved", {"text": "another"}, "/file/sha256"),
        ("falter", {"text": "crashes"}, "lost"),
    ],
)
def test_a_release_that_does_not_give_what_is_golden_stays_away(
    platform: PlatformProcess, function: str, payload: dict[str, Any], told: str
) -> None:
    old, new = release_at(platform, "prod", "slow"), release_at(platform, "dev", "slow")
    golden = golden_of(platform, function, payload)
    answer = promoted(platform, function)
    assert (answer.status_code, answer.json()["code"], told in answer.text) == (409, "golden_failed", True), answer.text
    assert release_at(platform, "prod", function) == old
    shown = verb(platform, "gates", new)
    assert (f"FAILED  golden {golden} of {function}" in shown, told in shown) == (True, True), shown
    assert f"FAILED  golden {golden} of {function}" in verb(platform, "releases", "show", new)
    assert platform.invoke(function, payload).json()["status"] == "succeeded", "callers of the tag notice nothing"
    platform.http.delete(f"/v1/goldens/{golden}")


def test_what_is_the_same_passes(platform: PlatformProcess) -> None:
    new = release_at(platform, "dev", "slow")
    golden = golden_of(platform, "saved", {})
    answer = promoted(platform, "saved")
    assert answer.status_code == 200, answer.text
    shown = verb(platform, "releases", "show", new)
    assert (f"passed  golden {golden} of saved" in shown, "saved:prod" in shown) == (True, True), shown


def test_a_slow_canary_is_dropped(platform: PlatformProcess) -> None:
    old, new = release_at(platform, "prod", "slow"), release_at(platform, "dev", "slow")
    body = {"release_id": new, "canary": 50}
    assert platform.http.put(TAG.format("slow", "prod"), json=body).status_code == 200
    ids = [f"slow-{number}" for number in range(100)]
    for wanted in (False, True):
        for run_id in [each for each in ids if takes_part(each, 50) == wanted][:MIN_RUNS]:
            platform.http.put(f"/v1/runs/{run_id}", params={"function": "local/probe/slow"}, json={})
    platform.until(lambda: "candidate" not in platform.http.get(TAG.format("slow", "prod")).json())
    assert release_at(platform, "prod", "slow") == old
    shown = verb(platform, "gates", new)
    assert ("FAILED  canary prod of slow" in shown, "in the median" in shown) == (True, True), shown
