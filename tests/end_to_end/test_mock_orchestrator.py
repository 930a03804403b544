"""The documented mock orchestrator, run by its command line with a real worker."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import EXAMPLES, WorkerProcess, write_project
from tests.waiting import until
from tests.wire_project import CODE


class Mock:
    """The command, started; it says where it listens."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "gen_worker.testing.mock_orchestrator", "--listen", "127.0.0.1:0", *arguments]
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `end`
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._err, text=True)
        self.address = ""
        found = until(lambda: re.search(r"listening on (\S+)\n", self._errors()) or self.process.poll() is not None)
        self.address = found[1] if isinstance(found, re.Match) else ""

    def end(self) -> tuple[int, str, str]:
        out, _ = self.process.communicate(timeout=40)
        with self._err:
            return self.process.returncode, out, self._errors()

    def _errors(self) -> str:
        return os.pread(self._err.fileno(), 1 << 20, 0).decode()


@pytest.fixture
def invoke(start_worker: Callable[..., WorkerProcess]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
        mock = Mock(*arguments)
        worker = start_worker(folder, mock.address)
        try:
            return mock.end()
        finally:
            worker.stop()

    return run


def test_the_readmes_command(invoke: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = invoke(
        EXAMPLES / "hello", "--run", "generate", "--payload-json", '{"prompt":"world"}', "--print-events", "--print-registrations"
    )
    assert status == 0, err
    lines = out.splitlines()
    assert "[connected] worker_id='' release_id=''" in lines
    assert "[connected] functions=['generate']" in lines
    assert "[registration]" in lines
    assert "('authorization', '<redacted>')" in out
    assert "test-token" not in out + err
    assert any(re.fullmatch(r"\[sent\] run_id=mock-\w+ function='generate'", line) for line in lines)
    assert any(line.startswith('[event] task.completed: {"function_name":"generate"') for line in lines)
    assert out.endswith('[output] {\n  "text": "Hello, world!"\n}\n')


def test_failures_streams_and_options(invoke: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    folder = write_project(tmp_path / "project", CODE)
    status, out, err = invoke(folder, "--run", "fail", "--payload-json", '{"prompt":"retryable"}')
    assert status == 1
    assert "[error] type='retryable' retryable=True safe='because of Bearer <redacted> at <path>'" in err
    assert "[error] message=RetryableError: because of" in err
    status, out, _ = invoke(folder, "--run", "stream", "--payload-json", '{"count":2}', "--print-events")
    assert (status, "[output] <empty>" in out) == (0, True)
    assert '[event] output.delta: {"text":"1"}' in out
    arguments = [
        "--run",
        "who",
        "--owner",
        "o",
        "--invoker-id",
        "i",
        "--timeout-ms",
        "5000",
        "--required-model",
        "m1",
        "--required-model",
        "m2",
    ]
    status, out, _ = invoke(folder, *arguments)
    assert re.search(r"mock-\w+ o i 5000 \['m1', 'm2'\]", out)


def test_its_file_api(invoke: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    folder, files = write_project(tmp_path / "project", CODE), tmp_path / "files"
    serve = ["--serve-files-dir", str(files), "--serve-files-listen", "127.0.0.1:0"]
    status, out, _ = invoke(folder, "--run", "save", "--payload-json", '{"size":10}', *serve)
    assert status == 0
    assert re.search(r"\[file-api\] listening=127.0.0.1:\d+ dir='", out)
    (saved,) = files.glob("runs/*/outputs/a b.bin")
    assert saved.read_bytes() == b"x" * 10
    (files / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\nabc")
    payload = '{"image":{"ref":"/picture.png"}}'
    status, out, _ = invoke(folder, "--run", "look", "--payload-json", payload, *serve)
    assert (status, "image/png" in out) == (0, True)
    status, out, err = invoke(folder, "--run", "look", "--payload-json", payload, "--input-ref-url", "picture.png=http://127.0.0.1:1/x.png")
    assert (status, "input url blocked" in err) == (1, True), "the ref was replaced by the URL, which the worker refuses"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--run", "f", "--payload-json", "{"], 1, "--payload-json is not JSON"),
        (["--run", "f", "--payload-json", "[]"], 1, "holds a list; expected an object"),
        (["--run", "f", "--input-ref-url", "nothing"], 1, "'nothing': expected REF=URL"),
        (["--run", "f", "--listen", "127.0.0.1:99999"], 1, "cannot listen on 127.0.0.1:99999"),
        ([], 2, "--run"),
        (["--run", "f", "--wait-s", "0.3"], 2, "no worker connected within 0.3 s"),
    ],
)
def test_what_goes_wrong_without_a_worker(arguments: list[str], status: int, said: str) -> None:
    found, _, err = Mock(*arguments).end()
    assert (found, said in err) == (status, True), err


def test_no_result_in_time(start_worker: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    mock = Mock("--run", "slow", "--payload-json", '{"seconds":60}', "--wait-s", "5")
    worker = start_worker(write_project(tmp_path / "project", CODE), mock.address)
    status, _, err = mock.end()
    worker.stop()
    assert (status, "no message about the run for 5 s" in err) == (3, True)
