"""Functions that misbehave: what the caller reads, and that the dev runner keeps serving."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bad_input_project import CODE
from tests.conftest import Runner, sse_events, write_project


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("bad")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    found.stop()


def post(runner: Runner, function: str, body: bytes) -> tuple[int, dict]:
    response = runner.http.post(f"/v1/run/{function}", content=body, headers={"content-type": "application/json"})
    return response.status_code, response.json()


@pytest.mark.parametrize("function", ["leave", "aleave", "interrupt", "stop-iteration", "astop-iteration", "bug"])
def test_an_authors_exit_ends_the_run_not_the_runner(runner: Runner, function: str) -> None:
    response = runner.run(function)
    assert response.status_code == 500
    answer = response.json()
    assert (answer["error_type"], answer["safe_message"]) == ("internal", "internal error")
    assert "hunter2" not in answer["safe_message"]
    assert runner.run("echo").status_code == 200


def test_a_stray_tasks_exit_leaves_the_async_loop_running(runner: Runner) -> None:
    assert runner.run("aleave-by-task", timeout_ms=5000).status_code in (200, 500, 504)
    assert runner.run("aleave").json()["error_type"] == "internal"


@pytest.mark.parametrize("function", ["endless", "aendless"])
def test_an_endless_generator_that_nobody_reads_ends_by_itself(runner: Runner, function: str) -> None:
    response = runner.run(function)
    assert response.status_code == 503
    answer = response.json()
    assert answer["error_type"] == "resource"
    assert "read along with Accept: text/event-stream" in answer["error_message"]
    assert len(answer["events"]) <= 10_000


@pytest.mark.parametrize("function", ["endless", "aendless"])
def test_an_endless_generator_waits_for_its_reader(runner: Runner, function: str) -> None:
    with runner.http.stream("POST", f"/v1/run/{function}", json={}, headers={"accept": "text/event-stream"}) as response:
        run_id = response.headers["x-run-id"]
        events = sse_events(response)
        for _ in range(10):
            next(events)
        seen: list[str] = []

        def paused() -> bool:
            # What the kernel buffers for a slow reader is soon full; from then on the generator stands still.
            seen.append(runner.http.get(f"/v1/runs/{run_id}").headers["etag"])
            time.sleep(0.2)  # waits: between two looks; the last two alike, it stands
            return len(seen) > 1 and seen[-1] == seen[-2]

        runner.until(paused, timeout_s=30)
    assert runner.http.get(f"/v1/runs/{run_id}", params={"wait": 60}).json()["status"] == "canceled"
    runner.until(lambda: not runner.http.get("/v1/status").json()["threads_left"])


def test_a_huge_delta_is_an_error_not_a_silent_loss(runner: Runner) -> None:
    answer = runner.run("huge").json()
    assert answer["error_type"] == "fatal"
    assert "yielded an item of 100011 bytes; at most 65536 are allowed" in answer["error_message"]
    assert "output.error" in [event["event_type"] for event in answer["events"]]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("lies", "returned dict; declared is Out"),
        ("lies-in-a-stream", "yielded str; declared is Out"),
        ("returns-nothing-to-stream", "returned NoneType; declared is a stream of Out"),
        ("odd", "cannot be encoded"),
    ],
)
def test_outputs_that_are_not_what_was_declared(runner: Runner, function: str, message: str) -> None:
    response = runner.run(function, {"prompt": "x"})
    assert response.status_code == 500
    assert message in response.json()["error_message"]


def test_what_a_caller_reads_is_scrubbed(runner: Runner) -> None:
    assert runner.run("secret").json()["safe_message"] == "no Bearer <redacted> at <url> in <path>"


def test_an_event_flood_is_bounded(runner: Runner) -> None:
    response = runner.run("flood")
    assert len(response.json()["events"]) <= 10_000


def test_an_async_function_that_blocks_does_not_block_the_runner(runner: Runner, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    started = runner.http.post("/v1/run/blocks-the-loop", json={"prompt": str(gate)}, headers={"prefer": "respond-async"})
    runner.until(lambda: runner.http.get(started.headers["location"]).json()["status"] == "running")
    assert runner.http.get("/v1/status").status_code == 200
    gate.touch()
    assert runner.http.get(started.headers["location"], params={"wait": 60}).json()["status"] == "succeeded"


def test_a_missing_extra_is_named_with_its_command(runner: Runner) -> None:
    assert "pip install 'gen-worker[torch]'" in runner.run("device").text or "pip install 'gen-worker[torch]'" in runner.log.read_text()
