"""Functions that misbehave: each of their runs ends once with a reason, and nothing else is affected. In the dev runner and on the wire."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import Runner, WorkerProcess, sse_events, write_project
from tests.misbehaving_project import CODE
from tests.waiting import eventually

from gen_worker.testing.loopback import LoopbackScheduler
from gen_worker.wire.messages import RunResult

Start = Callable[..., WorkerProcess]
NAN, INF = float("nan"), float("inf")
INTERNAL = ("internal", "internal error")
FAILURES = {
    "mute": INTERNAL,
    "cause": INTERNAL,
    "context": INTERNAL,
    "group": INTERNAL,
    "note": INTERNAL,
    "surrogate": INTERNAL,
    "value": ("validation", "bad \\udcff name"),
    "fields": ("validation", "x"),
    "fields of another kind": ("validation", "x"),
    "exit": INTERNAL,
    "interrupt": INTERNAL,
    "cancelled": INTERNAL,
    "stop": INTERNAL,
    "recursion": INTERNAL,
    "long": INTERNAL,
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("runner")
    # One slot: a run that keeps it would be noticed by the next.
    env = {"WORKER_MAX_CONCURRENCY": "1"}
    found = Runner(write_project(folder / "project", CODE), folder / "outputs", env=env)
    yield found
    assert found.stop() == 0


def memory_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("kind", FAILURES)
def test_an_exception_of_any_kind_ends_its_run_in_the_dev_runner(runner: Runner, kind: str) -> None:
    answer = runner.run("fail", {"kind": kind}).json()
    assert (answer["error_type"], answer["safe_message"]) == FAILURES[kind]
    assert runner.http.get("/v1/runs").status_code == 200
    assert runner.http.get(f"/v1/runs/{answer['run_id']}").json()["status"] == "failed"
    assert runner.run("echo", {"kind": "next"}).json()["output"]["text"] == "next"


async def test_an_exception_of_any_kind_ends_its_run_on_the_wire(start_worker: Start, project: Callable[..., Path]) -> None:
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(project(CODE), scheduler.address, WORKER_MAX_CONCURRENCY="1")
        await scheduler.worker()

        async def result(function: str, payload: Any) -> RunResult:
            run = await scheduler.start_run(function, payload)
            found = await run.result(60)
            await scheduler.until(lambda: run.results == [found])
            assert [event.event_type for event in run.events][-1] in ("task.completed", "metrics.compute.completed")
            return found

        for kind, expected in FAILURES.items():
            found = await result("fail", {"kind": kind})
            assert (found.error_type, found.safe_message) == expected
        for payload in (
            {"steps": NAN},
            {"steps": INF},
            {"width": -INF},
            {"steps": 1e300},
            {"kind": "steps"},
            {"kind": "upload nan"},
            {"kind": "upload text"},
        ):
            assert (await result("measured", payload)).success, payload
        for kind in ("stop", "close", "cancel itself", "cancel all", "exit in a task", "factory"):
            found = await result("loops", {"kind": kind})
            assert found.success == (kind in ("stop", "exit in a task", "factory")), (kind, found)
            assert found.error_type in ("", "internal")
            if kind == "factory":
                found = await result("aecho", {"kind": "x"})
                assert found.error_type == "internal"
                continue
            assert await scheduler.call("aecho", {"kind": "next"}, timeout_s=60) == {"text": "next", "value": None}
        assert scheduler.stale == []
        assert len(worker.logged("run.async_loop_interrupted")) >= 2


@pytest.mark.parametrize("kind", ["steps", "upload nan", "upload text"])
def test_odd_numbers_are_no_metrics_and_no_failure(runner: Runner, kind: str) -> None:
    answer = runner.run("measured", {"kind": kind}).json()
    assert answer["success"]
    (metrics,) = [event["payload"] for event in answer["events"] if event["event_type"] == "metrics.run"]
    assert "upload_ms" not in metrics
    assert ("steps" in metrics) == (kind != "steps")


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("give", "nan", "returned a Out with nan at `$.value`, which JSON cannot carry; give None or a number"),
        ("give", "type", "returned a Out that is not as declared: Expected `str`, got `int` - at `$.text`"),
        ("give", "none", "returned NoneType; declared is Out"),
        ("stream", "nan", "yielded a Out with inf at `$.value`, which JSON cannot carry; give None or a number"),
        ("stream", "returns", "returned Out at the end of a stream of Out; yield it as the last item instead"),
    ],
)
async def test_outputs_are_checked_alike_everywhere(
    runner: Runner, start_worker: Start, project: Callable[..., Path], function: str, kind: str, message: str
) -> None:
    answer = runner.run(function, {"kind": kind}).json()
    assert (answer["code"], answer["safe_message"]) == ("bad_output", message)
    async with LoopbackScheduler() as scheduler:
        start_worker(project(CODE), scheduler.address)
        await scheduler.worker()
        found = await (await scheduler.start_run(function, {"kind": kind})).result()
        assert (found.error_type, found.safe_message) == ("fatal", message)


def test_events_after_the_end_are_dropped_in_the_dev_runner(runner: Runner) -> None:
    run_id = runner.run("late", {"count": 3}).json()["run_id"]
    with runner.http.stream("GET", f"/v1/runs/{run_id}/events") as response:
        response.read()
        seen = list(sse_events(response))
    assert seen[-1][1] == "done"
    numbers = [seq for seq, _, _ in seen]
    assert numbers == sorted(set(numbers)), "the number of `done` is nobody else's"
    assert runner.http.get(f"/v1/runs/{run_id}/events", headers={"last-event-id": str(numbers[-1])}).status_code == 204
    assert not [data for _, _, data in seen if "custom.late" in json.dumps(data)][1:], "at most what came before the end"
    before = memory_bytes(runner.process.pid)
    for _ in range(20):
        assert runner.run("late", {"count": 40}).json()["success"]
    assert memory_bytes(runner.process.pid) - before < 60 << 20


async def test_events_after_the_end_are_dropped_on_the_wire(start_worker: Start, project: Callable[..., Path]) -> None:
    async with LoopbackScheduler() as scheduler:
        folder = project(CODE)
        start_worker(folder, scheduler.address)
        await scheduler.worker()
        run = await scheduler.start_run("late", {"count": 5}, run_id="late")
        await run.result()
        last = run.events[-1].event_type
        await eventually(lambda: (folder / "late-late").exists())  # the function's thread has said everything
        await scheduler.call("echo", {})
        assert (last, run.events[-1].event_type) == ("task.completed", "task.completed")
        assert len(run.of_type("custom.late")) <= 1


async def test_a_flood_of_events_is_bounded_and_loses_no_result(start_worker: Start, project: Callable[..., Path]) -> None:
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(project(CODE), scheduler.address)
        await scheduler.worker()
        await scheduler.call("flood", {"count": 10})
        before = memory_bytes(worker.process.pid)
        assert (await scheduler.call("flood", {"count": 2000}, timeout_s=60))["text"] == "ok"
        assert memory_bytes(worker.process.pid) - before < 80 << 20, "200 MB were emitted"


def test_an_author_cannot_speak_for_the_worker(runner: Runner) -> None:
    answer = runner.run("reserved").json()
    assert not [event for event in answer["events"] if "forged" in event["payload"]]
    assert [event["payload"]["output_tokens"] for event in answer["events"] if event["event_type"] == "metrics.tokens"] == [3]
    assert "the event task.completed is the worker's own" in runner.log.read_text()


@pytest.mark.parametrize("function", ["context", "acontext"])
def test_each_run_has_a_context_of_its_own(runner: Runner, function: str) -> None:
    assert {runner.run(function).json()["output"]["text"] for _ in range(6)} == {"nobody 28"}


def test_a_result_that_no_message_can_carry_is_no_completed_run(start_worker: Start, project: Callable[..., Path]) -> None:
    async def main() -> None:
        async with LoopbackScheduler() as scheduler:
            start_worker(project(CODE), scheduler.address, WORKER_MAX_MESSAGE_BYTES="100000")
            await scheduler.worker()
            run = await scheduler.start_run("echo", {"kind": "x" * 90_000})
            found = await run.result()
            assert found.error_type == "validation"
            assert "WORKER_MAX_MESSAGE_BYTES" in found.safe_message
            assert run.of_type("task.completed") == []
            assert run.of_type("task.failed")[0]["error_type"] == "validation"

    asyncio.run(main())


def test_a_blocked_event_loop_is_left_when_its_run_ends(runner: Runner) -> None:
    # The last to use this runner: what blocks its loop here goes on for half a minute.
    answer = runner.run("loops", {"kind": "block", "steps": 30.0}, timeout_ms=200).json()
    assert answer["code"] == "timeout"
    # The blocked function keeps its slot, as one that ignores its cancel does, so another process is asked whether the next one runs.
    runner.until(lambda: "run.async_loop_left" in runner.log.read_text())


async def test_async_functions_run_while_one_blocks_the_loop_that_was_theirs(start_worker: Start, project: Callable[..., Path]) -> None:
    async with LoopbackScheduler() as scheduler:
        start_worker(project(CODE), scheduler.address)
        await scheduler.worker()
        blocked = await scheduler.start_run("loops", {"kind": "block", "steps": 60.0}, timeout_ms=200)
        waiting = await scheduler.start_run("aecho", {"kind": "waited"})
        assert (await blocked.result()).error_type == "fatal"
        # Both before the blocked loop is free again.
        assert msgspec.msgpack.decode((await waiting.result(50)).output)["text"] == "waited"
        assert (await scheduler.call("aecho", {"kind": "new"}, timeout_s=50))["text"] == "new"
