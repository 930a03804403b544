"""`cozyctl files put|get|list|rm|url`: a user's files on a platform, as inputs of runs, and outputs of runs."""

import secrets
import shutil
from pathlib import Path
from urllib.parse import quote

import click
from rich.table import Column, Table

from gen_orchestrator.cli.api import Api, ApiVerb, quoted, url_option
from gen_worker.cli.output import EXIT_FAILED, fail, json_option, print_json, print_line, say, stdout_of, table_console
from gen_worker.texts import counted

owner_option = click.option("--owner", default="", metavar="NAME", help="Owner of the file. By default the key's, or the platform's.")


@click.group("files")
def command() -> None:
    """Files on the platform: inputs for runs, and outputs of runs."""


@command.command("put", cls=ApiVerb)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("ref", required=False)
@click.option("--create", is_flag=True, help="Fail if REF exists.")
@owner_option
@url_option
@json_option
def put(file: Path, ref: str | None, create: bool, owner: str, url: str, as_json: bool) -> int:
    """Upload FILE. Payloads use it as {"ref": "REF"}. By default REF is uploads/ and the file's name."""
    api = Api(url)
    name = ref or f"uploads/{file.name}"
    try:
        with file.open("rb") as content:
            kept = api.send("POST" if create else "PUT", _path(api, owner, name), content, "application/octet-stream")
    except OSError as exc:
        return fail(f"{file} cannot be read: {exc.strerror}", EXIT_FAILED, as_json=as_json, code="validation")
    if as_json:
        print_json(kept)
        return 0
    print_line(kept["ref"])
    until = f", until {kept['expires_at']}" if kept["expires_at"] else ""
    say(f"{counted(kept['size_bytes'], 'byte')}, sha256 {kept['sha256']}{until}")
    return 0


@command.command("get", cls=ApiVerb)
@click.argument("ref")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it; - for standard output. Default: its name, here.")
@owner_option
@url_option
@json_option
def get(ref: str, output: Path | None, owner: str, url: str, as_json: bool) -> int:
    """Download a file: an upload, or an output of a run."""
    api = Api(url)
    target = output or Path(ref.rstrip("/").rpartition("/")[2])
    with api.download(_path(api, owner, ref)) as content:
        if str(target) == "-":
            shutil.copyfileobj(content, stdout_of(), 1 << 20)
            return 0
        new = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")  # so that nobody uses an incomplete file
        try:
            with new.open("xb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            new.replace(target)
        except OSError as exc:
            return fail(f"{target} was not written: {exc.strerror or exc}", EXIT_FAILED, as_json=as_json, code="storage")
        finally:
            new.unlink(missing_ok=True)
    size_bytes = target.stat().st_size
    if as_json:
        print_json({"ref": ref, "path": str(target), "size_bytes": size_bytes})
    else:
        print_line(str(target))
        say(counted(size_bytes, "byte"))
    return 0


@command.command("list", cls=ApiVerb)
@click.argument("prefix", default="")
@owner_option
@url_option
@json_option
def list_files(prefix: str, owner: str, url: str, as_json: bool) -> int:
    """List uploads by ref."""
    api = Api(url)
    found, cursor = [], ""
    while True:
        page = api.get("/v1/files", prefix=prefix, owner=owner, cursor=cursor, limit=1000)
        found += page["data"]
        cursor = page["next_cursor"] or ""
        if not cursor:
            break
    if as_json:
        print_json({"data": found})
        return 0
    table = Table(Column("ref", no_wrap=True), "owner", "bytes", "type", "until", box=None, pad_edge=False, header_style="dim")
    for each in found:
        table.add_row(each["ref"], each["owner"], f"{each['size_bytes']:,}", each["mime_type"], each["expires_at"] or "")
    table_console().print(table)
    return 0


@command.command("rm", cls=ApiVerb)
@click.argument("ref")
@owner_option
@url_option
@json_option
def remove(ref: str, owner: str, url: str, as_json: bool) -> int:
    """Delete an upload."""
    api = Api(url)
    gone = api.delete(_path(api, owner, ref))
    if as_json:
        print_json(gone)
    else:
        print_line(f"deleted {gone['ref']}")
    return 0


@command.command("url", cls=ApiVerb)
@click.argument("ref")
@click.option("--life", default="1h", show_default=True, metavar="TIME", help="How long it is valid, such as 10m or 7d.")
@click.option("--method", type=click.Choice(["GET", "PUT", "POST", "DELETE"]), default="GET", show_default=True)
@owner_option
@url_option
@json_option
def signed(ref: str, life: str, method: str, owner: str, url: str, as_json: bool) -> int:
    """Make a URL for one file and method that works without a key until it expires."""
    api = Api(url)
    made = api.get(_path(api, owner, ref), sign=life, method=method)
    if as_json:
        print_json(made)
        return 0
    print_line(made["url"])
    say(f"for {made['method']}, until {made['expires_at']}; it works without a key")
    return 0


def _path(api: Api, owner: str, ref: str) -> str:
    return f"/v1/files/{quoted(owner or api.owner())}/{quote(ref.lstrip('/'))}"
