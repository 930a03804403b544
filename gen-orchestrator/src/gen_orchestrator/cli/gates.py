"""`cozyctl golden add|list|rm|run` and `cozyctl gates`: what a release must pass before it is promoted."""

import time

import click
from rich.table import Column

from gen_orchestrator.cli.api import Api, ApiVerb, api_path, url_option
from gen_orchestrator.cli.gate_results import print_results
from gen_orchestrator.cli.release_names import RELEASE, release_named
from gen_orchestrator.cli.releases import split_endpoint
from gen_orchestrator.cli.shown import age, print_tables, table
from gen_worker.cli.output import EXIT_FAILED, json_option, print_json, print_line, say


@click.group("golden", short_help="Keep requests whose output must not change.")
def golden() -> None:
    """Golden requests: runs with the right output. Each release must give it again before it is promoted."""


@golden.command("add", cls=ApiVerb)
@click.argument("run_id", metavar="RUN_ID")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Allowed difference of numbers, relative to the larger one: 0.01 for 1 %.",
)
@url_option
@json_option
def add(run_id: str, tolerance: float, url: str, as_json: bool) -> int:
    """Make a golden request from a run that succeeded."""
    made = Api(url).post(api_path("runs", run_id, "golden"), {"tolerance": tolerance})
    if as_json:
        print_json(made)
        return 0
    print_line(made["golden_id"])
    say(f"before a promote of {made['function']}, each release of {made['owner']}/{made['endpoint']} must now give the output of this run")
    return 0


@golden.command("list", cls=ApiVerb)
@click.argument("endpoint", required=False, metavar="[OWNER/ENDPOINT]")
@url_option
@json_option
def list_goldens(endpoint: str | None, url: str, as_json: bool) -> int:
    """List golden requests, oldest first."""
    owner, name = split_endpoint(endpoint)
    found = Api(url).get("/v1/goldens", owner=owner, endpoint=name)
    if as_json:
        print_json(found)
        return 0
    shown = table(Column("golden", no_wrap=True), "function", Column("run", no_wrap=True), "tolerance", "age")
    for each in found["data"]:
        function = f"{each['owner']}/{each['endpoint']}/{each['function']}"
        shown.add_row(each["golden_id"], function, each["run_id"], f"{each['tolerance']:g}", age(time.time() - each["created_at"]))
    print_tables(shown, none="no golden requests; make one from a run with: cozyctl golden add RUN")
    return 0


@golden.command("rm", cls=ApiVerb)
@click.argument("golden_id", metavar="ID")
@url_option
@json_option
def remove(golden_id: str, url: str, as_json: bool) -> int:
    """Delete a golden request."""
    gone = Api(url).delete(api_path("goldens", golden_id))
    if as_json:
        print_json(gone)
    else:
        say(f"deleted {golden_id} of {gone['owner']}/{gone['endpoint']}/{gone['function']}")
    return 0


@golden.command("run", cls=ApiVerb)
@click.argument("release", metavar=RELEASE)
@click.option("--function", "functions", multiple=True, metavar="NAME", help="Only of this function. May be repeated.")
@url_option
@json_option
def run(release: str, functions: tuple[str, ...], url: str, as_json: bool) -> int:
    """Run the golden requests on a release. No tag moves. Exit status 1 when one fails."""
    api = Api(url)
    found = api.post(api_path("releases", release_named(api, release), "goldens"), {"functions": functions})
    if as_json:
        print_json(found)
    else:
        print_results(found["data"])
        if not found["data"]:
            say("no golden requests; make one with: cozyctl golden add RUN_ID")
    return 0 if found["passed"] else EXIT_FAILED


@click.command("gates", cls=ApiVerb, short_help="Show the results of a release's gates.")
@click.argument("release", metavar=RELEASE)
@url_option
@json_option
def gates(release: str, url: str, as_json: bool) -> int:
    """Show the last result of each gate for a release."""
    api = Api(url)
    found = api.get(api_path("releases", release_named(api, release), "gates"))
    if as_json:
        print_json(found)
        return 0
    print_results(found["data"])
    if not found["data"]:
        say(f"no gate has checked {release} yet; run its golden requests with: cozyctl golden run {release}")
    return 0
