"""`cozyctl keys create|list|revoke`, and the audit."""

import time

import click
from rich.console import Console
from rich.table import Column, Table

from gen_orchestrator.cli.api import Api, ApiError, url_option
from gen_orchestrator.cli.shown import age
from gen_orchestrator.domain.access import SCOPES
from gen_worker.cli.output import Verb, json_option, print_json, print_line, say, stdout_of
from gen_worker.durations import parse_duration


@click.group("keys")
def command() -> None:
    """Make, list and revoke keys of a platform; read its audit."""


@command.command("create", cls=Verb)
@click.option("--name", default="", help="What it is for, such as: ci")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), default=["invoke"], show_default=True, help="May be repeated.")
@click.option("--owner", default="", help="Whose key it is. By default the owner of the key that makes it.")
@click.option("--life", default="", metavar="TIME", help="For how long it holds, such as 12h or 30d. By default until it is revoked.")
@url_option
@json_option
def create(name: str, scopes: tuple[str, ...], owner: str, life: str, url: str, as_json: bool) -> int:
    """Make a key. It is shown this once."""
    body = {"name": name, "scopes": scopes, "owner": owner, "life_s": _seconds(life)}
    try:
        made = Api(url).post("/v1/keys", body)
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(made)
        return 0
    print_line(made["key"])
    say(f"key {made['key_id']} of {made['owner']}, who may {', '.join(made['scopes'])}. It is not shown again")
    say("use it: cozyctl login, or COZY_API_KEY, or `Authorization: Bearer KEY`")
    return 0


@command.command("list", cls=Verb)
@click.option("--owner", default="", help="Of one owner only.")
@url_option
@json_option
def list_keys(owner: str, url: str, as_json: bool) -> int:
    """Keys, newest first, without their secrets."""
    try:
        found = Api(url).get("/v1/keys", owner=owner)
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(found)
        return 0
    table = Table(Column("key", no_wrap=True), "owner", "name", "may", "age", "state", box=None, pad_edge=False, header_style="dim")
    now_s = time.time()
    for key in found["data"]:
        state = "revoked" if key["revoked_at"] else "over" if 0 < key["expires_at"] < now_s else "holds"
        table.add_row(key["key_id"], key["owner"], key["name"], ", ".join(key["scopes"]), age(now_s - key["created_at"]), state)
    Console(file=stdout_of().text(), highlight=False).print(table)
    return 0


@command.command("revoke", cls=Verb)
@click.argument("key_id")
@url_option
@json_option
def revoke(key_id: str, url: str, as_json: bool) -> int:
    """Accept a key no more."""
    try:
        gone = Api(url).delete(f"/v1/keys/{key_id}")
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(gone)
    else:
        print_line(f"{key_id} is revoked")
    return 0


@command.command("audit", cls=Verb)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@url_option
@json_option
def audit(limit: int, url: str, as_json: bool) -> int:
    """What was published, promoted, made and revoked, and by which key; newest first."""
    try:
        found = Api(url).get("/v1/audit", limit=limit)
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(found)
        return 0
    for row in found["data"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row["at"]))
        print_line(f"{when}  {row['actor']:<18}  {row['action']:<12}  {row['owner']}: {row['subject']}  {row['detail']}".rstrip())
    return 0


def _seconds(life: str) -> float:
    if not life:
        return 0.0
    try:
        return float(parse_duration(life))
    except ValueError as exc:
        raise click.UsageError(f"--life {exc}") from None
