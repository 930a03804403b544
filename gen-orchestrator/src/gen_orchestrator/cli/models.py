"""`cozyctl models push|show|rm|hub`: models stored on a platform."""

import errno
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click
import msgspec
from blake3 import blake3
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Column, Table

from gen_orchestrator.cli.api import Api, ApiVerb, api_path, url_option
from gen_orchestrator.cli.model_inbox import Handed, Laid, inbox_of, laid
from gen_orchestrator.cli.shown import age, print_tables
from gen_orchestrator.hub.model_records import refusal_of
from gen_worker.cli.output import EXIT_FAILED, EXIT_USAGE, fail, interrupted, json_option, print_json, print_line, say
from gen_worker.refs import CozyRef, parse_model_ref
from gen_worker.texts import counted

READ_BYTES = 8 << 20
_SKIPPED = ("__pycache__", "node_modules")


@click.command("push", cls=ApiVerb)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("ref", metavar="OWNER/REPO[:TAG]")
@click.option("-m", "--message", default="", help="What is new in it.")
@click.option("--allow-unsafe", is_flag=True, help="Also push files that can run code when they are loaded: pickles, Python.")
@click.option(
    "--link",
    is_flag=True,
    help="On the platform's machine: keep the files themselves, where the disk cannot share bytes between a file and its copy. They become "
    "read-only. If you change the files of a model nevertheless, it is not served until you push it again.",
)
@url_option
@json_option
def push(folder: Path, ref: str, message: str, allow_unsafe: bool, link: bool, url: str, as_json: bool) -> int:
    """Store a model folder on the platform as OWNER/REPO, tag TAG (latest). Files it has already are not sent again. On the platform's
    machine, nothing is sent: the platform gets copies that share their bytes with the files where the disk can do that."""
    name = _repo(ref)
    files = files_of(folder)
    if not files:
        return fail(f"{folder} holds no files", EXIT_FAILED, as_json=as_json, code="validation")
    if not allow_unsafe and (refusal := refusal_of(each.relative_to(folder).as_posix() for each, _ in files)):
        return fail(refusal, EXIT_USAGE, as_json=as_json, code="validation")  # before they are read, which takes long
    api, handed = Api(url), Handed()
    path = api_path("models", name.owner, name.repo, "tags", name.tag)
    try:
        if not as_json:
            say(f"reading {counted(len(files), 'file')}, {sum(size for _, size in files) / 1e6:.1f} MB")
        listed = [
            {"path": each.relative_to(folder).as_posix(), "size_bytes": size, "blake3": digest_of(each, size)} for each, size in files
        ]
        body = {"files": listed, "message": message, "allow_unsafe": allow_unsafe}
        answer = api.put(path, body)
        if "missing" in answer:
            inbox = inbox_of(answer.get("inbox"))
            if link and inbox is None and not as_json:
                say("the platform is on another machine, or of another user: the files are sent")

            def lay(path: Path) -> AbstractContextManager[Laid | None]:
                return nullcontext() if inbox is None else laid(path, inbox, link=link)

            _send(api, folder, listed, answer["missing"], lay, handed, quiet=as_json)
            answer = api.put(path, body)
        if "missing" in answer:
            return fail(
                f"{counted(len(answer['missing']), 'blob')} lost on the way; push again", EXIT_FAILED, as_json=as_json, code="retryable"
            )
    except OSError as exc:
        return fail(f"{exc.filename or folder}: {exc.strerror}", EXIT_FAILED, as_json=as_json, code="validation")
    except KeyboardInterrupt:
        return interrupted("interrupted; the next push does not send completed files again", as_json=as_json)
    if as_json:
        print_json({**answer, "handed": msgspec.to_builtins(handed)})
        return 0
    print_line(answer["ref"])
    for line in handed.told() if link else ():
        say(line)
    version = answer["version"]
    say(f"{version['precision']}, {version['digest']}")
    if not version["licence"]:
        say("it has no LICENSE file: users will not know its terms")
    key = name.repo.replace(".", "-")
    say(f'use it in cozy.toml: [models] {key} = {{ ref = "{answer["ref"]}", dtypes = ["{version["precision"]}"] }}')
    return 0


@click.command("show", cls=ApiVerb)
@click.argument("ref", metavar="OWNER/REPO")
@url_option
@json_option
def show(ref: str, url: str, as_json: bool) -> int:
    """Show a model on the platform: its tags, versions and files."""
    name = _repo(ref)
    found = Api(url).get(api_path("models", name.owner, name.repo))
    if as_json:
        print_json(found)
        return 0
    tags: dict[str, list[str]] = {}
    for tag in found["tags"]:
        for digest in tag["versions"].values():
            tags.setdefault(digest, []).append(tag["tag"])
    for version in found["versions"]:
        line = f"{version['digest']}  {version['precision']}  {version['size_bytes'] / 1e6:.1f} MB  {', '.join(tags[version['digest']])}"
        print_line(f"{line}  {version['message']}".rstrip())
        for file in version["files"]:
            print_line(f"  {file['size_bytes']:>14,}  {file['path']}")
        if path := version.get("changed_link"):
            say(f"{path} was pushed with --link and has changed since, so workers cannot get this version: push it again")
    return 0


@click.command("rm", cls=ApiVerb)
@click.argument("ref", metavar="OWNER/REPO[:TAG]")
@url_option
@json_option
def remove(ref: str, url: str, as_json: bool) -> int:
    """Delete a tag of a model on the platform, or the whole model. Unused files are deleted after an hour."""
    name = _repo(ref)
    suffix = f"/tags/{name.tag}" if ":" in ref.removeprefix("cozy:") else ""
    found = Api(url).delete(api_path("models", name.owner, name.repo) + suffix)
    if as_json:
        print_json(found)
    else:
        print_line(f"deleted {ref}")
    return 0


@click.command("hub", cls=ApiVerb)
@click.argument("action", type=click.Choice(("list", "gc")), default="list")
@url_option
@json_option
def hub(action: str, url: str, as_json: bool) -> int:
    """List models on the platform. `gc` deletes unused files; the platform does so itself every hour."""
    if action == "gc":
        gone = Api(url).post("/v1/repos/gc")
        if as_json:
            print_json(gone)
        else:
            print_line(f"{counted(gone['blobs'], 'file')} removed, {gone['freed_bytes'] / 1e6:.1f} MB freed")
        return 0
    found = Api(url).get("/v1/repos")
    if as_json:
        print_json(found)
        return 0
    table = Table(Column("model", no_wrap=True), "precisions", "moved", box=None, pad_edge=False, header_style="dim")
    for repo in found["data"]:
        for tag in repo["tags"]:
            ago = f"{age(time.time() - tag['moved_at'])} ago"
            table.add_row(f"{repo['owner']}/{repo['repo']}:{tag['tag']}", ", ".join(sorted(tag["versions"])), ago)
    print_tables(table, none="no models on the platform; store one with: cozyctl models push FOLDER OWNER/REPO")
    return 0


def files_of(folder: Path) -> list[tuple[Path, int]]:
    """A model's files and sizes, sorted; names that begin with a dot are skipped."""
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part in _SKIPPED for part in parts):
            found.append((path, path.stat().st_size))
    return found


def digest_of(path: Path, size_bytes: int) -> str:
    """BLAKE3 of a file, in hexadecimal. `OSError` if it has another size, or changes meanwhile."""
    hasher = blake3(max_threads=blake3.AUTO)
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        while chunk := file.read(READ_BYTES):  # not mapped: if somebody shortened the file, this process would crash
            hasher.update(chunk)
        after = os.fstat(file.fileno())
    if before.st_size != size_bytes or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise OSError(errno.EAGAIN, "it changed while it was read; push again when no program writes to it", str(path))
    return hasher.hexdigest()


_Lay = Callable[[Path], AbstractContextManager[Laid | None]]


def _send(api: Api, folder: Path, listed: list[dict[str, Any]], missing: list[str], lay: _Lay, handed: Handed, *, quiet: bool) -> None:
    wanted = {file["blake3"]: file for file in listed if file["blake3"] in set(missing)}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as shown:
        task = shown.add_task("sending", total=sum(file["size_bytes"] for file in wanted.values()))
        for digest, file in wanted.items():
            path = f"/v1/blobs/blake3:{digest}"
            with lay(folder / file["path"]) as found:
                if found is not None:
                    api.put(path, inbox=found.name, linked="true" if found.linked else "")
                else:
                    with (folder / file["path"]).open("rb") as content:
                        api.send("PUT", path, content, "application/octet-stream")
            handed.note(found)
            shown.advance(task, file["size_bytes"])


def _repo(ref: str) -> CozyRef:
    try:
        found = parse_model_ref(ref)
    except ValueError:
        found = None
    if not isinstance(found, CozyRef) or found.digest is not None:
        raise click.UsageError(f"{ref!r}: expected owner/repo or owner/repo:tag, such as local/my-model:latest")
    return found
