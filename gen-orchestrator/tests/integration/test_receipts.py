"""What runs used: receipts, daily sums, and budgets of GPU seconds, despite retries, losses, cancels and a kill."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bounded_platform import Bounded
from platform_process import COZYCTL, PlatformProcess, write_project

PRICE = 0.5  # a GPU second
SUMS = ("gpu_seconds", "cpu_seconds", "cold_seconds", "downloaded_bytes", "loaded_bytes")


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bounded]:
    """A platform with prices whose workers say that they have a GPU."""
    folder = tmp_path_factory.mktemp("receipts")
    (folder / "data").mkdir()
    (folder / "data" / "prices.toml").write_text(f'currency = "EUR"\ngpu_second = {PRICE}\n')
    started = PlatformProcess(write_project(folder / "probe"), folder / "data", "--keys", env={"WORKER_FAKE_GPU_COUNT": "1"})
    yield Bounded(started)
    started.close()


def usage(priced: Bounded, key: str, **query: str) -> dict[str, Any]:
    answer = priced.ask(key, "GET", "/v1/usage", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_each_run_says_what_it_used(priced: Bounded) -> None:
    key = priced.make()["key"]
    run = priced.run(key, "sleep", {"seconds": 0.2}).json()
    receipt = run["receipt"]
    assert 0.2 <= receipt["gpu_seconds"] <= run["timings"]["total_ms"] / 1000 + 0.002
    assert receipt == {
        **receipt, "cpu_seconds": 0.0, "downloaded_bytes": 0, "loaded_bytes": 0, "attempts": 1,
        "cost": pytest.approx(receipt["gpu_seconds"] * PRICE), "cold_share": receipt["cold_share"],
    }  # fmt: skip
    assert 0 <= receipt["cold_share"] <= 1
    open_run = priced.start(key).json()
    assert "receipt" not in open_run, "it is not known yet"
    canceled = priced.ask(key, "POST", f"/v1/runs/{open_run['id']}/cancel").json()
    assert (canceled["status"], canceled["receipt"]["gpu_seconds"] >= 0) == ("canceled", True)


def test_the_start_of_a_worker_is_cold_time(priced: Bounded) -> None:
    """The run before it had to wait for a new worker."""
    key = priced.make()["key"]
    crashed = priced.run(key, "crash", {}).json()
    assert crashed["status"] == "failed"
    assert crashed["receipt"]["attempts"] >= 2
    assert crashed["receipt"]["cold_seconds"] > 0
    assert 0 < crashed["receipt"]["cold_share"] <= 1


def test_days_keys_and_functions_have_the_sum_of_their_runs(priced: Bounded, tmp_path: Path) -> None:
    key, admin = priced.make(name="the caller"), priced.make("admin", owner="local")["key"]
    first = usage(priced, admin)["total"]
    runs = [priced.run(key["key"], "sleep", {"seconds": 0.05}).json() for _ in range(3)]
    runs.append(priced.run(key["key"], "later", {"folder": str(tmp_path), "times": 2}).json())
    runs.append(priced.run(key["key"], "refuse").json())
    assert [run["receipt"]["attempts"] for run in runs] == [1, 1, 1, 2, 1]
    assert (runs[3]["status"], runs[4]["status"]) == ("succeeded", "failed")
    of_key = next(each for each in usage(priced, admin, by="key")["data"] if each["key"] == f"key:{key['key_id']}")
    assert (of_key["name"], of_key["runs"], of_key["failed"], of_key["unpriced"]) == ("the caller", 5, 1, 0)
    for name in (*SUMS, "cost"):
        assert of_key[name] == pytest.approx(sum(run["receipt"][name] for run in runs), abs=1e-9), name
    for by in ("day", "key", "function"):
        found = usage(priced, admin, by=by)
        assert (found["by"], found["currency"]) == (by, "EUR")
        for name in (*SUMS, "runs", "failed", "unpriced", "cost"):
            assert found["total"][name] == pytest.approx(sum(each[name] or 0 for each in found["data"]), abs=1e-9), (by, name)
        assert found["total"]["runs"] == first["runs"] + 5
    assert {each["function"] for each in usage(priced, admin, by="function")["data"]} >= {"local/probe/sleep", "local/probe/later"}


def test_usage_outlives_a_kill(priced: Bounded) -> None:
    admin = priced.make("admin", owner="local")["key"]
    before = [usage(priced, admin, by=by)["data"] for by in ("day", "key", "function")]
    priced.platform.kill()
    priced.platform.start()
    assert [usage(priced, admin, by=by)["data"] for by in ("day", "key", "function")] == before


def test_another_owner_sees_no_usage(priced: Bounded) -> None:
    theirs = priced.make("admin", owner="bob")["key"]
    priced.run(priced.make()["key"])
    for owner in ("", "local", "*"):
        found = usage(priced, theirs, by="key", owner=owner)
        assert (found["data"], found["total"]["runs"]) == ([], 0)
    assert usage(priced, priced.operator, owner="bob")["data"] == []
    assert usage(priced, priced.operator)["data"] != []


def test_a_key_sees_what_it_used_itself(priced: Bounded) -> None:
    mine, others = priced.make("invoke"), priced.make("invoke")["key"]
    for key in (mine["key"], mine["key"], others):
        assert priced.run(key).json()["status"] == "succeeded"
    found = usage(priced, mine["key"], by="key", owner="bob")
    assert (found["of"], [each["key"] for each in found["data"]], found["total"]["runs"]) == ("key", [f"key:{mine['key_id']}"], 2)
    assert usage(priced, priced.make("publish")["key"])["total"]["runs"] == 0
    whole = usage(priced, priced.make("admin")["key"])
    assert (whole["of"], whole["total"]["runs"] >= 3) == ("owner", True)
    env = {**os.environ, "COZY_URL": priced.platform.url, "COZY_API_KEY": mine["key"], "COLUMNS": "140"}
    shown = subprocess.run([str(COZYCTL), "usage"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (shown.returncode, "of this key's own runs" in shown.stderr) == (0, True), shown


def test_days_are_asked_for_by_name(priced: Bounded) -> None:
    today = datetime.now(UTC).date()
    found = usage(priced, priced.operator)
    assert (found["from"], found["to"]) == (str(today.replace(day=1)), str(today))
    yesterday = str(today - timedelta(days=1))
    assert usage(priced, priced.operator, **{"from": yesterday, "to": yesterday})["total"]["cost"] is None
    for query in (
        {"from": "yesterday"}, {"to": "2026-13-01"}, {"from": "2026-01-02", "to": "2026-01-01"}, {"from": "1900-01-01"}, {"by": "owner"},
        {"from": "2020-01-01", "to": "2026-01-01"}, {"to": "9999-12-31"}, {"from": "0001-01-01", "to": "0001-01-01"}, {"until": "now"},
    ):  # fmt: skip
        answer = priced.ask(priced.operator, "GET", "/v1/usage", params=query)
        assert (answer.status_code, answer.json()["code"]) == (400, "validation"), query


def test_gpu_seconds_are_a_budget(priced: Bounded) -> None:
    key = priced.make(gpu_seconds="0.3/d")
    assert priced.run(key["key"], "sleep", {"seconds": 0.1}).status_code == 200
    assert priced.run(key["key"], "sleep", {"seconds": 0.3}).status_code == 200, "what has room goes beyond it by one run"
    refused = priced.run(key["key"])
    used = priced.used(key["key_id"])["gpu_seconds"]
    budget = refused.json()["budget"]
    assert (refused.status_code, budget["name"], budget["limit"], budget["used"]) == (429, "gpu_seconds", "0.3/d", used)
    assert used >= 0.4
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert abs(datetime.fromisoformat(budget["free_at"]) - midnight) < timedelta(seconds=1)
    admin = priced.make("admin", owner="local")["key"]
    of_key = next(each for each in usage(priced, admin, by="key")["data"] if each["key"] == f"key:{key['key_id']}")
    assert of_key["gpu_seconds"] == used
    priced.platform.kill()
    priced.platform.start()
    assert priced.run(key["key"]).json()["budget"] == {**budget, "free_at": priced.run(key["key"]).json()["budget"]["free_at"]}
    path = f"/v1/keys/{key['key_id']}"
    assert priced.ask(priced.operator, "PATCH", path, json={"gpu_seconds": "1000/month"}).json()["used"] == {"gpu_seconds": used}
    assert priced.run(key["key"]).status_code == 200
    for wrong in ("1/h", "-1/d", "1e9/d", "nan/month"):
        assert priced.ask(priced.operator, "PATCH", path, json={"gpu_seconds": wrong}).status_code == 400


def test_a_budget_that_is_set_later_counts_what_was_before_and_what_is_open(priced: Bounded) -> None:
    key = priced.make()
    first = priced.run(key["key"], "sleep", {"seconds": 0.1}).json()
    slow = priced.start(key["key"], 0.6).json()["id"]
    has_begun = ("running", "succeeded")  # on a busy machine it may be over before the next look
    priced.platform.until(lambda: priced.ask(key["key"], "GET", f"/v1/runs/{slow}").json()["status"] in has_begun)
    changed = priced.ask(priced.operator, "PATCH", f"/v1/keys/{key['key_id']}", json={"gpu_seconds": "0.5/month"}).json()
    assert changed["used"]["gpu_seconds"] >= first["receipt"]["gpu_seconds"]
    done = priced.ask(key["key"], "GET", f"/v1/runs/{slow}", params={"wait": 60}).json()
    total = first["receipt"]["gpu_seconds"] + done["receipt"]["gpu_seconds"]
    assert priced.used(key["key_id"])["gpu_seconds"] == pytest.approx(total, abs=0.002)
    assert priced.run(key["key"]).status_code == 429


def test_the_verb_of_usage(priced: Bounded) -> None:
    env = {**os.environ, "COZY_URL": priced.platform.url, "COZY_API_KEY": priced.operator}

    def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(COZYCTL), "usage", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)

    priced.run(priced.make(name="named-key")["key"])
    shown = verb("--by", "key")
    assert shown.returncode == 0, shown.stderr
    assert "cost (EUR)" in shown.stdout.splitlines()[0]
    assert "named-key" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("in all")
    assert json.loads(verb("--json").stdout)["by"] == "day"
    assert "no runs ended from 2020-01-01 to 2020-01-02" in verb("--from", "2020-01-01", "--to", "2020-01-02").stderr
    assert verb("--from", "x").returncode == 2


def test_a_price_table_with_a_fault_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prices.toml").write_text("gpu_second = -1\n")
    command = [str(COZYCTL), "up", str(write_project(tmp_path / "probe")), "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "prices.toml: Expected `float` >= 0.0 - at `$.gpu_second`" in done.stderr
