"""Which endpoint a verb applies to: `--folder FOLDER`, by default the current folder, the same for every verb."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class _Alone(click.Argument):
    """The short form of `--folder`: `cozyctl check FOLDER`."""

    def make_metavar(self, *args: Any, **kwargs: Any) -> str:
        return "[FOLDER]"

    def get_error_hint(self, *args: Any, **kwargs: Any) -> str:
        return "'FOLDER'"


def folder_option(*, positional: bool = False) -> Callable[[F], F]:
    """Give a verb its parameter `folder`. `positional`: the verb has no other argument, so the folder may be given without `--folder`."""

    def decorate(function: F) -> F:
        shown = click.option(
            "--folder",
            "folder",
            default=".",
            show_default="the current folder",
            type=click.Path(exists=True, file_okay=False),
            callback=_chosen if positional else None,
            metavar="FOLDER",
            help="The endpoint's folder, the one with cozy.toml.",
        )(function)
        if not positional:
            return shown
        return click.argument(
            "alone", cls=_Alone, required=False, is_eager=True, expose_value=False, type=click.Path(exists=True, file_okay=False),
            callback=_keep,
        )(shown)  # fmt: skip

    return decorate


def folder_flag(folder: str) -> str:
    """` --folder FOLDER` for a command that a message suggests; `""` for the current folder."""
    return "" if Path(folder).resolve() == Path(os.curdir).resolve() else f" --folder {shlex.quote(folder)}"


def _keep(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    ctx.meta["gen_worker.folder"] = value


def _chosen(ctx: click.Context, param: click.Parameter, value: str) -> str:
    alone = ctx.meta.get("gen_worker.folder")
    if alone is None:
        return value
    if ctx.get_parameter_source("folder") is click.core.ParameterSource.COMMANDLINE and alone != value:
        raise click.UsageError(f"the folder is named twice, as {alone!r} and as --folder {value!r}; name it once", ctx)
    return str(alone)
