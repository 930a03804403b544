"""`cozyctl files put|get|list|rm|url`: files of one's own on a platform, as inputs of runs, and outputs of runs."""

import secrets
import shutil
from pathlib import Path
from urllib.parse import quote

import click
from rich.table import Column, Table

from gen_orchestrator.cli.api import Api, ApiVerb, url_option
from gen_worker.cli.output import EXIT_FAILED, fail, json_option, print_json, print_line, say, stdout_of, table_console
from gen_worker.texts import counted

owner_option = click.option("--owner", default="", metavar="NAME", help="Whose file. By default that of the key, or of the platform.")


@click.group("files")
def command() -> None:
    """Files on a platform: inputs for runs, and what runs have saved."""


@command.command("put", cls=ApiVerb)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("ref", required=False)
@click.option("--create", is_flag=True, help="Refuse where REF exists.")
@owner_option
@url_option
@json_option
def put(file: Path, ref: str | None, create: bool, owner: str, url: str, as_json: bool) -> int:
    """Send FILE, to be used as {"ref": "REF"} in payloads. By default REF is uploads/ and its name."""
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
    """Fetch a file: an upload, or an output of a run."""
    api = Api(url)
    target = output or Path(ref.rstrip("/").rpartition("/")[2])
    with api.download(_path(api, owner, ref)) as content:
        if str(target) == "-":
            shutil.copyfileobj(content, stdout_of(), 1 << 20)
            return 0
        new = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")  # nobody takes half of it for the whole
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
    """Uploads, by ref."""
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
    """Forget an upload."""
    api = Api(url)
    gone = api.delete(_path(api, owner, ref))
    if as_json:
        print_json(gone)
    else:
        print_line(f"{gone['ref']} is forgotten")
    return 0


@command.command("url", cls=ApiVerb)
@click.argument("ref")
@click.option("--life", default="1h", show_default=True, metavar="TIME", help="For how long it holds, such as 10m or 7d.")
@click.option("--method", type=click.Choice(["GET", "PUT", "POST", "DELETE"]), default="GET", show_default=True)
@owner_option
@url_option
@json_option
def signed(ref: str, life: str, method: str, owner: str, url: str, as_json: bool) -> int:
    """An address of one file that holds without a key, for one method, until it expires."""
    api = Api(url)
    made = api.get(_path(api, owner, ref), sign=life, method=method)
    if as_json:
        print_json(made)
        return 0
    print_line(made["url"])
    say(f"for {made['method']}, until {made['expires_at']}; who has it needs no key")
    return 0


def _path(api: Api, owner: str, ref: str) -> str:
    return f"/v1/files/{quote(owner or api.owner(), safe='')}/{quote(ref.lstrip('/'))}"
