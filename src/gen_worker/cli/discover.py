"""`cozyctl discover`: the manifest on stdout."""

import os
from pathlib import Path

import click

from gen_worker import discover
from gen_worker.cli.output import folder_argument, json_option


@click.command("discover")
@folder_argument
@json_option
def command(folder: str, as_json: bool) -> int:
    """Print the manifest of the endpoint in FOLDER: its functions, their schemas, their models. It is always JSON."""
    os.chdir(folder)
    return discover.main(Path.cwd())
