"""Budgets of keys over HTTP: never exceeded by a single run, despite races, crashes and failovers; and the answers for refused requests."""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from bounded_platform import CLIENTS, Bounded
from free_ports import free_port
from platform_process import COZYCTL, PlatformProcess, write_project
from serve_process import ServeProcess


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bounded]:
    folder = tmp_path_factory.mktemp("budgets")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data", "--keys")
    yield Bounded(started)
    started.close()


def statuses(answers: list[httpx.Response]) -> dict[int, int]:
    return dict(Counter(answer.status_code for answer in answers))


def test_of_many_at_once_as_many_open_runs_as_may_be(bounded: Bounded) -> None:
    key = bounded.make(concurrency=5)
    answers = bounded.race(key["key"], "sleep", {"seconds": 600}, prefer="respond-async")
    assert statuses(answers) == {202: 5, 429: CLIENTS - 5}
    assert bounded.used(key["key_id"]) == {"concurrency": 5}
    refused = next(answer for answer in answers if answer.status_code == 429)
    problem = refused.json()
    assert problem["code"] == "budget_exhausted"
    assert problem["budget"] == {"name": "concurrency", "limit": "5", "used": 5.0, "free_at": None}
    assert "its budget is concurrency 5. It is free again when one of them ends" in problem["detail"]
    assert (problem["retryable"], refused.headers["retry-after"]) == (True, "1")
    first = next(answer.json()["id"] for answer in answers if answer.status_code == 202)
    assert bounded.ask(key["key"], "POST", f"/v1/runs/{first}/cancel").json()["status"] == "canceled"
    assert bounded.start(key["key"]).status_code == 202
    assert bounded.start(key["key"]).status_code == 429
    bounded.cancel_all(key["key"])
    assert bounded.used(key["key_id"]) == {"concurrency": 0}


def test_of_many_at_once_as_many_as_the_rate_allows(bounded: Bounded) -> None:
    key = bounded.make(rate="10/h")
    answers = bounded.race(key["key"], "echo", {"text": "x"})
    assert statuses(answers) == {200: 10, 429: CLIENTS - 10}
    refused = next(answer for answer in answers if answer.status_code == 429)
    budget = refused.json()["budget"]
    assert (budget["name"], budget["limit"], budget["used"]) == ("rate", "10/h", 10.0)
    assert 3300 < int(refused.headers["retry-after"]) <= 3600
    left_s = datetime.fromisoformat(budget["free_at"]).timestamp() - datetime.now(UTC).timestamp()
    assert 3300 < left_s <= 3600
    assert bounded.run(bounded.make()["key"]).status_code == 200, "another key has its own"


def test_one_client_after_another_needs_no_more_than_one_at_once(bounded: Bounded) -> None:
    """A run counts until its answer, not longer: also one that is written after it was answered."""
    key = bounded.make(concurrency=1)["key"]
    for function in ("echo", "tokens"):
        for _ in range(20):
            assert bounded.run(key, function).status_code == 200


def test_a_rate_is_free_again_when_it_said(bounded: Bounded) -> None:
    key = bounded.make(rate="1/s")["key"]
    assert bounded.run(key).status_code == 200
    bounded.platform.until(lambda: bounded.run(key).status_code == 200)


def test_the_same_request_again_uses_nothing(bounded: Bounded) -> None:
    key = bounded.make(rate="2/h", concurrency=1)
    once = bounded.run(key["key"], **{"idempotency-key": "once"}).json()["id"]
    answers = bounded.race(key["key"], "sleep", {"seconds": 600}, **{"idempotency-key": "slow", "prefer": "respond-async"})
    assert statuses(answers) == {202: CLIENTS}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert bounded.used(key["key_id"]) == {"rate": 2, "concurrency": 1}
    assert bounded.run(key["key"], **{"idempotency-key": "once"}).json()["id"] == once, "it is there, whatever is used"
    assert bounded.run(key["key"], **{"idempotency-key": "other"}).status_code == 429
    assert bounded.ask(key["key"], "PUT", "/v1/runs/of-mine?function=local/probe/echo", json={"payload": {}}).status_code == 429
    bounded.cancel_all(key["key"])


def test_who_repeats_a_run_is_who_uses_the_budget(bounded: Bounded) -> None:
    first, second = bounded.make(), bounded.make(rate="1/h")
    run_id = bounded.run(first["key"]).json()["id"]
    again = bounded.ask(second["key"], "POST", f"/v1/runs/{run_id}/retry")
    assert (again.status_code, again.json()["invoker_id"]) == (202, f"key:{second['key_id']}")
    assert bounded.ask(second["key"], "POST", f"/v1/runs/{run_id}/retry").status_code == 429


def test_a_memo_that_answers_uses_nothing(bounded: Bounded, tmp_path: Path) -> None:
    key = bounded.make(rate="1/h")["key"]
    payload = {"folder": str(tmp_path)}
    assert [bounded.run(key, "remembered", payload).headers["x-memo"] for _ in range(3)] == ["miss", "hit", "hit"]


def test_budgets_outlive_a_kill(bounded: Bounded) -> None:
    key = bounded.make(rate="3/h", concurrency=2)
    assert [bounded.start(key["key"]).status_code for _ in range(3)] == [202, 202, 429]
    bounded.platform.kill()
    bounded.platform.start()
    assert bounded.used(key["key_id"]) == {"rate": 2, "concurrency": 2}
    assert bounded.start(key["key"]).json()["budget"]["name"] == "concurrency"
    bounded.cancel_all(key["key"])
    assert bounded.run(key["key"]).status_code == 200
    assert bounded.run(key["key"]).json()["budget"] == {
        **bounded.run(key["key"]).json()["budget"], "name": "rate", "limit": "3/h", "used": 3.0,
    }  # fmt: skip


def test_budgets_are_changed_while_runs_are_open(bounded: Bounded) -> None:
    """What was used before a budget was set counts; a key that is revoked, or has no bound any more, ends no run."""
    key = bounded.make()
    path = f"/v1/keys/{key['key_id']}"
    run_id = bounded.start(key["key"]).json()["id"]
    changed = bounded.ask(bounded.operator, "PATCH", path, json={"rate": "2/h", "concurrency": 1}).json()
    assert (changed["budgets"], changed["used"]) == ({"rate": "2/h", "concurrency": 1}, {"rate": 1, "concurrency": 1})
    assert bounded.start(key["key"]).status_code == 429
    changed = bounded.ask(bounded.operator, "PATCH", path, json={"concurrency": None}).json()
    assert (changed["budgets"], changed["used"]) == ({"rate": "2/h"}, {"rate": 1})
    assert [bounded.run(key["key"]).status_code for _ in range(2)] == [200, 429]
    assert bounded.ask(bounded.operator, "PATCH", path, json={"rate": "none"}).json()["budgets"] == {}
    assert bounded.run(key["key"]).status_code == 200
    assert bounded.ask(bounded.operator, "DELETE", path).status_code == 200
    assert bounded.ask(bounded.operator, "GET", f"/v1/runs/{run_id}").json()["status"] in ("starting", "running")
    assert bounded.ask(bounded.operator, "POST", f"/v1/runs/{run_id}/cancel").json()["status"] == "canceled"
    rows = [row for row in bounded.ask(bounded.operator, "GET", "/v1/audit").json()["data"] if row["subject"] == key["key_id"]]
    assert [(row["action"], row["detail"]) for row in rows[1:-1]] == [
        ("key.budgets", "none"), ("key.budgets", "rate=2/h"), ("key.budgets", "rate=2/h concurrency=1"),
    ]  # fmt: skip


def test_a_key_cannot_lift_its_own_budgets(bounded: Bounded) -> None:
    key = bounded.make("admin", rate="5/h")
    assert bounded.ask(key["key"], "PATCH", f"/v1/keys/{key['key_id']}", json={"rate": None}).status_code == 403
    refused = bounded.ask(key["key"], "POST", "/v1/keys", json={"scopes": ["admin"]})
    assert refused.status_code == 403
    assert "this key has budgets (rate=5/h), so it cannot create or change keys" in refused.json()["detail"]


def test_another_owner_sees_and_changes_no_budget(bounded: Bounded) -> None:
    key, theirs = bounded.make(rate="1/h"), bounded.make("admin", owner="bob")["key"]
    bounded.run(key["key"])
    assert bounded.ask(theirs, "PATCH", f"/v1/keys/{key['key_id']}", json={"rate": None}).status_code == 404
    assert key["key_id"] not in bounded.ask(theirs, "GET", "/v1/keys").text
    mine = bounded.ask(key["key"], "GET", "/v1/me").json()
    assert (mine["budgets"], mine["used"]) == ({"rate": "1/h"}, {"rate": 1})


@pytest.mark.parametrize(
    "body",
    [
        {"rate": "1/w"}, {"rate": -1}, {"rate": "-1/s"}, {"rate": 60}, {"concurrency": 0}, {"concurrency": -4}, {"concurrency": 10**30},
        {"concurrency": "4"}, {"concurrency": 1.5}, {"burst": 3}, {"rate": "x" * 10_000}, {"rate": ["60/m"]},
    ],
)  # fmt: skip
def test_what_is_no_budget_is_refused(bounded: Bounded, body: dict[str, Any]) -> None:
    made = bounded.ask(bounded.operator, "POST", "/v1/keys", json={"scopes": ["invoke"], **body})
    assert (made.status_code, made.json()["code"]) == (400, "validation")
    key = bounded.make(rate="7/h")
    assert bounded.ask(bounded.operator, "PATCH", f"/v1/keys/{key['key_id']}", json=body).status_code == 400
    assert len(made.content) < 1000


def test_the_verbs_of_budgets(bounded: Bounded) -> None:
    env = {**os.environ, "COZY_URL": bounded.platform.url, "COZY_API_KEY": bounded.operator}

    def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(COZYCTL), "keys", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    made = verb("create", "--name", "bounded-one", "--rate", "60/h", "--concurrency", "4")
    assert "with the budgets rate 60/h, concurrency 4" in made.stderr, made.stderr
    text = made.stdout.strip()
    key_id = text.split("_")[1]
    assert bounded.run(text).status_code == 200
    line = next(line for line in verb("list").stdout.splitlines() if key_id in line)
    assert "rate 1 of 60/h, concurrency 0 of 4" in line
    assert verb("set", key_id, "--concurrency", "none", "--rate", "10/h").stdout == f"{key_id}: rate 1 of 10/h\n"
    assert verb("set", key_id, "--rate", "none").stdout == f"{key_id}: no budgets\n"
    assert (verb("set", key_id).returncode, verb("set", key_id, "--rate", "10/x").returncode) == (2, 2)
    assert "expected a number of runs" in verb("set", key_id, "--concurrency", "-3").stderr


def test_the_next_leader_counts_on(project: Path, tmp_path: Path, postgres_url: str) -> None:
    """Two nodes, one PostgreSQL: what the first has accepted when it is killed, the second knows."""
    data = tmp_path / "data"
    first = ServeProcess(
        project, data, postgres_url, "first", "--keys", env={"GEN_ORCHESTRATOR_PEERS": f"127.0.0.1:{(port := free_port())}"}
    )
    nodes = [first]
    try:
        first.until(lambda: first.role() == "leader")
        second = ServeProcess(
            project, data, postgres_url, "second", "--keys", "--worker-listen", f"127.0.0.1:{port}", "--peer", first.worker_address
        )
        nodes.append(second)
        second.until(lambda: second.role() == "standby")
        through = Bounded(second)
        key = through.make(rate="4/h", concurrency=3)
        answers = through.race(key["key"], "sleep", {"seconds": 600}, prefer="respond-async")
        assert statuses(answers) == {202: 3, 429: CLIENTS - 3}
        first.kill()
        assert through.start(key["key"]).json()["budget"]["name"] == "concurrency"
        assert second.role() == "leader"
        through.cancel_all(key["key"])
        assert statuses(through.race(key["key"], "echo", {})) == {200: 1, 429: CLIENTS - 1}
        assert through.used(key["key_id"]) == {"rate": 4, "concurrency": 0}
    finally:
        for node in nodes:
            node.close()
