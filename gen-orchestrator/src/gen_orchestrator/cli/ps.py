"""`cozyctl ps`: functions, queues and workers now."""

from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gen_orchestrator.cli.api import Api, ApiVerb, url_option
from gen_worker.cli.output import json_option, print_json, stdout_of


@click.command("ps", cls=ApiVerb)
@url_option
@json_option
def command(url: str, as_json: bool) -> int:
    """What is served, what waits, and which workers there are."""
    status = Api(url).get("/v1/status")
    if as_json:
        print_json(status)
        return 0
    console = Console(file=stdout_of().text(), highlight=False)
    lanes = {(lane["release_id"], lane["function"]): lane for lane in status["lanes"]}
    functions = Table("function", "release", "queued", "running", box=None, pad_edge=False, header_style="dim")
    for tag in status["tags"]:
        name = tag["ref"].split("/")[2].partition(":")[0]
        lane = lanes.get((tag["release_id"], name), {"queued": 0, "running": 0})
        functions.add_row(tag["ref"], tag["release_id"], str(lane["queued"]), str(lane["running"]))
    console.print(functions)
    console.print()
    workers_table(status["workers"])
    for release_id, why in status["paused"].items():
        console.print(Text(f"release {release_id} is paused: {why}"))
    for release_id, text in status["failures"].items():
        console.print(Text(f"release {release_id}: its worker crashed; its last lines:\n{text}"))
    return 0


def workers_table(found: list[dict[str, Any]]) -> None:
    """Print workers as people read them."""
    workers = Table("worker", "state", "runs", "models in VRAM", "on disk", box=None, pad_edge=False, header_style="dim")
    for worker in found:
        models = (", ".join(worker["vram_models"]) or "-", str(len(worker["disk_models"])))
        workers.add_row(worker["worker_id"], worker["state"], str(len(worker["runs"])), *models)
    Console(file=stdout_of().text(), highlight=False).print(workers)
