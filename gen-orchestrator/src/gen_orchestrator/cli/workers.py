"""`cozyctl workers`: lists workers, and makes tokens for workers started by hand."""

from pathlib import Path

import click

from gen_orchestrator.auth.signing_keys import MAX_LIFE_S, has_keys
from gen_orchestrator.auth.worker_tokens import AUDIENCE, ISSUER, WorkerClaims, WorkerTokens, id_by_hand
from gen_orchestrator.cli.api import Api, ApiVerb, api_path, url_option
from gen_orchestrator.cli.ps import workers_table
from gen_orchestrator.cli.release_names import RELEASE, release_named
from gen_orchestrator.cli.shown import print_tables
from gen_orchestrator.cli.up import LOOPBACK
from gen_worker.cli.output import json_option, print_json, print_line, say

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group("workers")
def command() -> None:
    """List workers; make tokens for workers that you start by hand."""


@command.command("list", cls=ApiVerb)
@url_option
@json_option
def list_workers(url: str, as_json: bool) -> int:
    """List workers, their runs and their models."""
    found = Api(url).get("/v1/workers")["data"]
    if as_json:
        print_json(found)
    else:
        print_tables(workers_table(found), none="no workers; to see why, and what is waiting: cozyctl ps")
    return 0


@command.command("token", cls=ApiVerb)
@click.option("--release", "release_id", default="", metavar=RELEASE, help="Release that the worker serves. With --data: its whole id.")
@click.option("--endpoint", default="", metavar="OWNER/ENDPOINT", help="The release that :prod of this endpoint points at now.")
@click.option("--owner", default="local", show_default=True, help="Owner of the release, with --release and --data.")
@click.option(
    "--ttl",
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How long the token is valid: 30m, 12h, 7d. The worker gets new ones on its stream.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Sign with the key in this data folder instead of asking the platform.")
@url_option
@json_option
def token(release_id: str, endpoint: str, owner: str, ttl: str, data: Path | None, url: str, as_json: bool) -> int:
    """Make a token for a worker on another machine. The platform makes it, which needs a key with the scope admin. With --data, the
    token is signed with the data folder's key."""
    if bool(release_id) == bool(endpoint):
        raise click.UsageError("name the release with --release, or its endpoint with --endpoint OWNER/ENDPOINT")
    life_s = _seconds(ttl)
    if endpoint:
        owner = endpoint.partition("/")[0]
        release_id = _prod_of(Api(url), endpoint)
    if data is not None:
        made = _signed_here(data.expanduser(), owner, release_id, life_s)
    else:
        api = Api(url)
        release_id = release_named(api, release_id)
        made = api.post(api_path("releases", release_id, "worker-tokens"), {"life_s": life_s})
    if as_json:
        print_json(made)
        return 0
    print_line(made["token"])
    address = made.get("scheduler_addr", "HOST:PORT")
    say(f"worker {made['worker_id']} of release {release_id}; start it with the release's code:")
    say(f"  SCHEDULER_PUBLIC_ADDR={address} USE_TLS=false WORKER_JWT=... python -m gen_worker.entrypoint")
    if address.rpartition(":")[0] in LOOPBACK:
        say("  (from this machine only; for others start the platform with --worker-listen 0.0.0.0:PORT, and name its host)")
    return 0


def _signed_here(folder: Path, owner: str, release_id: str, life_s: float) -> dict[str, str]:
    if not has_keys(folder):
        raise click.UsageError(
            f"no signing key for worker tokens in {folder}; name the data folder of the running platform, or leave --data out"
        )
    worker_id = id_by_hand(release_id)
    token = WorkerTokens.from_folder(folder).issue(WorkerClaims(worker_id, owner, release_id, life_s=life_s))
    return {"worker_id": worker_id, "release_id": release_id, "owner": owner, "token": token, "issuer": ISSUER, "audience": AUDIENCE}


def _prod_of(api: Api, endpoint: str) -> str:
    tags = api.status()["tags"]
    found = {
        tag["ref"].split("/")[2].removesuffix(":prod"): str(tag["release_id"])
        for tag in tags
        if tag["ref"].startswith(f"{endpoint}/") and tag["ref"].endswith(":prod")
    }
    if len(set(found.values())) > 1:
        told = ", ".join(f"{function} at {release_id}" for function, release_id in found.items())
        raise click.UsageError(f"the functions of {endpoint}:prod are at several releases ({told}); name one of them with --release")
    if found:
        return next(iter(found.values()))
    known = sorted({"/".join(tag["ref"].split("/")[:2]) for tag in tags})
    raise click.UsageError(f"no endpoint {endpoint!r}; endpoints: {', '.join(known) or 'none'}")


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS or not (number.isascii() and number.isdigit()) or not 1 <= int(number) * UNITS[unit] <= MAX_LIFE_S:
        raise click.UsageError(f"--ttl {text!r}: expected a number and s, m, h or d, at most 90d, such as 12h")
    return float(int(number) * UNITS[unit])
