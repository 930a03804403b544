"""Output of verbs: results on stdout, text for people on stderr; with --json, only JSON on stdout."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from gen_worker.log import Log
from gen_worker.log_pipe import END_S, guard_standard_streams
from gen_worker.project.stdout import Stdout, silence
from gen_worker.shared_files import write_whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EXIT_FAILED, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_AUTH, EXIT_TIMEOUT, EXIT_INTERRUPTED = 1, 2, 3, 4, 5, 130
EXIT_BROKEN_PIPE = 141  # what a shell shows for a program ended by SIGPIPE: 128 + 13

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, and nothing else there.")


PIPE_WIDTH = 100_000  # of tables that are not shown on a terminal: one line for each row, nothing left out


class Verb(click.Command):
    """A command. From its start, stdout is only for its result; see `project/stdout.py`. When the reader of the result
    has gone (`cozyctl runs list | head -1`), the command ends silently. When nobody reads stderr, it continues
    nevertheless (`log_pipe`).
    """

    def invoke(self, ctx: click.Context) -> Any:
        stdout_of(ctx).claim()
        guard_standard_streams(Log().lost_line, end_s=END_S if ctx.params.get("as_json") else None)
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            silence()
            return EXIT_BROKEN_PIPE
        except (click.Abort, KeyboardInterrupt):  # click.Abort: at a prompt
            return interrupted("interrupted", as_json=ctx.params.get("as_json", False))


def stdout_of(ctx: click.Context | None = None) -> Stdout:
    """The real stdout, as saved by the root of the command line."""
    return (ctx or click.get_current_context()).ensure_object(Stdout)


TOO_WIDE = 1.2  # times the terminal's width: a wider table would fold its cells into columns of a few letters


def table_console() -> "Console":
    """Prints result tables on stdout: on a terminal within its width, elsewhere with every cell complete. If a table
    would not be readable on the terminal, each row is printed as separate lines.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    class ResultConsole(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            for each in objects:
                if (
                    isinstance(each, Table)
                    and Measurement.get(self, self.options.update(max_width=PIPE_WIDTH), each).maximum > TOO_WIDE * self.width
                ):
                    super().print(_as_records(each), **options)
                else:
                    super().print(each, **options)
            if not objects:
                super().print(**options)

        def on_broken_pipe(self) -> None:
            raise  # called while the error is handled; rich itself would end with status 1

    stdout = stdout_of()
    return ResultConsole(file=stdout.text(), highlight=False, markup=False, width=None if stdout.isatty() else PIPE_WIDTH)


def _as_records(table: "Table") -> str:
    """A line for each cell that is not empty, and an empty line between rows."""
    width = max(len(str(column.header)) for column in table.columns)
    rows = zip(*(column.cells for column in table.columns), strict=True)
    blocks = [
        "\n".join(f"{column.header!s:{width}}  {cell}" for column, cell in zip(table.columns, row, strict=True) if str(cell).strip())
        for row in rows
    ]
    return "\n\n".join([str(table.title)] * bool(table.title) + blocks)


def say(text: str) -> None:
    """A line for people."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """A JSON document on stdout."""
    stdout_of().write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def print_line(text: str) -> None:
    """Print a line of a result on stdout."""
    stdout_of().write(f"{text}\n".encode())


def write_file(path: Path, data: bytes) -> None:
    """Write a file of the user's: whole, or not at all. A pipe or a device is written to as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
    else:
        write_whole(path.resolve(), data)


def interrupted(text: str, *, as_json: bool, **facts: Any) -> int:
    """Print one line about what Ctrl-C interrupted, as text or JSON; returns the exit status."""
    if as_json:
        print_json({"ok": False, "code": "interrupted", "error": text, **facts})
    else:
        on_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
        say(f"\n{text}" if on_terminal else text)  # the terminal has printed ^C on the cursor's line
    return EXIT_INTERRUPTED


def fail(message: str, status: int, *, as_json: bool, code: str = "error", **facts: Any) -> int:
    """Report a failure as text or JSON; returns the exit status. `facts` are for the JSON form."""
    if as_json:
        print_json({"ok": False, "code": code, "error": message, **facts})
    else:
        say(f"error: {message}")
    return status
