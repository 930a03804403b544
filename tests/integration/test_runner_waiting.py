"""Runs of the dev runner that wait, are cancelled, time out, queue for a slot, or lose their caller."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Runner, write_project
from tests.runner_project import CODE

from gen_worker.execution.threads import REPORT_AFTER_S


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("runner")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    assert found.stop() == 0


def test_prefer_respond_async_then_poll(runner: Runner) -> None:
    response = runner.http.post("/v1/run/nap", json={"seconds": 0.3}, headers={"prefer": "respond-async"})
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    assert response.json()["status"] in ("queued", "running")
    location = response.headers["location"]
    finished = runner.http.get(location, params={"wait": 60})
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
    for option, status, seconds in (({}, "canceled", 60), ({"cancel_on_disconnect": False}, "succeeded", 0.8)):
        run_id = f"left-{status}"
        body = {"payload": {"seconds": seconds}, "run_id": run_id, **option}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{runner.url}/v1/run/nap", json=body, timeout=httpx.Timeout(60, read=0.25), trust_env=False)
        runner.until(lambda path=f"/v1/runs/{run_id}": runner.http.get(path).status_code == 200)
        assert runner.http.get(f"/v1/runs/{run_id}", params={"wait": 60}).json()["status"] == status


def test_a_stream_whose_reader_leaves_is_canceled(runner: Runner) -> None:
    with runner.http.stream(
        "POST", "/v1/run/awords", json={"n": 1000, "seconds": 0.01}, headers={"accept": "text/event-stream"}
    ) as response:
        run_id = response.headers["x-run-id"]
        next(response.iter_lines())
    assert runner.http.get(f"/v1/runs/{run_id}", params={"wait": 60}).json()["status"] == "canceled"


def test_deadlines_end_a_run_whose_author_never_looks(runner: Runner, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    response = runner.run("stubborn", {"seconds": 60, "prompt": str(gate)}, timeout_ms=200)
    assert response.status_code == 504
    answer = response.json()
    assert (answer["error_type"], answer["code"], answer.get("retryable", False)) == ("fatal", "timeout", False)
    assert answer["safe_message"] == "timed out after 200 ms"
    left = runner.http.get("/v1/status").json()["threads_left"]
    assert [thread["function"] for thread in left] == ["stubborn"]
    time.sleep(REPORT_AFTER_S)  # waits: only a thread that stays so long is reported
    gate.touch()
    runner.until(lambda: not runner.http.get("/v1/status").json()["threads_left"])
    runner.until(lambda: "run.thread_returned" in runner.log.read_text())


def test_status_answers_while_runs_work_and_runs_never_mix(runner: Runner) -> None:
    answers: dict[str, dict] = {}

    def one(name: str) -> None:
        answers[name] = httpx.post(
            f"{runner.url}/v1/run/words", json={"payload": {"prompt": f"{name} " * 20}}, timeout=60, trust_env=False
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
    assert runner.http.get(second, params={"wait": 60}).json()["output"] == {"text": "2"}


def test_a_slot_is_held_until_the_authors_code_has_returned(runner: Runner, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    timed_out = runner.run("alone-and-stubborn", {"seconds": 60, "prompt": str(gate)}, timeout_ms=100)
    assert timed_out.json()["code"] == "timeout"
    waiting = runner.http.post("/v1/run/alone-and-stubborn", json={"prompt": "next"}, headers={"prefer": "respond-async"})
    assert waiting.json()["status"] == "queued"
    gate.touch()
    assert runner.http.get(waiting.headers["location"], params={"wait": 60}).json()["output"] == {"text": "next"}


@pytest.mark.parametrize("function", ["aecho", "awords", "nap", "words"])
def test_runs_canceled_at_once_give_their_slots_back(runner: Runner, function: str) -> None:
    for _ in range(20):
        body = {"prompt": "x", "seconds": 30}
        location = runner.http.post(f"/v1/run/{function}", json=body, headers={"prefer": "respond-async"}).headers["location"]
        runner.http.post(location + "/cancel")
    runner.until(lambda: runner.http.get("/v1/status").json()["runs"] == {"active": 0, "queued": 0})


def test_many_disconnects_leave_nothing_behind(runner: Runner) -> None:
    async def leave() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(f"{runner.url}/v1/run/nap", json={"seconds": 60}, timeout=httpx.Timeout(60, read=0.2))

    async def many() -> None:
        await asyncio.gather(*[leave() for _ in range(20)])

    asyncio.run(many())
    runner.until(lambda: runner.http.get("/v1/status").json()["runs"] == {"active": 0, "queued": 0})


def test_a_batch_function_gathers_callers(project: Callable[..., Path], start_runner: Callable[..., Runner]) -> None:
    code = """
class In(msgspec.Struct):
    prompt: str

class Out(msgspec.Struct):
    text: str

@worker_function(batch=Batch(max_size=4, max_wait_ms=60_000))
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
