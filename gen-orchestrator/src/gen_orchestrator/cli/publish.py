"""`cozyctl publish`, and `cozyctl builds` to look at earlier ones."""

import gzip
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import click
from rich.table import Column

from gen_orchestrator.cli.api import Api, ApiError, ApiVerb, api_path, url_option
from gen_orchestrator.cli.shown import age, print_tables, table
from gen_orchestrator.hub.folders import FolderError, files_of
from gen_worker.cli.folder import folder_option
from gen_worker.cli.output import (
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    fail,
    interrupted,
    json_option,
    print_json,
    print_line,
    say,
)
from gen_worker.project.cozy_toml import find_cozy_toml

SECRET_FILES = (".env", ".netrc", ".pypirc", ".npmrc")
WAIT_S = 15


@click.command("publish", cls=ApiVerb)
@folder_option(positional=True)
@click.option("-m", "--message", default="", help="What is new in it.")
@click.option(
    "--builder", type=click.Choice(("process", "container")), help="Run it as a process, or as an image built from its Dockerfile."
)
@click.option("--image", default="", metavar="REF", help="Publish an existing image, such as registry.example/team/worker:1.")
@url_option
@json_option
def publish(folder: str, message: str, builder: str | None, image: str, url: str, as_json: bool) -> int:
    """Publish a folder or an image as a release. A function's first release becomes its `prod`; later ones wait for a promote."""
    root = Path(folder)
    if not image and find_cozy_toml(root, os.environ) is None:
        return fail(f"no cozy.toml in {root.resolve()}: is it an endpoint's folder?", EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    api = Api(url)
    build: dict[str, Any] = {}
    try:
        with tempfile.TemporaryFile() as archive:
            size_bytes = 0 if image else pack(root, archive)
            archive.seek(0)
            asked = {"image": image} if image else {"builder": builder} if builder else {}
            build = api.send("POST", "/v1/endpoints/publish", archive, "application/gzip", message=message, **asked)
        if not as_json:
            say(f"{image or f'sent {size_bytes / 1e6:.1f} MB'}; build {build['build_id']}")
        build = _follow(api, build, as_json=as_json)
    except FolderError as exc:
        return fail(str(exc), EXIT_FAILED, as_json=as_json, code="validation")
    except KeyboardInterrupt:
        return _stop(api, build, as_json=as_json)
    if build["status"] != "succeeded":
        if as_json:
            print_json(build)
            return EXIT_FAILED
        say(f"the build {build['status'].replace('succeeded', '')}; its log: cozyctl builds logs {build['build_id']}")
        return EXIT_FAILED
    try:
        release = api.get(api_path("releases", build["release_id"]))
    except ApiError:
        release = {}
    name, tags, unset = f"{build['owner']}/{build['endpoint']}", release.get("tags", []), release.get("unset_secrets", [])
    problems = release.get("model_problems", [])
    if as_json:
        print_json({**build, "unset_secrets": unset, "model_problems": problems})
        return 0
    print_line(build["release_id"])
    if build.get("existed"):
        _say_existed(build, release)
    for secret in unset:
        say(f"warning: no worker of it starts before {secret} is set: cozyctl secrets set {name} {secret}")
    for problem in problems:
        say(f"warning: {problem}")
    if tags:
        live = {each["name"] for each in release["manifest"].get("websockets") or ()}  # `invoke` cannot call these
        called = next((tag for tag in tags if tag.partition(":")[0] not in live), "")
        hint = f". Try it: cozyctl invoke {name}/{called.removesuffix(':prod')}" if called else ""
        say(f"it is {', '.join(tags)}{hint}")
    else:
        say(f"nothing points at it yet. What changes: cozyctl diff {name}:prod {build['release_id']}")
        say(f"serve it: cozyctl promote {build['release_id']}")
    return 0


@click.group("builds")
def builds() -> None:
    """List builds, read their logs, cancel one."""


@builds.command("list", cls=ApiVerb)
@url_option
@json_option
def list_builds(url: str, as_json: bool) -> int:
    """List builds, newest first."""
    found = Api(url).get("/v1/builds")
    if as_json:
        print_json(found)
        return 0
    shown = table(Column("build", no_wrap=True), "status", "release", "age", "message")
    for each in found["data"]:
        ago = age(time.time() - each["created_at"])
        shown.add_row(each["build_id"], each["status"], each["release_id"] or "-", ago, each["message"])
    print_tables(shown, none="no builds; make one with: cozyctl publish FOLDER")
    return 0


@builds.command("logs", cls=ApiVerb)
@click.argument("build_id")
@url_option
@json_option
def logs(build_id: str, url: str, as_json: bool) -> int:
    """Print a build's log until the build ends."""
    api = Api(url)
    if as_json:
        print_json(api.get(api_path("builds", build_id, "logs")))
        return 0
    try:
        build = _follow(api, api.get(api_path("builds", build_id)), as_json=False)
    except KeyboardInterrupt:
        return interrupted(f"the build continues; cancel it with: cozyctl builds cancel {build_id}", as_json=False)
    return 0 if build["status"] == "succeeded" else EXIT_FAILED


@builds.command("cancel", cls=ApiVerb)
@click.argument("build_id")
@url_option
@json_option
def cancel(build_id: str, url: str, as_json: bool) -> int:
    """Cancel a build. An ended build is not changed."""
    build = Api(url).post(api_path("builds", build_id, "cancel"))
    if as_json:
        print_json(build)
    else:
        print_line(build["status"])
    return 0


def pack(root: Path, into: IO[bytes]) -> int:
    """Write a gzip tar of a release's files from this folder, without secret files; returns its size. Equal folders give equal bytes."""
    with (
        gzip.GzipFile(fileobj=into, mode="wb", mtime=0, compresslevel=6, filename="") as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in files_of(root):
            if path.name in SECRET_FILES:
                continue
            member = tarfile.TarInfo(path.relative_to(root).as_posix())
            status = path.stat()
            member.size, member.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
            with path.open("rb") as file:
                archive.addfile(member, file)
    return into.tell()


def _say_existed(build: dict[str, Any], release: dict[str, Any]) -> None:
    """Where the message is, if the same files were published before: a release never changes, and keeps the message that it has."""
    if build["message"] not in ("", release.get("message")):
        of_it = f"has the message {release['message']!r}" if release.get("message") else "has no message"
        say(f"the release {of_it}, and releases never change: {build['message']!r} is kept with the build alone (cozyctl builds list)")


def _stop(api: Api, build: dict[str, Any], *, as_json: bool) -> int:
    """Ctrl-C: cancel the build. A release that it made before the cancel stays, with no tag."""
    if not build:
        return interrupted("interrupted before the platform had received everything: nothing is published", as_json=as_json)
    ended = api.post(api_path("builds", build["build_id"], "cancel"))
    release = f", as {ended['release_id']}" if ended.get("release_id") else ""
    return interrupted(f"build {ended['build_id']} is {ended['status']}{release}", as_json=as_json, build=ended)


def _follow(api: Api, build: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """The finished build; its lines are printed as they come."""
    after = 0
    while True:
        found = api.get(api_path("builds", build["build_id"], "logs"), after=after, wait=WAIT_S)
        for line in found["lines"]:
            if not as_json:
                say(f"  {line['text']}")
        after = found["next"]
        if found["status"] not in ("queued", "running") and not found["lines"]:
            ended: dict[str, Any] = api.get(api_path("builds", build["build_id"]))
            return ended
