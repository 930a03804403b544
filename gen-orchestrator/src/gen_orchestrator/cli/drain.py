"""`cozyctl drain`: send a worker away without losing a run."""

import click

from gen_orchestrator.cli.api import Api, ApiVerb, url_option
from gen_worker.cli.output import json_option, print_json, print_line, say


@click.command("drain", cls=ApiVerb)
@click.argument("worker")
@url_option
@json_option
def command(worker: str, url: str, as_json: bool) -> int:
    """Give WORKER no more runs; it ends when those that it has are over. One that is still needed is replaced."""
    drained = Api(url).post(f"/v1/workers/{worker}/drain")
    if as_json:
        print_json(drained)
    else:
        print_line(f"{drained['worker_id']} {drained['state']}")
        count = len(drained.get("runs", ()))
        say(f"{'it has no runs, and ends' if not count else f'its runs may finish: {count}'}; see: cozyctl ps")
    return 0
