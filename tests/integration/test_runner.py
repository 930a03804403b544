"""The dev HTTP runner in a separate process: every kind of answer, and the routes other than runs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import Runner, sse_events, write_project
from tests.runner_project import CODE


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("runner")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    assert found.stop() == 0


def event_types(answer: dict) -> list[str]:
    return [event["event_type"] for event in answer["events"]]


def test_a_run_answers_as_in_the_contract(runner: Runner) -> None:
    response = runner.run("echo", {"prompt": "kite"})
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"run_id", "success", "output", "error_type", "safe_message", "error_message", "events", "timing_ms"}
    assert answer["success"] is True
    assert answer["output"] == {"text": "kite"}
    assert isinstance(answer["timing_ms"]["total_ms"], int)
    assert event_types(answer) == [
        "task.received",
        "metrics.compute.started",
        "task.started",
        "task.inference.started",
        "task.inference.completed",
        "metrics.compute.completed",
        "metrics.inference",
        "metrics.run",
        "task.completed",
    ]
    assert all(event["run_id"] == answer["run_id"] for event in answer["events"])
    assert list(answer) == sorted(answer)


def test_the_payload_may_come_bare(runner: Runner) -> None:
    assert runner.http.post("/v1/run/echo", json={"prompt": "bare"}).json()["output"] == {"text": "bare"}


def test_options_reach_the_context(runner: Runner) -> None:
    answer = runner.run("tell", run_id="my-run", owner="me", invoker_id="you", timeout_ms=5000, required_variant_refs=["hf:a/b"]).json()
    assert answer["output"]["text"] == "my-run me you 5000 ['hf:a/b'] True"
    events = {event["event_type"]: event["payload"] for event in answer["events"]}
    assert events["job.log"]["message"] == "a line"
    assert events["my.event"]["x"] == 1
    assert "my.broken" not in events
    assert "run.event_lost" in runner.log.read_text()


def test_async_functions_and_streams(runner: Runner) -> None:
    assert runner.run("aecho", {"prompt": "a"}).json()["output"] == {"text": "a"}
    for function, payload, deltas in (("words", {"prompt": "x y"}, ["x", "y"]), ("awords", {"n": 3}, ["0", "1", "2"])):
        answer = runner.run(function, payload).json()
        assert answer["output"] is None
        assert [e["payload"]["chunk"] for e in answer["events"] if e["event_type"] == "output.delta"] == deltas
        assert "output.completed" in event_types(answer)


def test_server_sent_events_with_ids_progress_and_done(runner: Runner) -> None:
    accept = {"accept": "text/event-stream"}
    with runner.http.stream("POST", "/v1/run/words", params={"events": "all"}, json={"prompt": "a b"}, headers=accept) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = list(sse_events(response))
    assert [event_id for event_id, _, _ in found] == list(range(1, len(found) + 1))
    assert [data["chunk"] for _, name, data in found if name == "output"] == ["a", "b"]
    assert [data["stage"] for _, name, data in found if name == "progress"] == ["say", "say"]
    names = [name for _, name, _ in found]
    assert names.index("progress") < names.index("output")
    assert names[-1] == "done"
    run = found[-1][2]
    assert run["status"] == "succeeded"

    missed = {"last-event-id": "3"}
    with runner.http.stream("GET", run["events_url"], params={"events": "all"}, headers=missed) as response:
        assert list(sse_events(response)) == found[3:]
    with runner.http.stream("GET", run["events_url"]) as response:
        assert list(sse_events(response)) == [each for each in found if each[1] not in ("status", "metric")]
    all_seen = {"last-event-id": str(found[-1][0])}
    assert runner.http.get(run["events_url"], headers=all_seen).status_code == 204
    assert runner.http.get(run["events_url"], headers={"last-event-id": "x"}).status_code == 400


def test_ndjson(runner: Runner) -> None:
    response = runner.http.post("/v1/run/words", json={"prompt": "a b"}, headers={"accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["data"]["chunk"] for line in lines if line["event"] == "output"] == ["a", "b"]
    assert lines[-1]["event"] == "done"


def test_runs_are_listed_newest_first_and_filtered(runner: Runner) -> None:
    runner.run("echo", {"prompt": "x"}, run_id="listed-1")
    runner.run("echo", {"prompt": "x"}, run_id="listed-2")
    page = runner.http.get("/v1/runs", params={"function": "echo", "status": "succeeded"}).json()
    assert [run["id"] for run in page["data"]][:2] == ["listed-2", "listed-1"]
    assert runner.http.get("/v1/runs", params={"cursor": "listed-2", "function": "echo"}).json()["data"][0]["id"] == "listed-1"


def test_a_run_id_in_progress_is_a_conflict_a_finished_one_may_be_reused(runner: Runner) -> None:
    runner.http.post("/v1/run/nap", json={"payload": {"seconds": 30}, "run_id": "twice"}, headers={"prefer": "respond-async"})
    clash = runner.run("echo", {}, run_id="twice")
    assert clash.status_code == 409
    assert clash.json()["error"] == "duplicate_run_id"
    runner.http.post("/v1/runs/twice/cancel")
    assert runner.run("echo", {"prompt": "x"}, run_id="twice").json()["run_id"] == "twice"


def test_warm_up_throws_the_output_away(runner: Runner) -> None:
    answer = runner.http.post("/v1/warmup/echo", json={"prompt": "x"}).json()
    assert answer["ok"] is True
    assert set(answer) == {"ok", "run_id", "duration_ms"}


def test_health_status_and_models(runner: Runner) -> None:
    assert runner.http.get("/livez").status_code == 200
    assert runner.http.get("/readyz").status_code == 200
    status = runner.http.get("/v1/status").json()
    assert "echo" in status["functions"]
    assert status["functions"] == sorted(status["functions"])
    assert runner.http.get("/v1/models/status").json()["model_cache"]["vram_models"] == []
    assert runner.http.post("/v1/models/prefetch", json={}).json()["error"] == "missing_models"
    nameless = runner.http.post("/v1/models/prefetch", json={"models": ["hf:o/r", {"rf": "hf:o/r"}]})
    assert (nameless.status_code, nameless.json()["error"]) == (400, "missing_models")
    assert "models[1] is not a model; expected a ref" in nameless.json()["detail"]
    assert runner.http.post("/v1/models/load", json={}).json()["error"] == "missing_model_id"
    (result,) = runner.http.post("/v1/models/prefetch", json={"models": [{"ref": "hf:o/r@main", "dtypes": ["bf16"]}]}).json()["results"]
    assert (result["model_id"], result["ok"], result["error_type"]) == ("hf:o/r@main", False, "RetryableError")


def test_openapi_and_page(runner: Runner) -> None:
    document = runner.http.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    operation = document["paths"]["/v1/run/echo"]["post"]
    assert operation["summary"] == "Give the prompt back."
    assert operation["operationId"] == "echo"
    assert "prompt" in document["components"]["schemas"]["In"]["properties"]
    plain, zipped = (runner.http.get("/openapi.json", headers={"accept-encoding": coding}) for coding in ("identity", "gzip"))
    assert ("content-encoding" in plain.headers, zipped.headers["content-encoding"], zipped.content == plain.content) == (
        False,
        "gzip",
        True,
    )
    assert int(zipped.headers["content-length"]) < len(plain.content) / 4
    page = runner.http.get("/docs")
    assert "text/html" in page.headers["content-type"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert runner.http.get("/docs/console.js").status_code == 200
    assert runner.http.get("/docs/app.py").status_code == 404


def test_a_baked_manifest_is_served(project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    folder = project(CODE)
    import subprocess
    import sys

    baked = tmp_path / "manifest.json"
    baked.write_bytes(subprocess.run([sys.executable, "-m", "gen_worker.discover"], cwd=folder, capture_output=True, check=True).stdout)
    served = start_runner(tmp_path, "--manifest", str(baked), "--endpoint-root", str(folder))
    assert served.run("echo", {"prompt": "baked"}).json()["output"] == {"text": "baked"}
