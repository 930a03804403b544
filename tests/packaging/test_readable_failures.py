"""A failing test is shown although another thread parses at the same time, which confuses Python 3.11's parser."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = """
import ast
from tests.readable_failures import pytest_runtest_makereport

parse, failures = ast.parse, [{failures}]

def stumbling(*arguments, **options):
    "As Python 3.11 does when two threads parse at once."
    if failures[0] > 0:
        failures[0] -= 1
        raise SystemError("AST constructor recursion depth mismatch (before=18, after=15)")
    return parse(*arguments, **options)

def pytest_runtest_call(item):
    ast.parse = stumbling

def pytest_runtest_teardown(item):
    ast.parse = parse
"""
TEST = """
def test_one():
    found = {"answer": 41}
    assert found["answer"] == 42, "the answer is wrong"

def test_two():
    pass
"""


def outcome(folder: Path, failures: int) -> str:
    (folder / "conftest.py").write_text(CONFTEST.format(failures=failures))
    (folder / "test_it.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(folder), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    return done.stdout


def test_one_stumble_costs_nothing(tmp_path: Path) -> None:
    assert 'assert found["answer"] == 42, "the answer is wrong"' in outcome(tmp_path, 1)


def test_where_it_never_succeeds_the_failure_is_still_said(tmp_path: Path) -> None:
    said = outcome(tmp_path, 10**9)
    assert "test_it.py:4" in said
    assert "the answer is wrong" in said
