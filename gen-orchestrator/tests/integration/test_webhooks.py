"""Webhooks: what a receiver gets, how it verifies it, and that no crash loses one."""

import base64
import hashlib
import hmac
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from platform_process import COZYCTL, PlatformProcess, write_project
from webhook_receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.close()


@pytest.fixture
def platform(project: Path, tmp_path: Path) -> Iterator[PlatformProcess]:
    """One that a test may kill."""
    started = PlatformProcess(project, tmp_path / "data", "--allow-private-webhooks")
    yield started
    started.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("webhooks")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data", "--allow-private-webhooks")
    yield started
    started.close()


def deliveries(platform: PlatformProcess, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = platform.http.get(f"/v1/runs/{run_id}/webhooks").json()["data"]
    return found


def test_the_end_of_a_run_is_told_signed(served: PlatformProcess, receiver: Receiver) -> None:
    run = served.invoke("echo", {"text": "a"}, webhook=receiver.url).json()
    headers, body = receiver.messages.get(timeout=60)
    message = json.loads(body)
    assert (message["type"], message["data"]["id"], message["data"]["output"]["text"]) == ("run.succeeded", run["id"], "a")
    assert served.run(run["id"]) == {**message["data"], "input": {"text": "a"}}
    assert headers["webhook-id"] == f"{run['id']}.ended"
    secret = (served.data / "webhooks.secret").read_text().strip()
    assert (served.data / "webhooks.secret").stat().st_mode & 0o777 == 0o600
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    (delivery,) = served.until(lambda: [each for each in deliveries(served, run["id"]) if each["state"] == "delivered"])
    assert (delivery["event"], delivery["tries"][0]["status"], delivery["url"]) == ("run.succeeded", 200, receiver.url)
    assert sum(value for name, value in served.figures().items() if name.startswith("webhook_deliveries_total")) >= 1


def test_a_prediction_is_told_as_one(served: PlatformProcess, receiver: Receiver) -> None:
    asked = {"version": "local/probe/words", "input": {"text": "a red kite"}, "webhook": receiver.url}
    made = served.http.post("/v1/predictions", json={**asked, "webhook_events_filter": ["completed"]}).json()
    headers, told = receiver.next()
    assert (told["id"], told["status"], told["output"], told["input"]) == (made["id"], "succeeded", ["a", "red", "kite"], asked["input"])
    assert told["urls"]["get"] == f"{served.url}/v1/predictions/{made['id']}"
    assert headers["webhook-signature"]
    drawn = served.http.post("/predictions", json={**asked, "version": "local/probe/picture"}).json()
    by_status = {told["status"]: told for _, told in (receiver.next(), receiver.next())}
    assert httpx.get(by_status["succeeded"]["output"], trust_env=False).content.startswith(b"\x89PNG")
    assert drawn["output"].startswith("data:image/png")


def test_only_what_was_asked_for_is_told(served: PlatformProcess, receiver: Receiver) -> None:
    served.invoke("echo", {"text": "a"}, webhook=receiver.url, webhook_events=["failed"])
    served.invoke("refuse", webhook=receiver.url, webhook_events=["started", "failed"])
    assert {receiver.next()[1]["type"], receiver.next()[1]["type"]} == {"run.started", "run.failed"}
    assert receiver.messages.empty()


def test_a_start_is_told_as_it_was_however_late(served: PlatformProcess, receiver: Receiver) -> None:
    run_id = served.invoke("echo", {"text": "a"}, webhook=receiver.url, webhook_events=["started", "succeeded"]).json()["id"]
    told = {message["type"]: message for _, message in (receiver.next(), receiver.next())}
    assert {kind: message["data"]["status"] for kind, message in told.items()} == {"run.started": "running", "run.succeeded": "succeeded"}
    served.until(lambda: [each for each in deliveries(served, run_id) if each["state"] == "pending"] == [])
    assert served.http.post(f"/v1/runs/{run_id}/webhooks/{run_id}.started/redeliver").status_code == 202
    late = receiver.next(60)[1]
    assert "output" not in late["data"]
    assert "finished_at" not in late["data"]
    assert (late["type"], late["data"]) == ("run.started", told["run.started"]["data"])
    asked = {"version": "local/probe/words", "input": {"text": "a kite"}, "webhook": receiver.url, "webhook_events_filter": ["start"]}
    made = served.http.post("/predictions", json=asked).json()
    assert receiver.next(60)[1]["status"] == "processing"
    served.until(lambda: [each["state"] for each in deliveries(served, made["id"])] == ["delivered"])
    assert served.http.post(f"/v1/runs/{made['id']}/webhooks/{made['id']}.started/redeliver").status_code == 202
    late = receiver.next(60)[1]
    assert (late["status"], late["output"], late["completed_at"], late["input"]) == ("processing", None, None, {"text": "a kite"})


def test_what_fails_is_tried_again_after_a_restart_too(platform: PlatformProcess, receiver: Receiver) -> None:
    receiver.statuses = [500, 302]
    run = platform.invoke("echo", {"text": "a"}, webhook=receiver.url).json()
    first = receiver.next()[0]
    platform.until(lambda: deliveries(platform, run["id"])[0]["tries"])
    platform.kill()
    platform.start()
    second = receiver.next()[0]
    assert first["webhook-id"] == second["webhook-id"]
    tries = platform.until(lambda: len(found := deliveries(platform, run["id"])[0]["tries"]) == 2 and found)
    assert [each["status"] for each in tries] == [500, 302]
    assert deliveries(platform, run["id"])[0]["state"] == "pending"


def test_a_receiver_that_is_gone_is_not_asked_again(served: PlatformProcess, receiver: Receiver) -> None:
    receiver.statuses = [410]
    run = served.invoke("echo", {"text": "a"}, webhook=receiver.url).json()
    receiver.next()
    assert served.until(lambda: deliveries(served, run["id"])[0]["state"] == "failed")


def test_a_run_of_before_a_crash_tells_its_end_after_it(platform: PlatformProcess, receiver: Receiver) -> None:
    answer = platform.invoke("sleep", {"seconds": 0.5}, headers={"prefer": "respond-async"}, webhook=receiver.url)
    platform.kill()
    platform.start()
    message = receiver.next()[1]
    assert (message["type"], message["data"]["id"]) == ("run.succeeded", answer.json()["id"])


def test_wrong_webhooks_are_refused_with_what_is_wrong(served: PlatformProcess) -> None:
    for webhook, word in (
        ("ftp://x.example/", "'ftp://x.example/' has the scheme 'ftp': expected https://HOST/PATH, or http://."),
        ("x.example/hook", "has no scheme: expected https://HOST/PATH, or http://. Did you mean 'https://x.example/hook'?"),
        ("localhost:3000/hook", "has no scheme"), ("//x.example/", "has no scheme"), ("https:x.example", "has no scheme"),
        ("http://a:b@x.example/", "credentials"), ("http://x.example:99999/", "http"),
    ):  # fmt: skip
        answer = served.invoke("echo", webhook=webhook)
        assert (answer.status_code, word in answer.json()["detail"]) == (400, True), answer.text
        assert "private" not in answer.json().get("hint", ""), answer.text
    answer = served.invoke("echo", webhook="https://x.example/", webhook_events=["suceeded"])
    assert (answer.status_code, "Did you mean 'succeeded'" in answer.json()["detail"]) == (400, True)
    assert served.invoke("echo", webhook_events=["failed"]).status_code == 400
    assert served.http.get("/v1/runs/nothing/webhooks").status_code == 404


def test_private_addresses_are_refused_where_nobody_allowed_them(project: Path, tmp_path: Path) -> None:
    platform = PlatformProcess(project, tmp_path / "data")
    try:
        for webhook in (
            "http://127.0.0.1:8000/",
            "http://localhost/",
            "http://10.1.2.3/",
            "http://[::1]/",
            "http://169.254.169.254/latest",
        ):
            answer = platform.invoke("echo", webhook=webhook)
            assert (answer.status_code, "--allow-private-webhooks" in answer.json()["hint"]) == (400, True), answer.text
        for webhook in ("x.example/hook", "https://a:b@x.example/", "https://x.example:99999/", "https://x.example\\a", "http://127.1/"):
            answer = platform.invoke("echo", webhook=webhook)
            assert (answer.status_code, "private" in answer.json().get("hint", "")) == (400, False), answer.text
    finally:
        platform.close()


def test_a_message_is_delivered_once_more_on_request(served: PlatformProcess, receiver: Receiver) -> None:
    run_id = served.submit("echo", {"text": "x"}, webhook=receiver.url)
    first, body = receiver.next(60)
    (made,) = served.until(lambda: [each for each in deliveries(served, run_id) if each["state"] == "delivered"])
    path = f"/v1/runs/{run_id}/webhooks"
    answer = served.http.post(f"{path}/{made['id']}/redeliver")
    assert answer.status_code == 202, answer.text
    second, again = receiver.next(60)
    assert (second["webhook-id"], again) == (first["webhook-id"], body)
    served.until(lambda: [each["state"] for each in deliveries(served, run_id)] == ["delivered", "delivered"])
    assert served.http.post(f"{path}/nothing/redeliver").status_code == 404
    receiver.statuses = [500]
    assert served.http.post(f"{path}/{answer.json()['id']}/redeliver").status_code == 202
    receiver.next(60)
    waiting = served.until(lambda: [each for each in deliveries(served, run_id) if each["tries"] and each["state"] == "pending"])
    refused = served.http.post(f"{path}/{waiting[0]['id']}/redeliver")
    assert (refused.status_code, "still pending" in refused.text) == (409, True)


def test_the_verb_shows_deliveries_and_makes_one_again(served: PlatformProcess, receiver: Receiver) -> None:
    def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(COZYCTL), "runs", "webhooks", *arguments, "--url", served.url]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    run_id = served.invoke("echo", {"text": "a"}, webhook=receiver.url).json()["id"]
    receiver.next()
    served.until(lambda: [each for each in deliveries(served, run_id) if each["state"] == "delivered"])
    line = verb(run_id).stdout.splitlines()[1].split()
    assert (line[:5], line[-1]) == ([f"{run_id}.ended", "run.succeeded", "delivered", "1", "200"], receiver.url)
    made = verb(run_id, "--redeliver").stdout.strip()
    assert receiver.next()[0]["webhook-id"] == f"{run_id}.ended"
    served.until(lambda: [each for each in deliveries(served, run_id) if (each["id"], each["state"]) == (made, "delivered")])
    assert json.loads(verb(run_id, "--redeliver", "--delivery", f"{run_id}.ended", "--json").stdout)["state"] == "pending"
    assert len(json.loads(verb(run_id, "--json").stdout)["data"]) == 3
    assert (verb(run_id, "--delivery", made).returncode, verb(run_id, "--redeliver", "--delivery", "../x").returncode) == (2, 3)
    receiver.statuses = [500] * 9
    refused = served.invoke("echo", {"text": "a"}, webhook=receiver.url).json()["id"]
    served.until(lambda: re.search(r"pending, next try in \w+ +\d +500 ", verb(refused).stdout))
    quiet = served.invoke("echo", {"text": "a"}).json()["id"]
    assert (verb(quiet).returncode, verb(quiet, "--redeliver").returncode, verb("nobody").returncode) == (0, 3, 3)
