"""`cozyctl logs`: what workers write, so far or continuously."""

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from gen_orchestrator.cli.api import Api, ApiError, ApiVerb, api_path, url_option
from gen_worker.cli.output import EXIT_INTERRUPTED, EXIT_NOT_FOUND, fail, json_option, print_line, say
from gen_worker.names import did_you_mean

LOOK_S = 0.5


@click.command("logs", cls=ApiVerb, short_help="Print or follow the logs of workers.")
@click.argument("target", required=False, default="", metavar="[OWNER/ENDPOINT[/FUNCTION[:TAG]] | WORKER]")
@click.option("-f", "--follow", is_flag=True, help="Follow until Ctrl-C, with workers that join meanwhile.")
@url_option
@json_option
def command(target: str, follow: bool, url: str, as_json: bool) -> int:
    """Print the logs of one worker, of the workers that serve a function, or of all workers."""
    api = Api(url)
    places: dict[str, int] = {}
    try:
        workers = _workers(api, target)
        if not workers and not follow:
            return fail(f"no worker serves {target or 'anything'} now; see: cozyctl ps", EXIT_NOT_FOUND, as_json=as_json, code="not_found")
        if not workers:
            say(f"no worker serves {target or 'anything'} now; waiting for one")
        while True:
            for worker_id, line in _new_lines(api, workers, places):
                _show(worker_id, line, as_json=as_json, alone=len(workers) == 1)
            if not follow:
                return 0
            time.sleep(LOOK_S)
            workers = list(dict.fromkeys([*places, *_workers(api, target)]))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _workers(api: Api, target: str) -> list[str]:
    """Ids of the requested workers. A name without slashes is a worker's own, running or ended."""
    if target and "/" not in target:
        return [target]
    status = api.status()
    if not target:
        return [worker["worker_id"] for worker in status["workers"]]
    name, _, tag = target.partition(":")
    releases = {
        each["release_id"]
        for each in status["tags"]
        if (each["ref"].rpartition(":")[0] + "/").startswith(name.rstrip("/") + "/") and tag in ("", each["ref"].rpartition(":")[2])
    }
    if not releases:
        refs = [each["ref"] for each in status["tags"]]
        functions = sorted({ref.rpartition(":")[0] for ref in refs})
        endpoints = sorted({ref.rpartition("/")[0] for ref in refs})
        near = did_you_mean(target, [*functions, *endpoints, *refs])
        raise ApiError(
            f"no endpoint is served as {target!r}.{near} Endpoints: {', '.join(endpoints) or 'none'}", EXIT_NOT_FOUND, "not_found"
        )
    return [worker["worker_id"] for worker in status["workers"] if worker["release_id"] in releases]


def _new_lines(api: Api, workers: list[str], places: dict[str, int]) -> Iterator[tuple[str, str]]:
    for worker_id in workers:
        try:
            found = api.get(api_path("workers", worker_id, "logs"), after=places.get(worker_id))
        except ApiError as exc:
            if exc.status != EXIT_NOT_FOUND or len(workers) == 1:
                raise
            continue  # a worker started by hand: its log is on its own machine
        places[worker_id] = found["next"]
        yield from ((worker_id, line) for line in found["lines"])


def _show(worker_id: str, line: str, *, as_json: bool, alone: bool) -> None:
    try:
        fields: dict[str, Any] = json.loads(line)
        when, level, event = fields.pop("time"), fields.pop("level"), fields.pop("event")
    except (ValueError, KeyError, AttributeError, TypeError):
        fields = {}
        when = level = event = ""
    if as_json:
        print_line(json.dumps({"worker_id": worker_id, "line": line}))
        return
    shown = f"{when[11:19]} {level:<7} {event} {' '.join(f'{name}={value}' for name, value in fields.items())}".rstrip() if event else line
    print_line(shown if alone else f"{worker_id} | {shown}")
