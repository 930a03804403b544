"""`cozyctl ps`: current functions, queues and workers."""

from typing import Any

import click
from rich.table import Column, Table

from gen_orchestrator.cli.api import Api, ApiVerb, url_option
from gen_orchestrator.cli.shown import bytes_of, print_tables, table
from gen_worker.cli.output import json_option, print_json, print_line
from gen_worker.texts import counted


@click.command("ps", cls=ApiVerb)
@url_option
@json_option
def command(url: str, as_json: bool) -> int:
    """Show what is served, what waits, and the workers."""
    status = Api(url).status()
    if as_json:
        print_json(status)
        return 0
    lanes = {(lane["release_id"], lane["function"]): lane for lane in status["lanes"]}
    functions = table("function", Column("release", no_wrap=True), "queued", "running")
    for tag in status["tags"]:
        name = tag["ref"].split("/")[2].partition(":")[0]
        lane = lanes.get((tag["release_id"], name), {"queued": 0, "running": 0})
        functions.add_row(tag["ref"], tag["release_id"], str(lane["queued"]), str(lane["running"]))
    print_tables(functions, workers_table(status["workers"]))
    disk = status["disk"]
    if disk["releases"]:
        parts = [f"{counted(disk['releases'], 'release takes', 'releases take')} {bytes_of(disk['sources_bytes'])}"]
        parts += [f"{name} {bytes_of(disk[f'{name}_bytes'])}" for name in ("environments", "images") if disk[f"{name}_bytes"]]
        print_line(f"disk: {', '.join(parts)}; all of it, and what frees it: cozyctl doctor")
    for each in status["candidates"]:
        print_line(f"{each['ref']}: {each['percent']:g}% of its runs go to {each['release_id']} (canary)")
    for ref, why in status["dropped"].items():
        print_line(f"{ref}: canary {why}")
    for release_id, why in status["paused"].items():
        print_line(f"release {release_id} is paused: {why}")
    for release_id, text in status["failures"].items():
        print_line(f"release {release_id}: its worker crashed or was not started:\n{text}")
    return 0


def workers_table(found: list[dict[str, Any]]) -> Table:
    """A table of workers for people."""
    workers = table(Column("worker", no_wrap=True), "state", "runs", "models in VRAM", "on disk")
    for worker in found:
        models = (", ".join(worker["vram_models"]) or "-", str(len(worker["disk_models"])))
        workers.add_row(worker["worker_id"], worker["state"], str(len(worker["runs"])), *models)
    return workers
