"""How programs end: by signals, by `stop`, and with author's code still running."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Runner, WorkerProcess
from tests.wire_project import CODE

from gen_worker.testing.loopback import LoopbackScheduler
from gen_worker.worker import Worker

LEFT = """
import concurrent.futures, multiprocessing, threading

class In(msgspec.Struct):
    how: str = ""

class Out(msgspec.Struct):
    text: str

POOL = concurrent.futures.ThreadPoolExecutor(1)

@worker_function()
def leave(ctx: ActionContext, payload: In) -> Out:
    if payload.how == "thread":
        threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
    if payload.how == "pool":
        POOL.submit(time.sleep, 600)
    if payload.how == "process":
        child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
        child.start()
        return Out(str(child.pid))
    return Out("left")

@worker_function()
async def aleave(ctx: ActionContext, payload: In) -> Out:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    return Out("left")
"""
WAYS = [("leave", "thread"), ("leave", "pool"), ("leave", "process"), ("aleave", "executor")]
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
ENDS_WITHIN_S = 30  # of a busy machine; what was left sleeps for 600
Start = Callable[..., WorkerProcess]


def is_gone(pid: str) -> bool:
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.parametrize(("function", "how"), WAYS, ids=[how for _, how in WAYS])
async def test_a_worker_ends_whatever_its_functions_have_left(
    start_worker: Start, project: Callable[..., Path], function: str, how: str
) -> None:
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(project(LEFT), scheduler.address)
        await scheduler.worker()
        said = await scheduler.call(function, {"how": how})
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.ended(ENDS_WITHIN_S) == 0
        assert worker.logged("process.left_running")
        if how == "process":
            assert is_gone(said["text"])


@pytest.mark.parametrize(("function", "how"), WAYS, ids=[how for _, how in WAYS])
def test_a_dev_runner_ends_whatever_its_functions_have_left(
    start_runner: Callable[..., Runner], project: Callable[..., Path], function: str, how: str
) -> None:
    runner = start_runner(project(LEFT))
    assert runner.run(function, {"how": how}).status_code == 200
    runner.http.close()
    runner.process.send_signal(signal.SIGTERM)
    assert runner.process.wait(ENDS_WITHIN_S) == 0


async def test_a_second_signal_does_not_wait_for_what_was_left(start_worker: Start, project: Callable[..., Path]) -> None:
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(project(LEFT), scheduler.address)
        await scheduler.worker()
        await scheduler.call("leave", {"how": "pool"})
        for _ in range(2):
            worker.process.send_signal(signal.SIGTERM)
        assert await worker.ended(ENDS_WITHIN_S) == 0


@pytest.mark.parametrize("number", SIGNALS, ids=[number.name for number in SIGNALS])
async def test_every_signal_drains_a_worker(start_worker: Start, project: Callable[..., Path], number: signal.Signals) -> None:
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(project(CODE), scheduler.address, WORKER_DRAIN_TIMEOUT_SECONDS="20")
        await scheduler.worker()
        run = await scheduler.start_run("slow", {"seconds": 0.5})
        await scheduler.until(lambda: bool(run.of_type("task.inference.started")))
        worker.process.send_signal(number)
        assert await run.output() == {"text": "done"}
        assert await worker.ended(ENDS_WITHIN_S) == 0
        assert worker.logged("worker.draining")


@pytest.mark.parametrize("number", SIGNALS, ids=[number.name for number in SIGNALS])
def test_every_signal_ends_a_dev_runner_in_order(
    start_runner: Callable[..., Runner], project: Callable[..., Path], number: signal.Signals
) -> None:
    runner = start_runner(project(CODE))
    assert runner.run("echo", {"prompt": "x"}).status_code == 200
    runner.http.close()
    runner.process.send_signal(number)
    assert runner.process.wait(ENDS_WITHIN_S) == 0


def test_a_caller_who_waits_while_a_dev_runner_ends_is_answered(start_runner: Callable[..., Runner], project: Callable[..., Path]) -> None:
    runner = start_runner(project(CODE))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(runner.run, "slow", {"seconds": 60})
        runner.until(lambda: runner.http.get("/v1/status").json()["runs"]["active"] == 1)
        runner.process.send_signal(signal.SIGTERM)
        answer = waiting.result(ENDS_WITHIN_S)
    assert (answer.status_code, answer.json()["error_type"]) == (409, "canceled")
    assert runner.process.wait(ENDS_WITHIN_S) == 0
    runner.http.close()


async def test_a_worker_under_nohup_outlives_its_terminal(project: Callable[..., Path], tmp_path: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        ignoring = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        command = [sys.executable, "-c", ignoring, "-m", "gen_worker.entrypoint"]
        env = {**os.environ, "SCHEDULER_PUBLIC_ADDR": scheduler.address, "WORKER_JWT": "t"}
        with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, cwd=project(CODE), env=env, stdout=log, stderr=log) as process:
            try:
                await scheduler.worker()
                process.send_signal(signal.SIGHUP)
                assert await scheduler.call("echo", {"prompt": "x"}) == {"text": "x"}
            finally:
                process.terminate()


@pytest.fixture
def embedded(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Worker]:
    def make(address: str, **options: Any) -> Worker:
        folder = project(CODE)
        (package,) = (folder / "src").iterdir()
        monkeypatch.syspath_prepend(str(folder / "src"))
        return Worker(address, user_module_names=[f"{package.name}.main"], worker_jwt="t", **options)

    return make


def ends(worker: Worker) -> None:
    thread = threading.Thread(target=worker.run)
    thread.start()
    thread.join(ENDS_WITHIN_S)
    assert not thread.is_alive()


def test_a_stop_before_run_is_not_lost(embedded: Callable[..., Worker]) -> None:
    worker = embedded("127.0.0.1:1")
    worker.stop()
    ends(worker)


def test_a_stop_at_any_moment_of_the_start_is_not_lost(embedded: Callable[..., Worker]) -> None:
    worker = embedded("127.0.0.1:1")
    for number in range(20):
        thread = threading.Thread(target=worker.run)
        thread.start()
        time.sleep(number / 500)  # waits: nothing; any moment of the start will do
        worker.stop()
        thread.join(ENDS_WITHIN_S)
        assert not thread.is_alive(), number
    worker.stop()  # after its end: for the next run
    ends(worker)
