"""Runs as people see them on a terminal."""

from typing import Any

from gen_worker.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TIMEOUT, print_json, say

_EXITS = {"succeeded": 0, "canceled": EXIT_INTERRUPTED, "expired": EXIT_TIMEOUT}


def report(run: dict[str, Any], *, as_json: bool, deltas: list[Any] | None = None) -> int:
    """Print a run, or its output where it has ended; the exit status that it means."""
    status = exit_status(run)
    if as_json:
        print_json({**run, "output": deltas} if deltas and run.get("output") is None else run)
        return status
    error = run.get("error")
    if error is not None:
        say(f"error: {error['detail']} ({error['code']}; run {run['id']})")
        if error["code"] == "internal" and run.get("worker_id"):
            say(f"what the function said: cozyctl logs {run['worker_id']}")
        return status
    if run["status"] == "succeeded":
        if run.get("output") is not None:
            print_json(run["output"])
        return status
    say(f"run {run['id']} is {run['status']}; follow it with: cozyctl runs watch {run['id']}")
    return status


def exit_status(run: dict[str, Any]) -> int:
    """0 while it goes on or has succeeded."""
    error = run.get("error")
    if error is not None and error.get("code") == "timeout":
        return EXIT_TIMEOUT
    return _EXITS.get(run["status"], EXIT_FAILED if run["status"] == "failed" else 0)


def age(seconds: float) -> str:
    """A span of time in its largest unit: `3 s`, `12 min`, `5 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
