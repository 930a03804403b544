"""Programs that end while a thread of the author's is inside C++ code, which would abort if Python unwound its stack."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Runner
from tests.waiting import until

pytest.importorskip("torch")

CODE = """
import torch

class In(msgspec.Struct):
    pass

class Out(msgspec.Struct):
    text: str

@worker_function
def work(ctx: ActionContext, payload: In) -> Out:
    a = torch.rand(200, 200, requires_grad=True)
    (a @ a).sum().backward()
    Path(os.environ["BEGUN"]).touch()
    while True:
        (a @ a).sum().backward()
"""


@pytest.mark.parametrize("times", [1, 2])
def test_a_dev_runner_that_ends_in_the_midst_of_torch(
    project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path, times: int
) -> None:
    runner = start_runner(project(CODE), env={"BEGUN": str(tmp_path / "begun")})
    runner.http.post("/v1/run/work", json={}, headers={"prefer": "respond-async"})
    runner.http.close()
    until((tmp_path / "begun").exists, 60)
    for _ in range(times):
        runner.process.send_signal(signal.SIGINT)
    assert runner.process.wait(60) == 0
    said = runner.log.read_text()
    assert "terminate" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_ended_in_the_midst_of_torch(
    project: Callable[..., Path], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "run", "work"]
    env = {**os.environ, "BEGUN": str(tmp_path / "begun"), "TMPDIR": str(tmp_path / "tmp")}
    process = subprocess.Popen(command, cwd=project(CODE), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: (tmp_path / "begun").exists() or process.poll() is not None, 60)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.splitlines()[-1]) == (status, "", "interrupted")
    assert not list((tmp_path / "tmp").glob("gen-worker-*"))
