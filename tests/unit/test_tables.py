"""Tables of results: whole in a pipe, readable on a narrow terminal."""

import io

import click
import pytest
from rich.table import Column, Table

from gen_worker.cli import output


class Out(io.StringIO):
    """A stdout that says whether it is a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def text(self) -> "Out":
        return self


def printed(width: int, *, is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    table = Table(Column("worker", no_wrap=True), "state", "models in VRAM", box=None, pad_edge=False)
    table.add_row("my-worker-with-a-long-name-419f4d7839c7-9b5f6b", "idle", "sdxl, flux, digits, whisper, sd15")
    table.add_row("another-worker-419f4d7839c7-9b5f6b", "busy", "")
    out = Out(is_terminal=is_terminal)
    monkeypatch.setattr(output, "stdout_of", lambda ctx=None: out)
    monkeypatch.setenv("COLUMNS", str(width))
    with click.Context(click.Command("x")):
        output.table_console().print(table)
    return out.getvalue().splitlines()


def test_a_wide_terminal_and_a_pipe_get_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for width, is_terminal in ((120, True), (40, False)):
        lines = printed(width, is_terminal=is_terminal, monkeypatch=monkeypatch)
        assert len(lines) == 3
        assert lines[1].split()[:2] == ["my-worker-with-a-long-name-419f4d7839c7-9b5f6b", "idle"]


def test_a_narrow_terminal_gets_a_line_for_each_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(66, is_terminal=True, monkeypatch=monkeypatch)
    assert [line.split("  ")[0].strip() for line in lines] == ["worker", "state", "models in VRAM", "", "worker", "state"]
    assert all(len(line) <= 66 for line in lines)
