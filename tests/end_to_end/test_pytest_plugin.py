"""A test as an author writes it: three lines, with a real worker behind them."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import write_project
from tests.wire_project import CODE

from gen_worker.testing.end_to_end import EndToEnd
from gen_worker.testing.loopback import RunFailedError

THREE_LINES = """
def test_echo(endpoint):
    assert endpoint.run("echo", {"prompt": "world"}) == {"text": "world"}
"""
MORE = """
import pytest
from gen_worker.testing.loopback import RunFailedError

def test_stream(endpoint):
    assert endpoint.stream("stream", {"count": 3}) == [{"text": "0"}, {"text": "1"}, {"text": "2"}]

def test_failure(endpoint):
    with pytest.raises(RunFailedError, match="fatal"):
        endpoint.run("fail", {"prompt": "fatal"})

def test_files(endpoint):
    ref = endpoint.run("save", {"size": 3})["text"].split(" 3 ")[0]
    assert endpoint.saved(ref) == b"xxx"
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_a_tenants_tests(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "project", CODE)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_it.py").write_text(THREE_LINES + MORE)
    found = run_pytest(folder)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "4 passed" in found.stdout


def test_without_a_project_the_fixture_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(THREE_LINES)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    found = run_pytest(tmp_path)
    assert found.returncode != 0
    assert "no cozy.toml in" in found.stdout + found.stderr


def test_a_project_that_does_not_start_shows_why(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "project", "import not_there_at_all")
    with pytest.raises(RuntimeError, match="not_there_at_all"), EndToEnd(folder):
        pass


def test_as_a_plain_object(tmp_path: Path) -> None:
    with EndToEnd(write_project(tmp_path / "project", CODE), env={"WORKER_MAX_CONCURRENCY": "1"}) as endpoint:
        run = endpoint.run_with_events("echo", {"prompt": "x"})
        assert run.of_type("task.completed")
        with pytest.raises(RunFailedError):
            endpoint.run("nothing")
        with pytest.raises(FileNotFoundError, match="no run has saved 'x'"):
            endpoint.saved("x")
        assert "worker.startup.phase" in endpoint.log


def test_a_failure_shows_the_authors_line_and_tests_import_the_projects_code(tmp_path: Path) -> None:
    code = """
def half(x):
    return 1 / x

class In(msgspec.Struct):
    x: float = 0

@worker_function
def breaks(ctx: ActionContext, payload: In) -> In:
    return In(half(payload.x))
"""
    folder = write_project(tmp_path / "project", code)
    (package,) = (folder / "src").iterdir()
    (folder / "tests").mkdir()
    test = (
        f"from {package.name}.main import half\n\ndef test_half(): assert half(2) == 0.5\n\ndef test_it(endpoint): endpoint.run('breaks')\n"
    )
    (folder / "tests" / "test_it.py").write_text(test)
    found = run_pytest(folder)
    assert "1 failed, 1 passed" in found.stdout
    assert "in half: return 1 / x" in found.stdout
    assert "    return In(half(payload.x))" in found.stdout


def test_models_of_packages(tmp_path: Path) -> None:
    code = """
class In(msgspec.Struct):
    name: str = ""

@worker_function
def look(ctx: ActionContext, folder: Annotated[Path, ModelRef(ModelRefSource.FIXED, "m")], payload: In) -> In:
    return In(folder.name)
"""
    folder = write_project(tmp_path / "project", code, '[models]\nm = "hf:demo/m"\n')
    (folder / "pytest.ini").write_text("[pytest]\nendpoint_models = m=pkg:msgspec\n")
    (folder / "test_it.py").write_text("def test_it(endpoint): assert endpoint.run('look')['name']\n")
    found = run_pytest(folder)
    assert found.returncode == 0, found.stdout
    (folder / "pytest.ini").write_text("[pytest]\nendpoint_models = m=pkg:no_such_package\n")
    assert "the package 'no_such_package' is not installed" in run_pytest(folder).stdout
