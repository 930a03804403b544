"""`cozyctl discover`: the manifest on stdout."""

from pathlib import Path

import click

from gen_worker import discover
from gen_worker.cli.folder import folder_option
from gen_worker.cli.output import EXIT_FAILED, Verb, fail, json_option, say, stdout_of


@click.command("discover", cls=Verb)
@folder_option(positional=True)
@json_option
def command(folder: str, as_json: bool) -> int:
    """Print the manifest of an endpoint: its functions, their schemas, their models. It is always JSON."""
    found = discover.find(Path(folder).resolve())
    for warning in found.warnings:
        say(f"warning: {warning}")
    if found.problem:
        return fail(found.problem, EXIT_FAILED, as_json=as_json, code="discovery")
    stdout_of().write(discover.printed(found))
    return 0
