"""Schedulers with unusual limits and habits: small messages, short streams, a half-open connection. Real processes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import WorkerProcess
from tests.proxy import CuttingProxy
from tests.waiting import eventually
from tests.wire_project import CODE

from gen_worker.runtime.connection import ANSWER_TIMEOUT_S
from gen_worker.runtime.connection_parts import ConnectionPolicy
from gen_worker.testing.loopback import LoopbackScheduler
from gen_worker.transport.grpc_client import KEEPALIVE_TIMEOUT_MS

Start = Callable[..., WorkerProcess]
NOTICED_WITHIN_S = 15
GRPC_DEFAULT_BYTES = 4 << 20


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    return project(CODE)


@pytest.mark.parametrize("extensions", [True, False], ids=["extended", "plain"])
async def test_a_result_that_the_scheduler_does_not_take_becomes_a_small_failure(
    start_worker: Start, folder: Path, extensions: bool
) -> None:
    """The scheduler has gRPC's own limit of 4 MiB, of which the worker knows nothing."""
    async with LoopbackScheduler(extensions=extensions, hard_limit_bytes=GRPC_DEFAULT_BYTES) as scheduler:
        worker = start_worker(folder, scheduler.address)
        await scheduler.worker()
        around = [await scheduler.start_run("slow", {"seconds": 0.5}) for _ in range(3)]
        around += [await scheduler.start_run("echo", {"prompt": str(number)}) for number in range(20)]
        large = await scheduler.start_run("large", {"size": 6_000_000})
        around += [await scheduler.start_run("echo", {"prompt": str(number)}) for number in range(20)]
        result = await large.result()
        assert (result.success, result.error_type, result.retryable) == (False, "validation", False)
        assert "6000011 bytes" in result.safe_message
        assert "4194304" in result.safe_message
        assert "Save a file" in result.safe_message
        for run in around:
            assert (await run.result()).success
            assert len(run.results) == 1
        assert scheduler.streams == 2
        assert len(worker.logged("scheduler.message_too_large")) == 1
        # The worker has learned the limit: the next one is refused before it is sent, and what fits is sent.
        assert not (await (await scheduler.start_run("large", {"size": 5_000_000})).result()).success
        assert (await (await scheduler.start_run("large", {"size": 4_000_000})).result()).success
        assert scheduler.streams == 2
        assert scheduler.stale == []


async def test_a_delta_that_the_scheduler_does_not_take_fails_its_run_alone(start_worker: Start, project: Callable[..., Path]) -> None:
    code = """
class In(msgspec.Struct):
    size: int = 0

class Out(msgspec.Struct):
    text: str

@worker_function()
def stream(ctx: ActionContext, payload: In) -> Iterator[Out]:
    yield Out("first")
    yield Out("x" * payload.size)
    yield Out("last")
"""
    async with LoopbackScheduler(hard_limit_bytes=GRPC_DEFAULT_BYTES) as scheduler:
        start_worker(project(code), scheduler.address, WORKER_MAX_OUTPUT_DELTA_BYTES="10000000")
        await scheduler.worker()
        large, small = [await scheduler.start_run("stream", {"size": size}) for size in (5_000_000, 10)]
        result = await large.result()
        assert (result.success, result.error_type) == (False, "validation")
        assert (await small.result()).success


async def test_short_streams_are_redialled_without_growing_delays(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        settings = {"RECONNECT_DELAY": "1", "RECONNECT_MAX_DELAY": "60", "RECONNECT_JITTER_SECONDS": "0"}
        start_worker(folder, scheduler.address, **settings)
        for number, (code, details) in enumerate([("OK", ""), ("UNAVAILABLE", "restarting"), ("OK", ""), ("INTERNAL", "x"), ("OK", "")]):
            await scheduler.until(lambda number=number: scheduler.streams == number + 1 and bool(scheduler.workers))  # type: ignore[misc]
            await scheduler.end_streams(code, details)
        await scheduler.worker(10)  # doubling, they would be 16 s by now
        assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}


async def test_a_scheduler_that_ends_every_stream_keeps_nobody_from_another(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as restless, LoopbackScheduler() as other:
        restless.on_message = lambda message: [worker.close() for worker in restless.workers]
        start_worker(folder, restless.address, SCHEDULER_ADDRS=other.address, RECONNECT_DELAY="60", RECONNECT_JITTER_SECONDS="0")
        await other.worker(20)
        assert await other.call("echo", {"prompt": "x"}) == {"text": "x"}


def test_a_half_open_connection_is_noticed_in_time_by_its_settings() -> None:
    """What the waits add up to; the test below sees that they are kept."""
    assert ConnectionPolicy().heartbeat_s + ANSWER_TIMEOUT_S <= NOTICED_WITHIN_S
    assert ConnectionPolicy().heartbeat_s + KEEPALIVE_TIMEOUT_MS / 1000 <= NOTICED_WITHIN_S


async def test_both_ends_notice_a_half_open_connection(start_worker: Start, folder: Path) -> None:
    """The proxy keeps both connections open and passes nothing on: neither end's TCP knows."""
    async with LoopbackScheduler() as scheduler, CuttingProxy(scheduler.address) as proxy:
        worker = start_worker(folder, proxy.address)
        await scheduler.worker()
        run = await scheduler.start_run("slow", {"seconds": 1})
        await scheduler.until(lambda: bool(run.of_type("task.inference.started")))
        proxy.freeze()
        await scheduler.until(lambda: not scheduler.workers, 60)
        await eventually(lambda: worker.logged("scheduler.lost"))
        assert "heartbeats" in worker.logged("scheduler.lost")[0]["detail"]
        proxy.cut()
        proxy.thaw()
        assert await run.output() == {"text": "done"}
        assert len(run.results) == 1
