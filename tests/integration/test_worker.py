"""A real worker process and a scheduler: runs, refusals, limits, streams, cancels, time-outs, batches."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import WorkerProcess
from tests.waiting import eventually
from tests.wire_project import CODE

from gen_worker.testing.loopback import LoopbackScheduler, RunFailedError
from gen_worker.wire.messages import Event, RunCommand, RunResult

Start = Callable[..., WorkerProcess]
PLAIN_ORDER = [
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


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    return project(CODE)


@asynccontextmanager
async def served(
    start_worker: Start, folder: Path, *, extensions: bool = True, **env: str
) -> AsyncIterator[tuple[LoopbackScheduler, WorkerProcess]]:
    async with LoopbackScheduler(extensions=extensions) as scheduler:
        worker = start_worker(folder, scheduler.address, **env)
        await scheduler.worker()
        yield scheduler, worker


async def failure(scheduler: LoopbackScheduler, function: str, payload: Any = None, **options: Any) -> RunResult:
    with pytest.raises(RunFailedError) as raised:
        await scheduler.call(function, payload, **options)
    return raised.value.result


@pytest.mark.parametrize("extensions", [True, False], ids=["extended", "plain"])
async def test_a_run_from_end_to_end(start_worker: Start, folder: Path, extensions: bool) -> None:
    async with served(start_worker, folder, extensions=extensions) as (scheduler, _):
        run = await scheduler.start_run("echo", {"prompt": "kite"})
        assert await run.output() == {"text": "kite"}
        assert [event.event_type for event in run.events] == PLAIN_ORDER
        (metrics,) = run.of_type("metrics.run")
        assert metrics["schema_version"] == 1
        assert metrics["function_name"] == "echo"
        assert run.of_type("metrics.compute.started")[0]["at"].endswith("Z")
        assert await scheduler.call("aecho", {"prompt": "async"}) == {"text": "async"}
        assert scheduler.stale == []


@pytest.mark.parametrize("extensions", [True, False], ids=["extended", "plain"])
async def test_streams_arrive_whole_and_in_order(start_worker: Start, folder: Path, extensions: bool) -> None:
    async with served(start_worker, folder, extensions=extensions) as (scheduler, _):
        run = await scheduler.start_run("stream", {"count": 3000})
        assert [delta async for delta in run.deltas()] == [{"text": str(n)} for n in range(3000)]
        result = await run.result()
        assert (result.success, result.output) == (True, b"")
        kinds = [event.event_type for event in run.events]
        assert kinds.index("output.completed") > max(i for i, kind in enumerate(kinds) if kind == "output.delta")
        failed = await scheduler.start_run("fail-stream", {})
        assert (await failed.result()).error_type == "fatal"
        assert failed.of_type("output.error") == [{"error_type": "fatal", "message": "broken"}]
        assert [kind for kind in (event.event_type for event in failed.events) if kind.endswith(("failed", "error"))] == [
            "output.error",
            "task.failed",
            "task.inference.failed",
        ]


async def test_registration_says_what_the_worker_is(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder, WORKER_MAX_CONCURRENCY="7", WORKER_FAKE_GPU_COUNT="2", RUNPOD_POD_ID="pod-1") as (scheduler, _):
        registration = scheduler.workers[0].registrations[0]
        assert (registration.protocol_major, registration.protocol_minor, registration.is_heartbeat) == (1, 0, False)
        resources = registration.resources
        assert resources.worker_id == resources.release_id == ""
        assert resources.cpu_cores >= 1
        assert resources.memory_bytes > 1 << 28
        assert (resources.max_concurrency, resources.gpu_count, resources.runpod_pod_id) == (7, 2, "pod-1")
        assert resources.gpu_sm or (resources.gpu_name, resources.gpu_driver, resources.gpu_memory_bytes) == ("FakeGPU", "fake", 24 << 30)
        assert resources.function_concurrency == {"single": 1}
        assert resources.supports_model_loading
        assert set(resources.available_functions) >= {"echo", "stream", "fail-stream", "mirror"}
        schemas = {schema.name: schema for schema in resources.function_schemas}
        assert "mirror" not in schemas
        assert schemas["stream"].incremental_output
        assert schemas["stream"].delta_schema_json == schemas["stream"].output_schema_json != b""
        assert b'"prompt"' in schemas["echo"].input_schema_json
        assert msgspec.json.decode(schemas["echo"].injection_json) == []
        await scheduler.until(lambda: any(b'"ready"' in event.payload for event in scheduler.events))
        phases = [msgspec.json.decode(event.payload)["phase"] for event in scheduler.events if event.event_type == "worker.startup.phase"]
        checked = ["cache_preflight_started", "cache_preflight_ok"]
        assert phases == ["boot", "manifest_loaded", *checked, "scheduler_connecting", "registered", "ready"]


async def test_heartbeats_and_busy_gpu(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder, WORKER_HEARTBEAT_S="0.1", WORKER_FAKE_GPU_COUNT="1") as (scheduler, _):
        worker = scheduler.workers[0]
        await scheduler.until(lambda: len(worker.registrations) >= 4)
        assert [registration.is_heartbeat for registration in worker.registrations[:4]] == [False, True, True, True]
        assert not worker.resources.gpu_is_busy
        run = await scheduler.start_run("slow", {"seconds": 30})
        await scheduler.until(lambda: worker.resources.gpu_is_busy)
        assert worker.registrations[-1].active_run_ids == (run.run_id,)
        run.cancel()
        await run.result()
        await scheduler.until(lambda: not worker.resources.gpu_is_busy)


@pytest.mark.parametrize(
    ("kind", "error_type", "retryable", "safe"),
    [
        ("validation", "validation", False, "because of Bearer <redacted> at <path>"),
        ("value", "validation", False, "because of Bearer <redacted> at <path>"),
        ("retryable", "retryable", True, "because of Bearer <redacted> at <path>"),
        ("fatal", "fatal", False, "because of Bearer <redacted> at <path>"),
        ("exit", "internal", False, "internal error"),
        ("bug", "internal", False, "internal error"),
    ],
)
async def test_errors_on_the_wire(start_worker: Start, folder: Path, kind: str, error_type: str, retryable: bool, safe: str) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        result = await failure(scheduler, "fail", {"prompt": kind})
        assert (result.success, result.error_type, result.retryable, result.safe_message) == (False, error_type, retryable, safe)
        assert "because of" in result.error_message
        assert await scheduler.call("echo", {"prompt": "still here"}) == {"text": "still here"}


async def test_refusals(start_worker: Start, folder: Path) -> None:
    env = {"WORKER_MAX_CONCURRENCY": "2", "WORKER_MAX_INPUT_BYTES": "1000"}
    async with served(start_worker, folder, **env) as (scheduler, _):

        async def refused(function: str, payload: Any) -> tuple[str, bool, str, str]:
            run = await scheduler.start_run(function, payload)
            result = await run.result()
            assert [event.event_type for event in run.events] == ["task.received", "task.rejected"]
            return result.error_type, result.retryable, result.safe_message, run.of_type("task.rejected")[0]["reason"]

        assert await refused("nothing", {}) == ("internal", False, "internal error", "unknown_function")
        assert await refused("echo", {"prompt": "x" * 2000}) == ("validation", False, "invalid input", "input_too_large")
        one = await scheduler.start_run("single", {"seconds": 30})
        await scheduler.until(lambda: bool(one.of_type("task.inference.started")))
        assert await refused("single", {}) == ("retryable", True, "worker busy", "function_concurrency_reached")
        two = await scheduler.start_run("slow", {"seconds": 30})
        await scheduler.until(lambda: bool(two.of_type("task.inference.started")))
        assert await refused("echo", {}) == ("retryable", True, "worker busy", "max_concurrency_reached")
        one.cancel()
        two.cancel()
        assert (await one.result()).error_type == "canceled"
        assert (await two.result()).error_type == "canceled"
        assert await scheduler.call("echo", {"prompt": "free"}) == {"text": "free"}


async def test_a_duplicate_run_id_gets_no_second_result(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        run = await scheduler.start_run("slow", {"seconds": 0.3}, run_id="same")
        scheduler.workers[0].send(RunCommand("same", "echo", b"\x80"))
        await scheduler.until(lambda: bool(run.of_type("task.rejected")))
        assert run.of_type("task.rejected")[0]["reason"] == "duplicate_run_id"
        assert await run.output() == {"text": "done"}
        assert await scheduler.call("echo", {"prompt": "last"}) == {"text": "last"}  # a second result would have come before it
        assert len(run.results) == 1
        assert scheduler.stale == []


@pytest.mark.parametrize("function", ["slow", "deaf", "stream", "batch"])
async def test_cancel(start_worker: Start, folder: Path, function: str) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        run = await scheduler.start_run(function, {"seconds": 2.0, "count": 1000})
        await scheduler.until(lambda: bool(run.of_type("task.inference.started")))
        run.cancel()
        result = await run.result(1.5)
        assert (result.error_type, result.retryable, result.safe_message) == ("canceled", False, "canceled")
        scheduler.workers[0].send(RunCommand("after", "echo", b"\x80"))  # an interrupt of an unknown run changes nothing
        assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}


async def test_time_outs_are_enforced(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        result = await failure(scheduler, "deaf", {"seconds": 2.0}, timeout_ms=200)
        assert (result.error_type, result.retryable) == ("fatal", False)
        assert "timed out after 200 ms" in result.safe_message
        text = (await scheduler.call("who", {}, owner="o", invoker_id="i", timeout_ms=9000, run_id="r-1", required_models=("m",)))["text"]
        assert text == "r-1 o i 9000 ['m']"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (msgspec.msgpack.encode({"count": "three"}), "payload.count: expected int, got str"),
        (msgspec.msgpack.encode([1]), "payload: expected object, got array"),
        (b"\xc1", "payload is not valid msgpack"),
        (b"", "payload is not valid msgpack"),
        (b"\x81\xa1z" + b"\x91" * 100_000, "nested too deep"),
    ],
)
async def test_bad_payloads_fail_that_run_alone(start_worker: Start, folder: Path, payload: bytes, said: str) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        result = await failure(scheduler, "echo", payload)
        assert result.error_type == "validation"
        assert said in result.safe_message
        assert await scheduler.call("echo", {"prompt": "x", "unknown": 1}) == {"text": "x"}


async def test_messages_up_to_16_mib_and_beyond(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        prompt = "x" * (15 << 20)
        assert await scheduler.call("echo", {"prompt": prompt}) == {"text": prompt}
        result = await failure(scheduler, "large", {"size": 17 << 20})
        assert result.error_type == "validation"
        assert "WORKER_MAX_MESSAGE_BYTES" in result.safe_message
        # A scheduler that does not look at sizes: the run fails, the stream lives.
        run = await scheduler.start_run("echo", {"prompt": "x"}, run_id="beyond")
        await run.result()
        worker = scheduler.workers[0]
        worker.adopt(RunCommand("big", "echo"))
        big = scheduler._runs["big"] = type(run)(RunCommand("big", "echo"), lambda: None)
        worker.send(RunCommand("big", "echo", msgspec.msgpack.encode({"prompt": "x" * (18 << 20)})))
        refused = await big.result()
        assert (refused.error_type, refused.safe_message) == ("validation", "invalid input")
        assert scheduler.streams == 1


async def test_unknown_messages_are_ignored(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, worker):
        for event_type in ("worker.unheard_of", "worker.jwt.rotate"):
            scheduler.workers[0].send(Event("", event_type, b"{}"))
        scheduler.workers[0].send_raw(b"\xfa\x3f\x03abc")
        scheduler.workers[0].send_raw(b"\xff\xff not a message")
        assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}
        assert scheduler.streams == 1
        async with asyncio.timeout(60):
            await eventually(lambda: len(worker.logged("wire.ignored")) >= 2 and worker.logged("wire.undecodable"))


async def test_a_slow_reader_holds_up_the_stream_and_loses_nothing(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, _):
        run = await scheduler.start_run("stream", {"count": 60_000})
        seen = 0
        async for delta in run.deltas():
            assert delta == {"text": str(seen)}
            seen += 1
            if seen % 6000 == 0:
                await asyncio.sleep(0.05)  # waits: the reader is slow, which is what is tested
        assert seen == 60_000
        assert (await run.result()).success


async def test_a_flood_of_events_is_shed_and_counted_but_not_the_result(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder) as (scheduler, worker):
        run = await scheduler.start_run("chatty", {"count": 200_000})
        assert await run.output(60) == {"text": "done"}
        assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}
        ticks = [payload["n"] for payload in run.of_type("custom.tick")]
        assert ticks == sorted(ticks)
        if len(ticks) < 200_000:
            assert worker.logged("run.events_dropped") or scheduler.events


async def test_stuck_phases_are_reported_with_the_stack(start_worker: Start, folder: Path) -> None:
    async with served(start_worker, folder, WORKER_WARN_INFERENCE_S="0.2") as (scheduler, worker):
        run = await scheduler.start_run("deaf", {"seconds": 0.8}, run_id="stuck-run")
        assert await run.output() == {"text": "done"}
        (stuck,) = run.of_type("task.inference.stuck")
        assert stuck["phase"] == "inference"
        assert stuck["warn_after_s"] == 0.2
        assert 200 <= stuck["elapsed_ms"] < 800
        assert (stuck["function_name"], stuck["output_mode"]) == ("deaf", "single")
        assert "time.sleep(payload.seconds)" in stuck["stacks"][0]
        (line,) = worker.logged("task.inference.stuck")
        assert line["run_id"] == "stuck-run"


class TestBatches:
    async def test_runs_of_several_callers_share_a_call(self, start_worker: Start, folder: Path) -> None:
        async with served(start_worker, folder) as (scheduler, _):
            for function in ("batch", "abatch"):
                outputs = await asyncio.gather(*[scheduler.call(function, {"prompt": name}) for name in "abcd"])
                assert outputs == [{"text": f"{name} of 4"} for name in "abcd"]
            run = await scheduler.start_run("batch", {"prompt": "alone"})
            assert await run.output() == {"text": "alone of 1"}
            assert run.of_type("job.progress")[0]["stage"] == "alone"

    async def test_one_bad_item_fails_alone(self, start_worker: Start, folder: Path) -> None:
        async with served(start_worker, folder) as (scheduler, _):
            runs = [await scheduler.start_run("batch", {"prompt": name}) for name in ("a", "bad", "refused")]
            runs.append(await scheduler.start_run("batch", {"count": "no number"}))
            results = [await run.result() for run in runs]
            assert [result.error_type for result in results] == ["", "validation", "validation", "validation"]
            assert [result.safe_message for result in results[1:3]] == ["one of them is bad", "this one"]
            result = await failure(scheduler, "short", {})
            assert (result.error_type, "returned 0 items for 1 payloads" in result.error_message) == ("fatal", True)

    async def test_a_cancelled_item_leaves_the_queue(self, start_worker: Start, folder: Path) -> None:
        async with served(start_worker, folder) as (scheduler, _):
            busy = [await scheduler.start_run("batch", {"prompt": "busy", "seconds": 0.5}) for _ in range(4)]
            await scheduler.until(lambda: bool(busy[3].of_type("job.progress")))
            waiting = [await scheduler.start_run("batch", {"prompt": str(n)}) for n in range(3)]
            await scheduler.until(lambda: bool(waiting[2].of_type("task.inference.started")))
            waiting[1].cancel()
            assert (await waiting[1].result(0.4)).error_type == "canceled"
            assert [await run.output() for run in (waiting[0], waiting[2])] == [{"text": "0 of 2"}, {"text": "2 of 2"}]
            assert [await run.output() for run in busy] == [{"text": "busy of 4"}] * 4
