"""How verbs speak: results on stdout, text for people on stderr, JSON alone on stdout when asked for."""

import sys
from typing import Any

import click
import msgspec

EXIT_FAILED, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_AUTH, EXIT_TIMEOUT = 1, 2, 3, 4, 5

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, and nothing else there.")
folder_argument = click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False))


def say(text: str) -> None:
    """A line for people."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """A JSON document on stdout."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.buffer.flush()


def fail(message: str, status: int, *, as_json: bool, code: str = "error", **facts: Any) -> int:
    """Report a failure in the form that was asked for; returns the exit status. `facts` are for the JSON form."""
    if as_json:
        print_json({"ok": False, "code": code, "error": message, **facts})
    else:
        say(f"error: {message}")
    return status
