"""`cozyctl usage`: what runs used, and what it cost."""

from typing import Any

import click

from gen_orchestrator.cli.api import Api, ApiVerb, url_option
from gen_orchestrator.cli.shown import print_tables, size, table
from gen_worker.cli.output import json_option, print_json, say
from gen_worker.texts import counted


@click.command("usage", cls=ApiVerb, short_help="Show GPU and CPU seconds, model bytes and cost.")
@click.option("--from", "first", metavar="DAY", help="First day, such as 2026-11-01. By default the first of the month.")
@click.option("--to", "last", metavar="DAY", help="Last day, included. By default today. Days are in UTC.")
@click.option("--by", type=click.Choice(["day", "key", "function"]), default="day", show_default=True)
@click.option("--owner", default="", help="Only of this owner.")
@url_option
@json_option
def command(first: str | None, last: str | None, by: str, owner: str, url: str, as_json: bool) -> int:
    """Show what the runs that ended on these days used: GPU and CPU seconds, bytes of models, share of cold starts, cost. A key without
    the scope `admin` sees its own runs."""
    found = Api(url).get("/v1/usage", **{"from": first, "to": last, "by": by, "owner": owner})
    if as_json:
        print_json(found)
        return 0
    if found.get("of") == "key":
        say("of this key's own runs; those of the owner's other keys need the scope admin")
    if not found["data"]:
        say(f"no runs ended from {found['from']} to {found['to']}")
        return 0
    currency = found["currency"]
    shown = table(by, "runs", "failed", "GPU s", "CPU s", "downloaded", "loaded", "cold", f"cost ({currency})" if currency else "cost")
    for each in found["data"]:
        name = each[by] or "(no key)"
        shown.add_row(f"{name} {each['name']}" if each.get("name") else name, *_cells(each))
    shown.add_row("in all", *_cells(found["total"]))
    print_tables(shown)
    if unpriced := found["total"]["unpriced"]:
        runs = counted(found["total"]["runs"], "run")
        say(f"no price for {unpriced} of {runs}: prices.toml in the platform's data folder sets the prices")
    return 0


def _cells(used: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(used["runs"]),
        str(used["failed"]),
        f"{used['gpu_seconds']:.1f}",
        f"{used['cpu_seconds']:.1f}",
        size(used["downloaded_bytes"]),
        size(used["loaded_bytes"]),
        f"{used['cold_share']:.0%}",
        "-" if used["cost"] is None else f"{used['cost']:.6f}",
    )
