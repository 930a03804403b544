"""Explains why a release has no worker."""

import os
import signal
from typing import Any

import msgspec


def source_gone(folder: str) -> str:
    """The message for a release whose copy of the source no longer exists."""
    return (
        f"the source of the release is no longer on this machine ({folder}); "
        "an edit of the project makes a new release, and cozyctl promote moves the tag to it"
    )


def why_not_started(image: str, folder: str, error: OSError | ValueError) -> str:
    is_there = image or os.path.isdir(folder)  # noqa: PTH112 - any text
    what = str(getattr(error, "strerror", None) or error) if is_there else source_gone(folder)
    return f"it could not be started: {what}"


def how_it_ended(tail: str, status: int) -> str:
    """A worker's end as text for people: its cause, and its last lines; of JSON log lines, the error's text."""
    by = f"killed by {signal.Signals(-status).name}" if -status in signal.valid_signals() else f"status {status}"
    lines = [_plain(line) for line in tail.splitlines()]
    return "\n".join([by, *[line for line in lines if line.strip()][-8:]])


def _plain(line: str) -> str:
    """A line unchanged; of a JSON log line the text of its error, empty without one."""
    if not line.startswith("{"):
        return line
    try:
        facts = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return ""
    return str(facts.get("exception_message") or facts.get("detail") or facts.get("error") or "")
