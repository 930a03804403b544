"""`cozyctl keys create|list|set|revoke|rotate-signing`, and the audit."""

import time
from typing import Any

import click
from rich.table import Column

from gen_orchestrator.cli.api import Api, ApiError, api_path, url_option
from gen_orchestrator.cli.shown import age, print_tables, table
from gen_orchestrator.domain.access import SCOPES
from gen_worker.cli.output import Verb, json_option, print_json, print_line, say
from gen_worker.durations import parse_duration

rate_option = click.option("--rate", metavar="RUNS/UNIT", help="Budget of runs per second, minute or hour: 10/s, 60/m, 1000/h.")
concurrency_option = click.option("--concurrency", metavar="RUNS", help="Budget of open runs at once.")

gpu_option = click.option("--gpu-seconds", metavar="SECONDS/UNIT", help="Budget of GPU seconds per day or month: 3600/d, 50000/month.")


@click.group("keys", short_help="Create, limit and revoke keys; read the audit log.")
def command() -> None:
    """Create, list, limit and revoke keys of the platform; read its audit log."""


@command.command("create", cls=Verb)
@click.option("--name", default="", help="What it is for, such as: ci")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), default=["invoke"], show_default=True, help="May be repeated.")
@click.option("--owner", default="", help="Owner of the key. By default the owner of the key that makes it.")
@click.option("--life", default="", metavar="TIME", help="How long it is valid, such as 12h or 30d. By default until it is revoked.")
@rate_option
@concurrency_option
@gpu_option
@url_option
@json_option
def create(
    name: str,
    scopes: tuple[str, ...],
    owner: str,
    life: str,
    rate: str | None,
    concurrency: str | None,
    gpu_seconds: str | None,
    url: str,
    as_json: bool,
) -> int:
    """Create a key. It is shown only once. A key with budgets cannot create other keys."""
    body = {"name": name, "scopes": scopes, "owner": owner, "life_s": _seconds(life), **_budgets(rate, concurrency, gpu_seconds)}
    try:
        made = Api(url).post("/v1/keys", body)
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(made)
        return 0
    print_line(made["key"])
    within = ", with the budgets " + ", ".join(f"{name} {limit}" for name, limit in made["budgets"].items()) if made["budgets"] else ""
    say(f"key {made['key_id']} of {made['owner']}, who may {', '.join(made['scopes'])}{within}. It is not shown again")
    say("Use it with: cozyctl login, or as COZY_API_KEY, or in the header `Authorization: Bearer KEY`")
    _say_enforced(made)
    return 0


@command.command("list", cls=Verb)
@click.option("--owner", default="", help="Only of this owner.")
@url_option
@json_option
def list_keys(owner: str, url: str, as_json: bool) -> int:
    """List keys, newest first, without their secrets. Budgets show what is used, and the limit."""
    try:
        found = Api(url).get("/v1/keys", owner=owner)
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(found)
        return 0
    shown = table(Column("key", no_wrap=True), "owner", "name", "may", "age", "state", "budgets")
    now_s = time.time()
    for key in found["data"]:
        state = "revoked" if key["revoked_at"] else "expired" if 0 < key["expires_at"] < now_s else "active"
        may, old = ", ".join(key["scopes"]), age(now_s - key["created_at"])
        shown.add_row(key["key_id"], key["owner"], key["name"], may, old, state, _shown_budgets(key))
    print_tables(shown, none="no keys; make one with: cozyctl keys create")
    if found["data"]:
        _say_enforced(found["data"][0])
    return 0


@command.command("set", cls=Verb)
@click.argument("key_id")
@rate_option
@concurrency_option
@gpu_option
@url_option
@json_option
def set_budgets(key_id: str, rate: str | None, concurrency: str | None, gpu_seconds: str | None, url: str, as_json: bool) -> int:
    """Change a key's budgets; `none` removes one. What the key has used so far still counts."""
    body = _budgets(rate, concurrency, gpu_seconds)
    if not body:
        raise click.UsageError("nothing to change: name a budget, such as --rate 60/m or --concurrency none")
    try:
        changed = Api(url).patch(api_path("keys", key_id), body)
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(changed)
    else:
        print_line(f"{key_id}: {_shown_budgets(changed) or 'no budgets'}")
        _say_enforced(changed)
    return 0


@command.command("revoke", cls=Verb)
@click.argument("key_id")
@url_option
@json_option
def revoke(key_id: str, url: str, as_json: bool) -> int:
    """Revoke a key."""
    try:
        gone = Api(url).delete(api_path("keys", key_id))
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(gone)
    else:
        print_line(f"{key_id} is revoked")
    return 0


@command.command("rotate-signing", cls=Verb)
@url_option
@json_option
def rotate_signing(url: str, as_json: bool) -> int:
    """Sign worker tokens with a new key from now on. Older tokens stay valid until they expire. Workers are not interrupted."""
    try:
        made = Api(url).post("/v1/signing-keys")
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(made)
        return 0
    print_line(made["kid"])
    for key in made["data"][1:]:
        say(f"{key['kid']} verifies until {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(key['valid_until']))} UTC")
    return 0


@command.command("audit", cls=Verb)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@url_option
@json_option
def audit(limit: int, url: str, as_json: bool) -> int:
    """List what was published, promoted, created and revoked, and by which key; newest first."""
    try:
        found = Api(url).get("/v1/audit", limit=limit)
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(found)
        return 0
    shown = table(Column("when (UTC)", no_wrap=True), Column("who", no_wrap=True), Column("what", no_wrap=True), "owner", "of", "details")
    for row in found["data"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row["at"]))
        shown.add_row(when, row["actor"], row["action"], row["owner"], row["subject"], row["detail"])
    print_tables(shown, none="nothing has been published, promoted, created or revoked yet")
    return 0


def _say_enforced(key: dict[str, Any]) -> None:
    if not key["enforced"]:
        say("warning: this platform requires no keys: anyone may do anything, and budgets have no effect. Start it with --keys")


def _seconds(life: str) -> float:
    if not life:
        return 0.0
    try:
        return float(parse_duration(life))
    except ValueError as exc:
        raise click.UsageError(f"--life {exc}") from None


def _budgets(rate: str | None, concurrency: str | None, gpu_seconds: str | None) -> dict[str, Any]:
    """Budgets for a request: those that were given; None for `none`."""
    named = {"rate": rate, "concurrency": concurrency, "gpu_seconds": gpu_seconds}
    found: dict[str, Any] = {name: None if text == "none" else text for name, text in named.items() if text is not None}
    if found.get("concurrency") is not None:
        if not (found["concurrency"].isascii() and found["concurrency"].isdigit()):
            raise click.UsageError(f"--concurrency {concurrency!r}: expected a number of runs, such as 4, or none")
        found["concurrency"] = int(found["concurrency"])
    return found


def _shown_budgets(key: dict[str, Any]) -> str:
    """`rate 12 of 60/m, concurrency 1 of 4`; empty when there is none."""
    used = key["used"]
    return ", ".join(f"{name} {used[name]:g} of {limit}" for name, limit in key["budgets"].items())
