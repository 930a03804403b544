"""Functions that start child processes, in every way that Python has: in the dev runner and on the wire."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import Runner, WorkerProcess, write_project
from tests.misbehaving_project import CODE

from gen_worker.testing.loopback import LoopbackScheduler

Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("runner")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    assert found.stop() == 0


def test_children_that_a_function_forks_end_without_us(runner: Runner) -> None:
    pid = runner.process.pid
    for _ in range(2):
        assert runner.run("forks").json()["output"]["text"] == "[1, 4, 9]"
    assert runner.process.poll() is None
    assert runner.process.pid == pid


# By how a function makes a child process: how often, so that what happens now and then happens, and what the function finds.
CHILDREN = {
    "os.fork": (20, "['7']"),
    "preexec_fn": (20, "['0']"),
    "fork": (4, "['[1, 4, 9]']"),
    "forkserver": (1, "['[1, 4, 9]']"),
    "exit": (1, "['7']"),
    "raises": (1, "['1']"),
    "returns": (1, "['1']"),
}


def test_child_processes_of_every_kind_in_the_dev_runner(runner: Runner) -> None:
    for kind, (count, found) in CHILDREN.items():
        assert runner.run("children", {"kind": kind, "count": count}).json()["output"]["text"] == found, kind
    assert runner.run("achildren", {"kind": "exit"}).json()["output"]["text"] == "7"
    events = runner.run("child-in-a-stream").json()["events"]
    assert [event["payload"]["text"] for event in events if event["event_type"] == "output.delta"] == ["1"]


async def test_child_processes_of_every_kind_on_the_wire(start_worker: Start, project: Callable[..., Path]) -> None:
    async with LoopbackScheduler() as scheduler:
        start_worker(project(CODE), scheduler.address)
        await scheduler.worker()

        async def output(function: str, **payload: Any) -> Any:
            found = await (await scheduler.start_run(function, payload)).result(60)
            return msgspec.msgpack.decode(found.output)["text"]

        for kind, (count, found) in CHILDREN.items():
            if kind == "forkserver":
                continue  # three seconds, and nothing of ours in it
            assert await output("children", kind=kind, count=count) == found, kind
        assert await output("achildren", kind="exit") == "7"
