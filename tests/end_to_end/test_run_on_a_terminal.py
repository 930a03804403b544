"""`cozyctl run` on a terminal: a debugger gets the terminal to itself, and what a function logs is shown."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.terminal import Terminal

RUN = [sys.executable, "-m", "gen_worker.cli", "run"]
CODE = """
import logging, pdb

theirs = logging.getLogger("theirs")
theirs.propagate = False
theirs.addHandler(logging.StreamHandler())

class In(msgspec.Struct):
    how: str = ""

class Out(msgspec.Struct):
    text: str

@worker_function
def go(ctx: ActionContext, payload: In) -> Out:
    ctx.progress(0.5)
    if payload.how == "breakpoint":
        breakpoint()
    if payload.how == "set_trace":
        pdb.set_trace()
    logging.getLogger("mine").info("for the operator")
    theirs.warning("of a library")
    return Out("done")
"""


@pytest.mark.parametrize("how", ["breakpoint", "set_trace"])
def test_no_bar_is_painted_over_a_debugger(project: Callable[..., Path], how: str) -> None:
    with Terminal([*RUN, "-i", f"how={how}"], cwd=project(CODE)) as terminal:
        terminal.until("(Pdb) ")
        terminal.type("p payload\n")
        terminal.until("In(how=")
        assert "\x1b[2K" not in terminal.text.partition("(Pdb) ")[2]
        terminal.type("c\n")
        assert terminal.status() == 0
        assert '"text": "done"' in terminal.text


def test_leaving_the_debugger_is_no_failure_of_the_function(project: Callable[..., Path]) -> None:
    with Terminal([*RUN, "-i", "how=breakpoint"], cwd=project(CODE)) as terminal:
        terminal.until("(Pdb) ")
        terminal.type("q\n")
        assert terminal.status() == 130
        assert terminal.lines[-2] == "ended in the debugger"
        assert "Traceback" not in terminal.text


def test_what_a_function_logs_is_shown(project: Callable[..., Path]) -> None:
    with Terminal(RUN, cwd=project(CODE)) as terminal:
        assert terminal.status() == 0
        assert "info: for the operator" in terminal.lines
        assert "of a library" in terminal.lines, "it is written into the bar's line"


def test_lines_that_are_equal_are_each_shown(project: Callable[..., Path]) -> None:
    code = CODE.replace('logging.getLogger("mine").info("for the operator")', 'ctx.log("again"); ctx.log("again"); ctx.log("again")')
    assert code != CODE
    folder = project(code)
    with Terminal(RUN, cwd=folder) as terminal:
        assert terminal.status() == 0
        assert terminal.lines.count("info: again") == 3
    piped = subprocess.run(RUN, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    assert piped.stderr.splitlines().count("info: again") == 3
