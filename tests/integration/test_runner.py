"""The dev HTTP runner in a process of its own: every route, and runs of every kind."""

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
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


def test_prefer_respond_async_then_poll(runner: Runner) -> None:
    response = runner.http.post("/v1/run/nap", json={"seconds": 0.3}, headers={"prefer": "respond-async"})
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    assert response.json()["status"] in ("queued", "running")
    location = response.headers["location"]
    finished = runner.http.get(location, params={"wait": 10})
    assert finished.json()["status"] == "succeeded"
    assert finished.json()["output"] == {"text": "slept"}
    assert runner.http.get(location, headers={"if-none-match": finished.headers["etag"]}).status_code == 304


def test_prefer_wait(runner: Runner) -> None:
    late = runner.http.post("/v1/run/nap", json={"seconds": 30}, headers={"prefer": "wait=0"})
    assert late.status_code == 202
    canceled = runner.http.post(late.headers["location"] + "/cancel")
    assert canceled.json()["status"] == "canceled"
    soon = runner.http.post("/v1/run/echo", json={"prompt": "x"}, headers={"prefer": "wait=9"})
    assert soon.status_code == 200
    assert soon.headers["preference-applied"] == "wait=9"


def test_cancel_is_idempotent_and_a_final_state_never_changes(runner: Runner) -> None:
    location = runner.http.post("/v1/run/nap", json={"seconds": 30}, headers={"prefer": "respond-async"}).headers["location"]
    assert runner.http.post(location + "/cancel").json()["status"] == "canceled"
    assert runner.http.post(location + "/cancel").json()["status"] == "canceled"
    done = runner.run("echo", {"prompt": "x"}).json()["run_id"]
    assert runner.http.post(f"/v1/runs/{done}/cancel").json()["status"] == "succeeded"


def test_a_waiting_caller_that_leaves_cancels_its_run_unless_told_otherwise(runner: Runner) -> None:
    for option, status in (({}, "canceled"), ({"cancel_on_disconnect": False}, "succeeded")):
        run_id = f"left-{status}"
        body = {"payload": {"seconds": 0.8}, "run_id": run_id, **option}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{runner.url}/v1/run/nap", json=body, timeout=0.25, trust_env=False)
        assert runner.http.get(f"/v1/runs/{run_id}", params={"wait": 5}).json()["status"] == status


def test_a_stream_whose_reader_leaves_is_canceled(runner: Runner) -> None:
    with runner.http.stream(
        "POST", "/v1/run/awords", json={"n": 1000, "seconds": 0.01}, headers={"accept": "text/event-stream"}
    ) as response:
        run_id = response.headers["x-run-id"]
        next(response.iter_lines())
    assert runner.http.get(f"/v1/runs/{run_id}", params={"wait": 5}).json()["status"] == "canceled"


def test_deadlines_end_a_run_whose_author_never_looks(runner: Runner) -> None:
    response = runner.run("stubborn", {"seconds": 1.5}, timeout_ms=200)
    assert response.status_code == 504
    answer = response.json()
    assert (answer["error_type"], answer["code"], answer.get("retryable", False)) == ("fatal", "timeout", False)
    assert answer["safe_message"] == "timed out after 200 ms"
    assert answer["timing_ms"]["total_ms"] < 1000
    left = runner.http.get("/v1/status").json()["threads_left"]
    assert [thread["function"] for thread in left] == ["stubborn"]
    runner.until(lambda: not runner.http.get("/v1/status").json()["threads_left"])
    runner.until(lambda: "run.thread_returned" in runner.log.read_text())


def test_status_answers_while_runs_work_and_runs_never_mix(runner: Runner) -> None:
    answers: dict[str, dict] = {}

    def one(name: str) -> None:
        answers[name] = httpx.post(
            f"{runner.url}/v1/run/words", json={"payload": {"prompt": f"{name} " * 20}}, timeout=30, trust_env=False
        ).json()

    napping = runner.http.post("/v1/run/nap", json={"seconds": 30}, headers={"prefer": "respond-async"})
    threads = [threading.Thread(target=one, args=(f"w{number}",)) for number in range(16)]
    for thread in threads:
        thread.start()
    status = runner.http.get("/v1/status").json()
    assert status["ok"] is True
    assert status["runs"]["active"] >= 1
    for thread in threads:
        thread.join()
    for name, answer in answers.items():
        deltas = [event["payload"]["chunk"] for event in answer["events"] if event["event_type"] == "output.delta"]
        assert deltas == [name] * 20
        assert {event["run_id"] for event in answer["events"]} == {answer["run_id"]}
    runner.http.post(napping.headers["location"] + "/cancel")


def test_runs_beyond_a_functions_limit_wait_in_order(runner: Runner) -> None:
    first = runner.http.post("/v1/run/alone", json={"seconds": 30}, headers={"prefer": "respond-async"}).headers["location"]
    second = runner.http.post("/v1/run/alone", json={"prompt": "2"}, headers={"prefer": "respond-async"}).headers["location"]
    third = runner.http.post("/v1/run/alone", json={"prompt": "3"}, headers={"prefer": "respond-async"}).headers["location"]
    assert runner.http.get(second).json()["status"] == "queued"
    assert runner.http.post(third + "/cancel").json()["status"] == "canceled"
    runner.http.post(first + "/cancel")
    assert runner.http.get(second, params={"wait": 5}).json()["output"] == {"text": "2"}


def test_a_slot_is_held_until_the_authors_code_has_returned(runner: Runner) -> None:
    timed_out = runner.run("alone-and-stubborn", {"seconds": 1.2}, timeout_ms=100)
    assert timed_out.json()["code"] == "timeout"
    waiting = runner.http.post("/v1/run/alone-and-stubborn", json={"prompt": "next"}, headers={"prefer": "respond-async"})
    assert waiting.json()["status"] == "queued"
    assert runner.http.get(waiting.headers["location"], params={"wait": 5}).json()["output"] == {"text": "next"}


@pytest.mark.parametrize("function", ["aecho", "awords", "nap", "words"])
def test_runs_canceled_at_once_give_their_slots_back(runner: Runner, function: str) -> None:
    for _ in range(20):
        body = {"prompt": "x", "seconds": 30}
        location = runner.http.post(f"/v1/run/{function}", json=body, headers={"prefer": "respond-async"}).headers["location"]
        runner.http.post(location + "/cancel")
    runner.until(lambda: runner.http.get("/v1/status").json()["runs"] == {"active": 0, "queued": 0})


def test_saved_files_are_listed_and_served_with_range(runner: Runner) -> None:
    answer = runner.run("save", {"prompt": "0123456789"}).json()
    (file,) = answer["files"]
    assert file["ref"] == f"runs/{answer['run_id']}/outputs/a b.png"
    assert (runner.outputs / file["ref"]).read_bytes().endswith(b"0123456789")
    whole = runner.http.get(file["url"])
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = runner.http.get(file["url"], headers={"range": "bytes=8-11"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"0123", "bytes 8-11/18")
    assert runner.http.get(file["url"], headers={"range": "bytes=99-"}).status_code == 416
    assert runner.http.head(file["url"]).headers["content-length"] == "18"
    assert runner.http.get("/v1/files/runs/nope.png").json()["error"] == "unknown_file"
    for escape in ("../runner.log", "%2e%2e/runner.log", "runs/../../runner.log", "/etc/passwd"):
        assert runner.http.get(f"/v1/files/{escape}").status_code == 404


def test_raw_bytes_when_the_only_output_is_one_file(runner: Runner) -> None:
    response = runner.http.post("/v1/run/save", json={"prompt": "x"}, headers={"accept": "image/png"})
    assert response.content == b"\x89PNG\r\n\x1a\nx"
    assert response.headers["content-type"] == "image/png"


def test_input_files_by_data_uri_multipart_and_earlier_output(runner: Runner) -> None:
    png = b"\x89PNG\r\n\x1a\nabcd"
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    expected = "image/png 12 "
    by_uri = runner.run("look", {"image": {"ref": uri}}).json()["output"]["text"]
    assert by_uri.startswith(expected)
    assert by_uri.endswith("abcd")
    by_part = runner.http.post("/v1/run/look", files={"image": ("x.png", png, "image/png")}, data={"prompt": "7", "n": "4"})
    assert by_part.json()["output"]["text"] == by_uri
    listed = runner.http.post(
        "/v1/run/look", files=[("images[0]", ("a.png", png)), ("images[1]", ("b.txt", b"text"))], data={"payload": '{"prompt":"x"}'}
    ).json()
    assert listed["output"]["text"].startswith(by_uri + " text/plain 4 ")
    saved = runner.run("save", {"prompt": "wxyz"}).json()["output"]["text"]
    assert runner.run("look", {"image": {"ref": saved}}).json()["output"]["text"].endswith("wxyz")


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
    page = runner.http.get("/docs")
    assert "text/html" in page.headers["content-type"]
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert runner.http.get("/docs/page.js").status_code == 200
    assert runner.http.get("/docs/app.py").status_code == 404


def test_many_disconnects_leave_nothing_behind(runner: Runner) -> None:
    async def leave() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(f"{runner.url}/v1/run/nap", json={"seconds": 60}, timeout=0.2)

    async def many() -> None:
        await asyncio.gather(*[leave() for _ in range(20)])

    asyncio.run(many())
    runner.until(lambda: runner.http.get("/v1/status").json()["runs"] == {"active": 0, "queued": 0})


def test_a_baked_manifest_is_served(project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    folder = project(CODE)
    import subprocess
    import sys

    baked = tmp_path / "manifest.json"
    baked.write_bytes(subprocess.run([sys.executable, "-m", "gen_worker.discover"], cwd=folder, capture_output=True, check=True).stdout)
    served = start_runner(tmp_path, "--manifest", str(baked), "--endpoint-root", str(folder))
    assert served.run("echo", {"prompt": "baked"}).json()["output"] == {"text": "baked"}


def test_a_batch_function_gathers_callers(project: Callable[..., Path], start_runner: Callable[..., Runner]) -> None:
    code = """
class In(msgspec.Struct):
    prompt: str

class Out(msgspec.Struct):
    text: str

@worker_function(batch=Batch(max_size=4, max_wait_ms=100))
def together(ctx: ActionContext, payloads: list[In]) -> list[Out]:
    for item in ctx.items:
        item.save_bytes(f"runs/{item.run_id}/outputs/it", b"x")
    return [Out(f"{p.prompt} of {len(payloads)}") for p in payloads]
"""
    runner = start_runner(project(code, "[functions.together]\nbatch = { max_size = 3 }\n"))

    async def all_at_once() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=runner.url, trust_env=False) as http:
            answers = await asyncio.gather(*[http.post("/v1/run/together", json={"prompt": name}) for name in "abc"])
            return [answer.json() for answer in answers]

    answers = asyncio.run(all_at_once())
    assert [answer["output"] for answer in answers] == [{"text": f"{name} of 3"} for name in "abc"]
    assert runner.run("together", {"prompt": 3}).status_code == 400
    assert len(list(runner.outputs.glob("runs/*/outputs/it"))) == 3
