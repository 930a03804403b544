"""A text for which an author's pattern would take years is refused, while other requests are served."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Runner, WorkerProcess, write_project

from gen_worker.testing.loopback import LoopbackScheduler, RunFailedError

CODE = """
class In(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(pattern="^(a+)+$")] = "a"
    texts: dict[Annotated[str, msgspec.Meta(pattern="^(b+)+$")], list[Annotated[str, msgspec.Meta(pattern="^(c+)+$", max_length=100)]]] = {}

class Plain(msgspec.Struct):
    text: str = ""

class Out(msgspec.Struct):
    text: str

@worker_function()
def match(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.text)

class Said(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(pattern="^(a+)+$")] = "a"

@worker_function()
def say(ctx: ActionContext, payload: Plain) -> Said:
    return Said(payload.text)

@worker_function()
def echo(ctx: ActionContext, payload: Plain) -> Out:
    return Out(payload.text)
"""
SLOW = "a" * 60 + "!"  # a few thousand years
BAD = [
    ({"text": SLOW}, "payload.text: takes too long to check against the pattern"),
    ({"text": "ab"}, "payload.text: expected str matching regex '^(a+)+$'"),
    ({"texts": {"b" * 60 + "!": []}}, f"payload.texts.{'b' * 60}!: takes too long"),
    ({"texts": {"b": ["c", "c" * 60 + "!"]}}, "payload.texts.b[1]: takes too long"),
    ({"texts": {"b": ["c" * 101]}}, "payload.texts.b[0]: expected str of length <= 100"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("patterns"), CODE)


async def test_a_workers_heart_beats_on(start_worker: Callable[..., WorkerProcess], folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        start_worker(folder, scheduler.address, WORKER_HEARTBEAT_S="0.2")
        worker = await scheduler.worker()
        runs = [asyncio.ensure_future(scheduler.call("match", {"text": SLOW})) for _ in range(20)]
        before = len(worker.registrations)
        for number in range(20):
            assert await scheduler.call("echo", {"text": str(number)}) == {"text": str(number)}
        await scheduler.until(lambda: len(worker.registrations) >= before + 3)
        for run in runs:
            with pytest.raises(RunFailedError, match="takes too long"):
                await run
        for payload, message in BAD:
            with pytest.raises(RunFailedError) as caught:
                await scheduler.call("match", payload)
            assert message in str(caught.value)
        assert await scheduler.call("match", {"text": "a" * 60, "texts": {"b": ["c"]}}) == {"text": "a" * 60}


def test_the_dev_runner_serves_on(folder: Path, tmp_path: Path) -> None:
    runner = Runner(folder, tmp_path / "outputs")
    try:
        slow = [runner.http.post("/v1/run/match", json={"text": SLOW}, headers={"prefer": "respond-async"}) for _ in range(5)]
        assert runner.run("echo", {"text": "x"}).json()["output"] == {"text": "x"}
        for answer in slow:
            run = runner.http.get(answer.headers["location"], params={"wait": 60}).json()
            assert (run["status"], run["error"]["errors"][0]["pointer"]) == ("failed", "/text")
        for payload, message in BAD:
            assert message in runner.run("match", payload).json()["error_message"]
        said = runner.run("say", {"text": SLOW}).json()
        assert (said["error_type"], "output.text: takes too long" in said["error_message"]) == ("fatal", True)
        assert runner.run("say", {"text": "a" * 60}).json()["success"]
    finally:
        runner.stop()


def test_a_run_is_cancelled_while_its_pattern_is_tried(folder: Path, tmp_path: Path) -> None:
    runner = Runner(folder, tmp_path / "outputs")
    try:
        run = runner.http.post("/v1/run/match", json={"text": SLOW}, headers={"prefer": "respond-async"})
        assert runner.http.post(run.headers["location"] + "/cancel").json()["status"] in ("canceled", "failed")
    finally:
        assert runner.stop() == 0


def test_discovery_warns_by_example(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "gen_worker.discover"], cwd=folder, capture_output=True, text=True, check=True)
    assert "warning: In.text: the pattern '^(a+)+$' takes too long for some texts, such as 'aaaa" in done.stderr
    assert done.stderr.count("takes too long") == 3
