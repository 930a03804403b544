"""`cozyctl drain`: stops a worker without losing a run."""

import click

from gen_orchestrator.cli.api import Api, ApiVerb, api_path, url_option
from gen_worker.cli.output import json_option, print_json, print_line, say


@click.command("drain", cls=ApiVerb)
@click.argument("worker")
@url_option
@json_option
def command(worker: str, url: str, as_json: bool) -> int:
    """Send WORKER no more runs; it exits when its runs have ended. If it is still needed, a new worker replaces it."""
    drained = Api(url).post(api_path("workers", worker, "drain"))
    if as_json:
        print_json(drained)
    else:
        print_line(f"{drained['worker_id']} {drained['state']}")
        count = len(drained.get("runs", ()))
        say(f"{'it has no runs and exits now' if not count else f'its {count} runs may finish first'}; see: cozyctl ps")
    return 0
