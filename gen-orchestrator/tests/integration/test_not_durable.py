"""`durable = false`: runs with a waiting caller are stored when they end; runs without one are durable as usual."""

from pathlib import Path

from platform_process import PlatformProcess, read_events


def test_a_stream_is_kept_when_it_is_over(platform: PlatformProcess) -> None:
    with platform.http.stream(
        "POST", "/v1/local/probe/tokens", json={"payload": {"times": 100}}, headers={"accept": "text/event-stream"}
    ) as it:
        run_id = it.headers["x-run-id"]
        events = list(read_events(it))
    assert [data["number"] for _, name, data in events if name == "output"] == list(range(100))
    assert platform.run(run_id)["status"] == "succeeded"
    platform.until(lambda: run_id in [run["id"] for run in platform.http.get("/v1/runs").json()["data"]])
    platform.kill()
    platform.start()
    assert [ident for ident, name, _ in platform.events(run_id, "1-98") if name == "output"] == ["1-99", "1-100"]


def test_a_crash_loses_it_while_somebody_waits_and_not_after(platform: PlatformProcess) -> None:
    payload = {"times": 400, "seconds": 0.02}
    answer = platform.invoke("tokens", payload, headers={"prefer": "wait=0"})
    assert answer.status_code == 202
    kept = answer.json()["id"]
    submitted = platform.submit("tokens", {"times": 1})
    with platform.http.stream(
        "POST", "/v1/local/probe/tokens", json={"payload": payload}, headers={"accept": "text/event-stream"}
    ) as stream:
        lost = stream.headers["x-run-id"]
        assert platform.http.get(f"/v1/runs/{lost}").status_code == 200
        platform.process.kill()
    platform.kill()
    platform.start()
    assert platform.http.get(f"/v1/runs/{lost}").status_code == 404
    assert platform.run(submitted, 60)["status"] == "succeeded"
    assert platform.run(kept, 60)["status"] == "succeeded"


def test_it_is_tried_again_canceled_and_failed_as_others_are(platform: PlatformProcess, tmp_path: Path) -> None:
    again = platform.invoke("tokens", {"times": 2, "folder": str(tmp_path)})
    assert (again.json()["status"], again.json()["attempt"]) == ("succeeded", 2), again.text
    with platform.http.stream(
        "POST", "/v1/local/probe/tokens", json={"payload": {"times": 10_000, "seconds": 0.01}}, headers={"accept": "text/event-stream"}
    ) as stream:
        run_id = stream.headers["x-run-id"]
        assert platform.http.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "canceled"
        assert list(read_events(stream))[-1][2]["status"] == "canceled"
    wrong = platform.invoke("tokens", {"times": "x"})
    assert (wrong.status_code, platform.run(wrong.json()["id"])["status"]) == (400, "failed")
    keyed = platform.invoke("tokens", {"times": 1}, headers={"idempotency-key": "k"}).json()["id"]
    assert platform.invoke("tokens", {"times": 1}, headers={"idempotency-key": "k"}).json()["id"] == keyed
