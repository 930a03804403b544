"""Faults of networks and schedulers, and how a worker reacts. Real processes, real sockets."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import WorkerProcess
from tests.proxy import CuttingProxy
from tests.waiting import eventually
from tests.wire_project import CODE

from gen_worker.testing.loopback import LoopbackScheduler
from gen_worker.transport.stream import not_leader
from gen_worker.wire.messages import Event

Start = Callable[..., WorkerProcess]


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    return project(CODE)


async def said_before(scheduler: LoopbackScheduler) -> None:
    """All that the worker had to say: a stream keeps its order, so whatever it sends again comes before an answer to a later call."""
    assert await scheduler.call("echo", {"prompt": "last"}) == {"text": "last"}


async def exchange_bytes(scheduler: LoopbackScheduler) -> None:
    run = await scheduler.start_run("stream", {"count": 20})
    assert len([delta async for delta in run.deltas()]) == 20


@pytest.mark.parametrize("extensions", [True, False], ids=["extended", "plain"])
async def test_a_clean_end_and_an_error_both_reconnect(start_worker: Start, folder: Path, extensions: bool) -> None:
    async with LoopbackScheduler(extensions=extensions) as scheduler:
        start_worker(folder, scheduler.address)
        await scheduler.worker()
        for number, (code, details) in enumerate([("OK", ""), ("UNAVAILABLE", "away"), ("INTERNAL", "broken"), ("CANCELLED", "")], start=2):
            await scheduler.end_streams(code, details)
            worker = await scheduler.worker(10)
            assert scheduler.streams == number
            assert not worker.registrations[0].is_heartbeat  # of this stream: the one before may still have told of a heartbeat
            assert await scheduler.call("echo", {"prompt": code}) == {"text": code}


async def test_a_killed_worker_is_gone_at_once(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        for _ in range(5):
            worker = start_worker(folder, scheduler.address)
            await scheduler.worker()
            worker.process.kill()
            await scheduler.until(lambda: not scheduler.workers)


@pytest.mark.parametrize("extensions", [True, False], ids=["extended", "plain"])
async def test_a_run_survives_a_dropped_connection(start_worker: Start, folder: Path, extensions: bool) -> None:
    async with LoopbackScheduler(extensions=extensions) as scheduler, CuttingProxy(scheduler.address) as proxy:
        start_worker(folder, proxy.address)
        await scheduler.worker()
        run = await scheduler.start_run("slow", {"seconds": 0.5})
        await scheduler.until(lambda: bool(run.of_type("task.inference.started")))
        proxy.cut()
        assert await run.output(10) == {"text": "done"}
        await said_before(scheduler)
        assert len(run.results) == 1
        assert scheduler.stale == []
        assert len(run.of_type("task.started")) == 1


async def test_a_stream_reset_anywhere_loses_and_repeats_nothing(start_worker: Start, folder: Path) -> None:
    """Cut after every 60th byte that the worker sends, over a whole exchange: in messages, between them, before and after the result."""
    async with LoopbackScheduler() as scheduler, CuttingProxy(scheduler.address) as proxy:
        start_worker(folder, proxy.address, RECONNECT_DELAY="0.02", RECONNECT_MAX_DELAY="0.02", RECONNECT_JITTER_SECONDS="0")
        await scheduler.worker()
        for cut_after in range(0, 3600, 60):
            proxy.cut_after = cut_after
            proxy.cut()
            run = await scheduler.start_run("stream", {"count": 10}, run_id=f"cut-{cut_after}")
            assert [delta async for delta in run.deltas()] == [{"text": str(n)} for n in range(10)]
            assert len(run.results) == 1
            assert len(run.of_type("task.started")) <= 1  # events may be shed, a second start may not be
        await said_before(scheduler)
        assert scheduler.stale == []
        assert all(len(run.results) == 1 for run in scheduler.runs.values())


async def test_100_reconnects_under_load(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as scheduler, CuttingProxy(scheduler.address) as proxy:
        worker = start_worker(folder, proxy.address, RECONNECT_DELAY="0.02", RECONNECT_MAX_DELAY="0.02", RECONNECT_JITTER_SECONDS="0")
        await scheduler.worker()
        runs = []

        async def load() -> None:
            while True:
                runs.append(await scheduler.start_run("echo", {"prompt": str(len(runs))}))
                await asyncio.sleep(0.002)  # waits: the load's rate, not a result

        loading = asyncio.create_task(load())
        threads = []
        for number in range(100):
            streams = scheduler.streams
            proxy.cut()
            await eventually(lambda streams=streams: scheduler.streams != streams and scheduler.workers)
            if number in (20, 99):
                status = Path(f"/proc/{worker.process.pid}/status").read_text()
                threads.append(int(status.split("Threads:")[1].split()[0]))
        loading.cancel()
        for number, run in enumerate(runs):
            assert await run.output(10) == {"text": str(number)}
            assert len(run.results) == 1
        assert scheduler.stale == []
        assert threads[1] <= threads[0] + 20, (
            "a leak would be one for each of 79 streams; functions take some threads more on a busy machine"
        )


async def test_a_half_open_connection_is_noticed(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as scheduler, CuttingProxy(scheduler.address) as proxy:
        worker = start_worker(folder, proxy.address, WORKER_HEARTBEAT_S="0.1")
        await scheduler.worker()
        run = await scheduler.start_run("slow", {"seconds": 0.3})
        await scheduler.until(lambda: bool(run.of_type("task.inference.started")))
        proxy.freeze()
        await eventually(lambda: worker.logged("scheduler.lost"))
        proxy.cut()
        proxy.thaw()
        assert await run.output(10) == {"text": "done"}
        assert len(run.results) == 1
        assert "heartbeats" in worker.logged("scheduler.lost")[0]["detail"]


async def test_a_stopped_worker_goes_on_where_it_was(start_worker: Start, folder: Path) -> None:
    """SIGSTOP for longer than several heartbeats, then SIGCONT: the stream is as good as before."""
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(folder, scheduler.address, WORKER_HEARTBEAT_S="0.2")
        await scheduler.worker()
        worker.process.send_signal(signal.SIGSTOP)
        run = await scheduler.start_run("echo", {"prompt": "awake"})
        await asyncio.sleep(3)  # waits: 15 heartbeats; the silence is what is tested
        worker.process.send_signal(signal.SIGCONT)
        assert await run.output(10) == {"text": "awake"}
        assert scheduler.streams == 1


@pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="30 seconds; set SLOW_TESTS=1")
async def test_a_worker_stopped_for_30_s_goes_on(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(folder, scheduler.address)
        await scheduler.worker()
        worker.process.send_signal(signal.SIGSTOP)
        run = await scheduler.start_run("echo", {"prompt": "awake"})
        await asyncio.sleep(30)  # waits: the silence is what is tested
        worker.process.send_signal(signal.SIGCONT)
        assert await run.output(10) == {"text": "awake"}


async def test_a_scheduler_that_restarts_on_the_same_port(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(folder, scheduler.address)
        await scheduler.worker()
        run = await scheduler.start_run("slow", {"seconds": 0.6}, run_id="before")
        await scheduler.until(lambda: bool(run.of_type("task.inference.started")))
        address = scheduler.address
    await eventually(lambda: worker.logged("scheduler.connect_failed"))  # the worker has found nobody there
    async with LoopbackScheduler(address) as again:
        await again.worker(10)
        # The new scheduler knows nothing of the run; its result comes all the same, once.
        await eventually(lambda: again.stale)
        assert await again.call("echo", {"prompt": "x"}) == {"text": "x"}
        assert again.stale == ["before"]
        assert worker.logged("scheduler.reconnected")


async def test_seeds_are_walked_and_a_scheduler_moves_to_another_port(start_worker: Start, folder: Path) -> None:
    dead = "127.0.0.1:1"
    async with LoopbackScheduler() as one, LoopbackScheduler() as two:
        start_worker(folder, dead, SCHEDULER_ADDRS=f" {dead},, {one.address} ,{two.address}", RECONNECT_DELAY="30", RECONNECT_MAX_DELAY="0")
        await one.worker(10)
        await one.stop()
        await two.worker(10)
        assert await two.call("echo", {"prompt": "x"}) == {"text": "x"}


async def test_the_leader_is_followed(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as follower, LoopbackScheduler() as leader:
        follower.reject_with = not_leader(leader.address)
        start_worker(folder, follower.address, RECONNECT_DELAY="30", RECONNECT_MAX_DELAY="0")
        await leader.worker(10)
        assert await leader.call("echo", {"prompt": "x"}) == {"text": "x"}
        assert follower.streams == 1
        # The named leader has joined the seeds: once a stream has lived, it is found again without asking the follower.
        await asyncio.sleep(1.2)  # waits: STABLE_S, after which a stream has lived
        await leader.end_streams()
        await leader.worker(10)
        assert follower.streams == 1


async def test_schedulers_that_name_each_other_are_not_hammered(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as one, LoopbackScheduler() as two:
        one.reject_with = not_leader(two.address)
        two.reject_with = not_leader(one.address)
        start_worker(folder, one.address, RECONNECT_DELAY="30", RECONNECT_MAX_DELAY="0")
        async with asyncio.timeout(60):
            await eventually(lambda: one.streams + two.streams >= 6)
        await asyncio.sleep(1)  # waits: that nothing comes; without the pause it would be hundreds
        assert one.streams + two.streams == 6, "one of the two, five hints, then a pause"


async def test_a_leader_without_an_address_is_a_plain_failure(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        scheduler.reject_with = not_leader("")
        worker = start_worker(folder, scheduler.address)
        await eventually(lambda: scheduler.streams >= 3)
        assert worker.process.poll() is None


async def test_a_dead_address_is_backed_off_from_and_the_watchdog_fires(start_worker: Start, folder: Path) -> None:
    async with CuttingProxy("127.0.0.1:1") as nobody:
        began_s = time.monotonic()
        worker = start_worker(folder, nobody.address, RECONNECT_DELAY="0.2", RECONNECT_MAX_DELAY="0", WORKER_REGISTER_TIMEOUT_S="2")
        assert await worker.ended(20) == 1
        assert 2 <= time.monotonic() - began_s < 8
        assert nobody.connections < 12
        phases = [line["phase"] for line in worker.logged("worker.startup.phase")]
        assert phases[:2] == ["boot", "manifest_loaded"]
        assert phases[4] == "scheduler_connecting"
        assert "scheduler_connect_failed" in phases
        assert phases[-1] == "startup_timeout_unregistered"
        (fatal,) = worker.logged("worker.fatal")
        assert (fatal["exception_class"], fatal["exit_code"]) == ("RegisterTimeoutError", 1)
        assert "startup_timeout_unregistered" in fatal["exception_message"]


async def test_a_scheduler_that_takes_and_drops_is_backed_off_from(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        scheduler.reject_with = ("UNAVAILABLE", "not now")
        start_worker(folder, scheduler.address, RECONNECT_DELAY="0.3", RECONNECT_MAX_DELAY="0")
        async with asyncio.timeout(60):
            await eventually(lambda: scheduler.streams >= 2)
        await asyncio.sleep(2)  # waits: that little comes; without the pauses it would be hundreds
        assert scheduler.streams <= 5


async def test_giving_up_after_the_allowed_attempts(start_worker: Start, folder: Path) -> None:
    worker = start_worker(folder, "127.0.0.1:1", MAX_RECONNECT_ATTEMPTS="3")
    assert await worker.ended() == 1
    assert "no scheduler in 3 rounds over 127.0.0.1:1" in worker.log


async def test_an_incompatible_protocol_ends_the_worker(start_worker: Start, folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        scheduler.reject_with = ("FAILED_PRECONDITION", "unsupported_worker_protocol:1.0 supported=2:0-5")
        worker = start_worker(folder, scheduler.address)
        assert await worker.ended() == 1
        assert scheduler.streams == 1
        assert "scheduler_protocol_incompatible" in [line["phase"] for line in worker.logged("worker.startup.phase")]
        assert "supported=2:0-5" in worker.log


async def test_a_refused_token_is_retried_with_the_rotated_one(start_worker: Start, folder: Path) -> None:
    accepted = {"test-token"}
    seen = []

    def authorize(token: str) -> bool:
        seen.append(token)
        return token in accepted

    async with LoopbackScheduler(authorize=authorize) as scheduler:
        worker = start_worker(folder, scheduler.address)
        await scheduler.worker()
        scheduler.workers[0].send(Event("", "worker.jwt.rotate", b'{"worker_jwt":"rotated-token"}'))
        assert await scheduler.call("echo", {"prompt": "same stream"}) == {"text": "same stream"}
        assert scheduler.streams == 1
        accepted.clear()
        accepted.add("rotated-token")
        await scheduler.end_streams()
        await scheduler.worker(10)
        assert seen == ["test-token", "rotated-token"]
        # Expired: the worker keeps asking, with pauses, and says why it is not served.
        accepted.clear()
        await scheduler.end_streams()
        await eventually(lambda: len(seen) >= 5)
        accepted.add("rotated-token")
        await scheduler.worker(10)
        assert any("UNAUTHENTICATED" in line["detail"] for line in worker.logged("scheduler.connect_failed"))
        assert "rotated-token" not in worker.log
        assert "test-token" not in worker.log


class TestShutdown:
    async def test_sigterm_drains_and_delivers(self, start_worker: Start, folder: Path) -> None:
        async with LoopbackScheduler() as scheduler:
            worker = start_worker(folder, scheduler.address, WORKER_DRAIN_TIMEOUT_SECONDS="20")
            await scheduler.worker()
            runs = [await scheduler.start_run("slow", {"seconds": 0.5}) for _ in range(5)]
            await scheduler.until(lambda: all(run.of_type("task.inference.started") for run in runs))
            worker.process.send_signal(signal.SIGTERM)
            await eventually(lambda: worker.logged("worker.draining"))
            late = await scheduler.start_run("echo", {})
            result = await late.result()
            assert (result.error_type, result.retryable, late.of_type("task.rejected")[0]["reason"]) == (
                "retryable",
                True,
                "worker_draining",
            )
            assert [await run.output() for run in runs] == [{"text": "done"}] * 5
            assert await worker.ended() == 0

    @pytest.mark.parametrize("extensions", [True, False], ids=["extended", "plain"])
    async def test_what_is_left_is_cancelled_with_a_result(self, start_worker: Start, folder: Path, extensions: bool) -> None:
        async with LoopbackScheduler(extensions=extensions) as scheduler:
            worker = start_worker(folder, scheduler.address)
            await scheduler.worker()
            runs = [await scheduler.start_run(name, {"seconds": 30}) for name in ("slow", "deaf")]
            await scheduler.until(lambda: all(run.of_type("task.inference.started") for run in runs))
            worker.process.send_signal(signal.SIGTERM)
            for run in runs:
                result = await run.result(60)
                assert (result.error_type, result.retryable) == ("retryable", True)
                assert "shutting down" in result.safe_message
            assert await worker.ended() == 0

    async def test_results_are_delivered_after_a_reconnect_during_the_drain(self, start_worker: Start, folder: Path) -> None:
        async with LoopbackScheduler() as scheduler, CuttingProxy(scheduler.address) as proxy:
            worker = start_worker(folder, proxy.address, WORKER_DRAIN_TIMEOUT_SECONDS="20", RECONNECT_DELAY="30", RECONNECT_MAX_DELAY="0")
            await scheduler.worker()
            run = await scheduler.start_run("slow", {"seconds": 0.6})
            await scheduler.until(lambda: bool(run.of_type("task.inference.started")))
            worker.process.send_signal(signal.SIGTERM)
            await eventually(lambda: worker.logged("worker.draining"))
            proxy.cut()
            assert await run.output(10) == {"text": "done"}
            assert await worker.ended() == 0

    async def test_sigterm_while_dialling(self, start_worker: Start, folder: Path) -> None:
        async with CuttingProxy("127.0.0.1:1") as proxy:
            proxy.freeze()
            early = start_worker(folder, proxy.address)
            await eventually(lambda: "boot" in early.log)
            early.process.send_signal(signal.SIGTERM)
            assert await early.ended(5) == 0
            for address in (proxy.address, "127.0.0.1:1", "192.0.2.1:8080"):
                worker = start_worker(folder, address, RECONNECT_DELAY="60", RECONNECT_MAX_DELAY="0")
                await eventually(lambda worker=worker: "scheduler_connecting" in worker.log)
                worker.process.send_signal(signal.SIGTERM)
                assert await worker.ended(5) == 0

    async def test_a_second_signal_ends_it_now(self, start_worker: Start, folder: Path) -> None:
        async with LoopbackScheduler() as scheduler:
            worker = start_worker(folder, scheduler.address, WORKER_DRAIN_TIMEOUT_SECONDS="60")
            await scheduler.worker()
            run = await scheduler.start_run("slow", {"seconds": 30})
            await scheduler.until(lambda: bool(run.of_type("task.inference.started")))
            worker.process.send_signal(signal.SIGTERM)
            await eventually(lambda: worker.logged("worker.draining"))
            worker.process.send_signal(signal.SIGINT)
            assert await worker.ended(5) == 0
