"""What `-i FIELD=VALUE` gives: texts as they were typed, and files, also those that can be read only once."""

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

STDIN = "-"
F = TypeVar("F", bound=Callable[..., Any])


def payload_options(function: F) -> F:
    """Give a verb the parameters `inputs` and `payload`."""
    shown = click.option("--payload", metavar="JSON", help="The whole payload as JSON; '-' reads it from stdin.")(function)
    return click.option(
        "-i",
        "--input",
        "inputs",
        multiple=True,
        metavar="FIELD=VALUE",
        help="A payload field; FIELD=@PATH sends a file, FIELD=@- stdin. May be repeated.",
    )(shown)


def given_by_field(inputs: Iterable[str], payload: str | None) -> dict[str, list[str]]:
    """The values of `-i` options by field, in order. `payload`: that of `--payload`. `ValueError` for what is no pair, for a text that is
    not UTF-8, and where stdin would be read twice."""
    fields: dict[str, list[str]] = {}
    for item in inputs:
        field, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"-i {item!r}: expected FIELD=VALUE, or FIELD=@PATH for a file")
        fields.setdefault(_text(field, field), []).append(value if value.startswith("@") else _text(field, value))
    if [*(value for values in fields.values() for value in values if value == f"@{STDIN}"), *[payload] * (payload == STDIN)][1:]:
        raise ValueError("stdin, which is named -, can be read once")
    return fields


def text_of(field: str, value: str) -> str:
    """A value that begins with `@` and is a text. `ValueError` where it names a file that the field does not take."""
    if value.startswith("@") and Path(value[1:]).expanduser().is_file():
        raise ValueError(
            f'-i {field}={value}: {field} does not accept a file; to send the file\'s text, write -i {field}="$(cat {value[1:]})"'
        )
    return _text(field, value)


def open_given(field: str, name: str) -> BinaryIO:
    """A file that `FIELD=@NAME` names: on disk, a pipe such as `<(command)`, or `-` for stdin. `ValueError` says why it cannot be read."""
    if name == STDIN:
        return sys.stdin.buffer
    path = Path(name).expanduser()
    try:
        return path.open("rb")
    except IsADirectoryError:
        raise ValueError(f"-i {field}=@{name}: {name} is a folder; expected a file") from None
    except FileNotFoundError:
        raise ValueError(f"-i {field}=@{name}: there is no file {name}") from None
    except OSError as exc:
        raise ValueError(f"-i {field}=@{name}: it cannot be read: {exc.strerror}") from None


def file_of(field: str, name: str, folder: Path) -> tuple[str, Path]:
    """A name, and a file on disk: that which was given, or a copy in `folder` of what can be read only once."""
    path = Path(name).expanduser()
    with open_given(field, name) as source:
        if name != STDIN and stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            return path.name, path
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / str(len(list(folder.iterdir())))
        with copy.open("wb") as target:
            shutil.copyfileobj(source, target)
    return "stdin" if name == STDIN else path.name, copy


def _text(field: str, value: str) -> str:
    """A word of the command line as text: Python has decoded it by the locale, which knows fewer characters than the terminal, maybe."""
    try:
        value.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(value).decode()
        except UnicodeDecodeError:
            raise ValueError(f"-i {field.encode(errors='replace').decode()}: the value is not UTF-8; send it as a file: @PATH") from None
    return value
