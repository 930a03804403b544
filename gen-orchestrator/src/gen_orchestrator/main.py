"""`gen-orchestrator`: the control plane for servers, and store maintenance for operators."""

import click

from gen_orchestrator import __version__
from gen_orchestrator.cli import serve, store


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """The control plane of gen-worker. On a laptop: cozyctl up."""


main.add_command(serve.command)
main.add_command(store.group)
main.add_command(store.doctor_command)
