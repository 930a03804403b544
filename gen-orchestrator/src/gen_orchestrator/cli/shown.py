"""Prints runs on the terminal."""

from typing import Any

from rich.table import Column, Table

from gen_worker.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TIMEOUT, print_json, say, table_console

SHOWN_FILES = 5
_EXITS = {"succeeded": 0, "canceled": EXIT_INTERRUPTED, "expired": EXIT_TIMEOUT}


def report(run: dict[str, Any], *, as_json: bool, deltas: list[Any] | None = None) -> int:
    """Print a run, or its output if it has ended; returns the exit status."""
    status = exit_status(run)
    if as_json:
        print_json({**run, "output": deltas} if deltas and run.get("output") is None else run)
        return status
    error = run.get("error")
    if error is not None:
        after = f" after {run['attempt']} attempts" if run.get("attempt", 0) > 1 else ""
        say(f"error: {error['detail']} ({error['code']}{after}; run {run['id']})")
        if error["code"] == "internal" and run.get("worker_id"):
            say(f"the function's log: cozyctl logs {run['worker_id']}")
        return status
    if run["status"] == "succeeded":
        if run.get("output") is not None:
            print_json(run["output"])
        for file in run.get("files", [])[:SHOWN_FILES]:
            say(f"download it: cozyctl files get {file['ref']}")
        return status
    say(f"run {run['id']} is {run['status']}; follow it with: cozyctl runs watch {run['id']}")
    return status


def exit_status(run: dict[str, Any]) -> int:
    """0 while it is running or after success."""
    error = run.get("error")
    if error is not None and error.get("code") == "timeout":
        return EXIT_TIMEOUT
    return _EXITS.get(run["status"], EXIT_FAILED if run["status"] == "failed" else 0)


def name_of(run: dict[str, Any]) -> str:
    """The argument of `cozyctl invoke` that runs the same function again."""
    tag = run["tag"] if run["tag"].startswith("@") else f":{run['tag']}" if run["tag"] != "prod" else ""
    return f"{run['owner']}/{run['endpoint']}/{run['function']}{tag}"


def bytes_of(count: int) -> str:
    """A size in its largest unit: `512 B`, `3.4 MB`, `1.9 GB`."""
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def age(seconds: float) -> str:
    """A duration in its largest unit: `3s`, `12m`, `5h`, `2d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def span(ms: float) -> str:
    """A duration: `7 ms`, `2.5 s`, `3.0 min`."""
    for size, unit in ((60_000, "min"), (1000, "s")):
        if ms >= size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms:.0f} ms"


def size(size_bytes: float) -> str:
    """A size in its largest unit, in powers of 1000: `999 B`, `1.5 GB`."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= limit:
            return f"{size_bytes / limit:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def table(*columns: Column | str) -> Table:
    """A table in the style of `ps` and `ls`: no lines, two spaces between columns."""
    return Table(*columns, box=None, pad_edge=False, header_style="dim")


def print_tables(*tables: Table, none: str = "") -> None:
    """Print tables on stdout with an empty line between them. No cell is cut. `none`: printed instead when all tables are empty."""
    if none and not any(each.row_count for each in tables):
        say(none)
        return
    console = table_console()
    for number, each in enumerate(tables):
        if number:
            console.print()
        for column in each.columns:
            if not column.no_wrap:
                column.overflow = "fold"
        console.print(each)
