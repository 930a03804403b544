"""`cozyctl shadow start|show|stop`: repeats a share of a tag's runs on another release, and compares the results."""

import time
from typing import Any

import click

from gen_orchestrator.cli.api import Api, ApiError, ApiVerb, api_path, url_option
from gen_orchestrator.cli.gate_results import summary
from gen_orchestrator.cli.refs import path_of
from gen_orchestrator.cli.release_names import RELEASE, release_named
from gen_orchestrator.cli.releases import percent_of
from gen_orchestrator.cli.shown import age
from gen_worker.cli.output import EXIT_FAILED, EXIT_NOT_FOUND, json_option, print_json, print_line, say


@click.group("shadow", short_help="Repeat real runs on another release and compare.")
def shadow() -> None:
    """Shadow runs: repeat a share of a tag's runs on another release and compare the outputs. Callers notice nothing."""


@shadow.command("start", cls=ApiVerb)
@click.argument("ref", metavar="OWNER/ENDPOINT/FUNCTION[:TAG]")
@click.option("--release", required=True, metavar=RELEASE, help="Release that runs the copies.")
@click.option("--percent", callback=percent_of, default="10%", show_default=True, metavar="PERCENT", help="Share of runs to copy.")
@click.option(
    "--runs", type=click.IntRange(0), default=0, help="End after this many comparisons. By default it continues until it is stopped."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Allowed difference of numbers, relative to the larger one, and of pixels, relative to their range: 0.01 for 1 %.",
)
@url_option
@json_option
def start(ref: str, release: str, percent: float, runs: int, tolerance: float, url: str, as_json: bool) -> int:
    """Repeat a share of a tag's runs on RELEASE. Side effects of functions happen twice."""
    if not percent:
        raise click.UsageError("--percent 0: expected a share above 0%; to end one: cozyctl shadow stop REF")
    api = Api(url)
    body = {"release_id": release_named(api, release), "percent": percent, "runs": runs, "tolerance": tolerance}
    made = api.put(_path(ref), body)
    if as_json:
        print_json(made)
        return 0
    print_line(f"{_ref(made)}: {made['percent']:g}% of its runs on {made['against']} are repeated on {made['release_id']}")
    say(f"see the results: cozyctl shadow show {ref}")
    return 0


@shadow.command("show", cls=ApiVerb)
@click.argument("ref", required=False, metavar="[OWNER/ENDPOINT/FUNCTION[:TAG]]")
@url_option
@json_option
def show(ref: str | None, url: str, as_json: bool) -> int:
    """Show the results of shadow runs so far, for one tag or for all. Exit status 1 when a copy differs or fails."""
    api = Api(url)
    found = [api.get(_path(ref))] if ref else api.get("/v1/shadows")["data"]
    if as_json:
        print_json(found[0] if ref else {"data": found})
    else:
        for each in found:
            _print(each)
        if not found:
            say("no shadow runs; start them with: cozyctl shadow start OWNER/ENDPOINT/FUNCTION --release RELEASE")
    return EXIT_FAILED if any(each["different"] or each["failed"] for each in found) else 0


@shadow.command("stop", cls=ApiVerb)
@click.argument("ref", metavar="OWNER/ENDPOINT/FUNCTION[:TAG]")
@url_option
@json_option
def stop(ref: str, url: str, as_json: bool) -> int:
    """Stop shadow runs. Their results are kept (cozyctl shadow show, cozyctl gates RELEASE)."""
    ended = Api(url).delete(_path(ref))
    if as_json:
        print_json(ended)
    else:
        _print(ended)
    return 0


def _path(ref: str) -> str:
    path_of(ref)
    name, _, tag = ref.partition(":")
    if "@" in name:
        raise ApiError(f"{ref!r} is a release; expected a tag, whose runs are copied", EXIT_NOT_FOUND, "not_found")
    owner, endpoint, function = name.split("/")
    return api_path("endpoints", owner, endpoint, "functions", function, "tags", tag or "prod", "shadow")


def _ref(shadow: dict[str, Any]) -> str:
    return f"{shadow['owner']}/{shadow['endpoint']}/{shadow['function']}:{shadow['tag']}"


def _print(found: dict[str, Any]) -> None:
    since = f"since {age(time.time() - found['since'])}"
    state = f"ended {age(time.time() - found['ended_at'])} ago: {found['why']}" if found["ended_at"] else since
    print_line(f"{_ref(found)}: {found['percent']:g}% of its runs on {found['against']} repeated on {found['release_id']}, {state}")
    for line in summary(found):
        print_line(f"        {line}")
