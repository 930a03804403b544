"""What every test keeps to.

No test sleeps for a time that is hoped to be enough: it waits for a condition (`tests/waiting.py`) or moves a clock of its own.
A sleep of 0 lets other tasks run and is free. Any other call says after `# waits:` what it waits for, or why time itself is what is tested.
Sleeps in the text of an author's project are its workload and are not looked at. The simulation has a clock that moves by itself.

A file of tests has one subject, and so at most 400 lines. `scripts/test` runs each of them once.
"""

import ast
import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("tests", "gen-orchestrator/tests")
VIRTUAL_CLOCK = "gen-orchestrator/tests/simulation/"
TIMED = {"sleep", "Timer"}
MARK = "# waits:"
MOST_LINES = 400


def hopeful_sleeps(code: str) -> list[int]:
    """The lines of `code` that sleep and do not say why."""
    lines = code.splitlines()
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        yields = bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        if name in TIMED and not yields and MARK not in lines[node.lineno - 1]:
            found.append(node.lineno)
    return found


def files_of_tests() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_no_test_sleeps_for_a_time_it_hopes_is_enough() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files_of_tests()
        if not path.relative_to(ROOT).as_posix().startswith(VIRTUAL_CLOCK)
        for line in hopeful_sleeps(path.read_text())
    ]
    assert not found, f"wait for a condition (tests/waiting.py), or say why time is the point with `{MARK} ...`: {', '.join(found)}"


def test_files_of_tests_have_one_subject() -> None:
    long = [str(path.relative_to(ROOT)) for path in files_of_tests() if len(path.read_text().splitlines()) > MOST_LINES]
    assert not long, f"more than {MOST_LINES} lines; split by subject: {', '.join(long)}"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("time.sleep(1)", [1]),
        ("async def f():\n    await asyncio.sleep(0.1)", [2]),
        ("from time import sleep\nsleep(x)", [2]),
        ("threading.Timer(0.3, stop.set).start()", [1]),
        ("time.sleep(1)  # waits: longer than a heartbeat; silence is what is tested", []),
        ("await_others = asyncio.sleep(0)", []),
        ('PROJECT = "time.sleep(1)"', []),
    ],
)
def test_the_rule_notices(code: str, lines: list[int]) -> None:
    assert hopeful_sleeps(code) == lines


def test_each_file_of_tests_is_in_one_part_of_the_whole_run() -> None:
    listed = re.search(r"^parts=\((.*?)^\)", (ROOT / "scripts" / "test").read_text(), re.MULTILINE | re.DOTALL)
    assert listed is not None
    parts = [line.strip().strip('"').split() for line in listed[1].strip().splitlines()]

    def runs(part: list[str], path: Path) -> bool:
        folder, *arguments = part
        if not path.is_relative_to(ROOT / folder / "tests"):
            return False
        name = path.relative_to(ROOT / folder).as_posix()
        if ignored := [argument.removeprefix("--ignore=") for argument in arguments if argument.startswith("--ignore=")]:
            return not name.startswith(tuple(f"{folder}/" for folder in ignored))
        return any(fnmatch.fnmatchcase(name, argument) or name.startswith(f"{argument}/") for argument in arguments)

    counts = {path: sum(runs(part, path) for part in parts) for path in files_of_tests() if path.name.startswith("test_")}
    assert {str(path.relative_to(ROOT)): count for path, count in counts.items() if count != 1} == {}
