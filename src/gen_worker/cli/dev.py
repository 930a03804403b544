"""`cozyctl dev`: the dev HTTP runner."""

import os
from pathlib import Path

import click

from gen_worker.cli.folder import folder_option
from gen_worker.cli.output import Verb, json_option
from gen_worker.dev.server import DEFAULT_LISTEN, ServeOptions, serve


@click.command("dev", cls=Verb)
@folder_option(positional=True)
@json_option
@click.option("--listen", default=DEFAULT_LISTEN, envvar="GEN_WORKER_HTTP_LISTEN", show_default=True, metavar="HOST:PORT")
@click.option("--model", "models", multiple=True, metavar="KEY=FOLDER", help="Use a local folder for a model key. May be repeated.")
@click.option("--outputs", default="outputs", envvar="GEN_WORKER_OUTPUT_DIR", show_default=True, help="Folder for saved files.")
@click.option("--manifest", envvar="GEN_WORKER_MANIFEST_PATH", type=click.Path(), help="Serve this manifest instead of the project's.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="Another name of this server. May be repeated.")
@click.option("--reload/--no-reload", default=True, show_default=True, help="Pick up changes of the code.")
def command(
    folder: str,
    as_json: bool,
    listen: str,
    models: tuple[str, ...],
    outputs: str,
    manifest: str | None,
    hosts: tuple[str, ...],
    reload: bool,
) -> int:
    """Serve an endpoint's functions over HTTP, with a page to try them at /docs. With --json each line on stderr is JSON."""
    options = ServeOptions(
        listen=listen,
        root=Path(folder),
        manifest=Path(manifest) if manifest else None,
        outputs=Path(outputs),
        models=models,
        allow_hosts=hosts,
        talks=True,
        reload=reload and manifest is None,
    )
    return serve(options, {**os.environ, "LOG_FORMAT": "json"} if as_json else os.environ)
