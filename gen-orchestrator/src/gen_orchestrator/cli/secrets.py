"""`cozyctl secrets set|list|rm`: values that an endpoint's workers get as environment variables. A value is never a command argument."""

import sys
import time

import click
from rich.console import Console
from rich.table import Column, Table

from gen_orchestrator.cli.api import Api, ApiError, api_path, url_option
from gen_orchestrator.cli.shown import age
from gen_worker.cli.output import Verb, json_option, print_json, print_line, say, stdout_of


@click.group("secrets")
def command() -> None:
    """Set, list and remove secrets of an endpoint's functions."""


@command.command("set", cls=Verb)
@click.argument("endpoint", metavar="OWNER/ENDPOINT")
@click.argument("name")
@url_option
@json_option
def set_secret(endpoint: str, name: str, url: str, as_json: bool) -> int:
    """Set a secret. The value is read from stdin, or asked for on a terminal.

    Workers whose release names it under [secrets] in cozy.toml get it as an environment variable; running workers are drained and
    replaced.
    """
    path = _path(endpoint)
    if "=" in name:  # the message must not repeat the value
        name = name.partition("=")[0]
        raise click.UsageError(
            f"a value is no argument, because shells keep arguments: it is read from stdin. "
            f"Use: cozyctl secrets set {endpoint} {name or 'NAME'} < file, or without `< file` to be asked for it"
        )
    try:
        made = Api(url).put(f"{path}/{name}", {"value": _value(name)})
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(made)
        return 0
    print_line(f"{name} of {endpoint} is set (version {made['version']})")
    if not made["published"]:
        say(f"nothing is published as {endpoint} yet. Published endpoints: cozyctl releases")
    elif not made["declared"]:
        say(f'no release of {endpoint} declares it. In cozy.toml: [secrets] {name} = "what it is for"')
    return 0


@command.command("list", cls=Verb)
@click.argument("endpoint", metavar="OWNER/ENDPOINT")
@url_option
@json_option
def list_secrets(endpoint: str, url: str, as_json: bool) -> int:
    """List the secrets of an endpoint, without their values."""
    try:
        found = Api(url).get(_path(endpoint))
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(found)
        return 0
    table = Table(Column("secret", no_wrap=True), "version", "set", "by", "state", box=None, pad_edge=False, header_style="dim")
    now_s = time.time()
    for each in found["data"]:
        state = "" if each["declared"] else "no release in use declares it"
        if not each["readable"]:
            state = "encrypted with another data folder's key: set it again"
        table.add_row(each["name"], str(each["version"]), f"{age(now_s - each['set_at'])} ago", each["set_by"], state)
    Console(file=stdout_of().text(), highlight=False).print(table)
    for name in found["missing"]:
        say(f"{name} is declared but not set. Set it: cozyctl secrets set {endpoint} {name}")
    return 0


@command.command("rm", cls=Verb)
@click.argument("endpoint", metavar="OWNER/ENDPOINT")
@click.argument("name")
@url_option
@json_option
def remove(endpoint: str, name: str, url: str, as_json: bool) -> int:
    """Delete a secret."""
    try:
        gone = Api(url).delete(f"{_path(endpoint)}/{name}")
    except ApiError as exc:
        return exc.report(as_json=as_json)
    if as_json:
        print_json(gone)
    else:
        print_line(f"{name} of {endpoint} is removed")
    return 0


def _path(endpoint: str) -> str:
    owner, slash, name = endpoint.partition("/")
    if not slash or not owner or not name or "/" in name:
        raise click.UsageError(f"{endpoint!r}: expected OWNER/ENDPOINT, such as local/hello")
    return api_path("endpoints", owner, name, "secrets")


def _value(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"value of {name}", hide_input=True, confirmation_prompt=True, err=True))
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"the value of {name} on stdin is not UTF-8; encode it, for example with base64") from None
    return text.removesuffix("\n").removesuffix("\r")  # added by `echo` and editors
