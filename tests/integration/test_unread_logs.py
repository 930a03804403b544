"""Programs whose stderr is a pipe that nobody reads, or a terminal stopped by Ctrl-S: they continue, and say later what was lost."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.conftest import WorkerProcess

from gen_worker.testing.loopback import LoopbackScheduler

# Each way by which a function says 800 kB: more than a pipe takes, and twice that is more than may wait.
CODE = """
import logging, subprocess

class In(msgspec.Struct):
    how: str

class Out(msgspec.Struct):
    text: str

LINE = "x" * 2000

def say(ctx, how):
    for _ in range(400):
        if how == "print":
            print(LINE)
        elif how == "stderr":
            print(LINE, file=sys.stderr, flush=True)
        elif how == "logging":
            logging.getLogger("mine").warning(LINE)
        elif how == "ctx":
            ctx.log(LINE)
        elif how == "descriptor":
            os.write(1, (LINE + "\\n").encode())
    if how == "child":
        subprocess.run(["sh", "-c", "yes wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww | head -c 800000 >&2"])

@worker_function
def talk(ctx: ActionContext, payload: In) -> Out:
    say(ctx, payload.how)
    return Out(payload.how)

@worker_function
async def talk_async(ctx: ActionContext, payload: In) -> Out:
    say(ctx, payload.how)
    return Out(payload.how)
"""
COZYCTL = (sys.executable, "-c", "from gen_worker.cli.main import main; main()")
RUNNER = (sys.executable, "-m", "gen_worker.testing.http_runner")


class Unread:
    """A program, and what it says when somebody reads at last."""

    def __init__(self, folder: Path, *command: str, terminal: bool = False) -> None:
        self._reads, writes = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(command, cwd=folder, stdout=writes, stderr=writes, start_new_session=True)
        os.close(writes)
        self.said = ""

    def read_until(self, pattern: str) -> str:
        while (found := re.search(pattern, self.said)) is None:
            assert select.select([self._reads], [], [], 60)[0], self.said[-2000:]
            self.said += os.read(self._reads, 1 << 16).decode("utf-8", "replace")
        return found[0]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        os.close(self._reads)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def start(project: Callable[..., Path]) -> Iterator[Callable[..., Unread]]:
    folder = project(CODE)
    started: list[Unread] = []

    def start(*command: str, terminal: bool = False) -> Unread:
        started.append(Unread(folder, *command, terminal=terminal))
        return started[-1]

    yield start
    for each in started:
        each.close()


PRINTING = ("print", "stderr", "logging", "ctx")


@pytest.mark.parametrize(
    ("command", "ways"),
    [
        ((*COZYCTL, "dev"), PRINTING),
        ((*COZYCTL, "dev", "--json"), (*PRINTING, "descriptor", "child")),
        (RUNNER, PRINTING),
    ],
    ids=["dev", "dev-json", "runner"],
)
def test_a_server_whose_output_nobody_reads_serves_on(
    start: Callable[..., Unread], command: tuple[str, ...], ways: tuple[str, ...]
) -> None:
    program = start(*command, "--listen", "127.0.0.1:0", "--outputs", "out", terminal=command == (*COZYCTL, "dev"))
    url = program.read_until(r"http://127\.0\.0\.1:\d+")
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        for function in ("talk", "talk-async"):
            for how in ways:
                answer = http.post(f"/v1/run/{function}", json={"how": how})
                assert (answer.status_code, answer.json().get("output")) == (200, {"text": how})
        assert http.get("/v1/run/nothing").status_code in (404, 405)
        if command != RUNNER:  # it says nothing of runs
            program.read_until("lines_lost")
            assert http.post("/v1/run/talk", json={"how": "one more"}).status_code == 200
            program.read_until("ended.*succeeded" if "--json" not in command else "run.ended.*succeeded")
        if "--json" in command:
            lines = program.said.splitlines()[:-1]
            assert {"log.lines_lost", "run.ended"} <= {json.loads(line)["event"] for line in lines}
        for how in ways[:1]:
            http.post("/v1/run/talk", json={"how": how})
    assert program.stop() == 0  # with a full pipe, too


def test_a_run_whose_stderr_nobody_reads_gives_its_result(project: Callable[..., Path]) -> None:
    folder = project(CODE)
    command = [*COZYCTL, "run", "talk", "--json", "-i", "how=print"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["output"] == {"text": "print"}
        assert process.wait(60) == 0


def test_a_run_waits_for_a_person_who_reads_slowly(project: Callable[..., Path]) -> None:
    folder = project(CODE.replace("range(400)", "range(100)"))
    with subprocess.Popen(
        [*COZYCTL, "run", "talk", "-i", "how=print"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(3)] == [b"{\n", b'  "text": "print"\n', b"}\n"]
        assert process.stderr.read().count(b"x" * 2000) == 100  # though it has ended long since, and a pipe takes less
        assert process.wait(60) == 0


async def test_a_worker_whose_logs_nobody_reads_works_on(project: Callable[..., Path]) -> None:
    folder = project(CODE)
    reads, writes = os.pipe()
    async with LoopbackScheduler() as scheduler:
        worker = WorkerProcess(folder, Path(f"/dev/fd/{writes}"), scheduler.address)
        os.close(writes)
        try:
            await scheduler.worker()
            for how in PRINTING:
                assert await scheduler.call("talk", {"how": how}) == {"text": how}
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.ended(60) == 0
        finally:
            os.close(reads)
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
