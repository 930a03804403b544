"""`cozyctl rm`: takes an endpoint out of service."""

from typing import Any

import click

from gen_orchestrator.cli.api import Api, ApiVerb, api_path, url_option
from gen_orchestrator.cli.releases import split_endpoint
from gen_worker.cli.output import json_option, print_json, print_line, say
from gen_worker.texts import counted


@click.command("rm", cls=ApiVerb, short_help="Take an endpoint out of service.")
@click.argument("endpoint", metavar="OWNER/ENDPOINT")
@url_option
@json_option
def command(endpoint: str, url: str, as_json: bool) -> int:
    """Take an endpoint out of service: its tags are removed, and later starts of the platform do not serve it. Accepted
    runs end as usual, including queued ones. Its releases, its runs and its history stay.
    """
    owner, name = split_endpoint(endpoint)
    if endpoint.count("/") != 1 or ":" in endpoint:
        raise click.UsageError(f"{endpoint!r}: expected owner/endpoint, such as local/hello: all of its functions and tags are removed")
    found = Api(url).delete(api_path("endpoints", owner, name))
    if as_json:
        print_json(found)
        return 0
    gone = ", ".join(f"{each['function']}:{each['tag']}" for each in found["data"])
    print_line(f"{owner}/{name} is out of service; it had {gone}")
    if found["running"] or found["queued"]:
        say(f"{_runs(found)} continue to their end; cancel them with: cozyctl runs cancel RUN (cozyctl runs list)")
    release = next((each["release_id"] for each in found["data"] if each["tag"] == "prod"), found["data"][0]["release_id"])
    say(f"serve it again with: cozyctl promote {release}; delete its releases with: cozyctl releases prune {owner}/{name} --keep 0")
    return 0


def _runs(found: dict[str, Any]) -> str:
    kinds = [(found["running"], "that runs", "that run"), (found["queued"], "in the queue", "in the queue")]
    return " and ".join(f"{counted(number, 'run')} {one if number == 1 else many}" for number, one, many in kinds if number)
