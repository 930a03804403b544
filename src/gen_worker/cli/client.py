"""`cozyctl client generate`: writes a typed client from the schemas of a release, or of the project in a folder."""

import os
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from gen_worker.cli.output import (
    EXIT_AUTH,
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_USAGE,
    Verb,
    fail,
    json_option,
    print_json,
    say,
    stdout_of,
    write_file,
)
from gen_worker.contract.manifest import FunctionEntry, Manifest, WebsocketEntry
from gen_worker.names import did_you_mean
from gen_worker.texts import counted

LANGUAGES = ("python", "typescript")


class Described(msgspec.Struct, frozen=True):
    """Functions of one endpoint, and where they were read from."""

    owner: str
    endpoint: str
    entries: Sequence[FunctionEntry | WebsocketEntry]
    source: str
    tag: str = ""


class NoSuchFunctionError(ValueError):
    """The endpoint has no function of this name."""


@click.group("client")
def command() -> None:
    """Typed clients for callers of functions."""


@command.command("generate", cls=Verb)
@click.argument("ref", metavar="REF|FOLDER")
@click.option("--lang", type=click.Choice(LANGUAGES), required=True, help="Language of the client.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write. Default: standard output.")
@click.option("--owner", default="local", show_default=True, metavar="NAME", help="Owner of the endpoint in FOLDER.")
@click.option("--import-from", metavar="MODULE", help="typescript: module to import the client from. [default: gen-worker-client]")
@click.option("--url", metavar="URL", help="The platform. Also COZY_URL. By default that of the profile.")
@json_option
def generate(ref: str, lang: str, output: Path | None, owner: str, import_from: str | None, url: str | None, as_json: bool) -> int:
    """Write a typed client for OWNER/ENDPOINT[/FUNCTION][:TAG|@RELEASE], or for the project in FOLDER.

    The same release gives the same bytes.
    """
    from gen_worker.client import AuthenticationError, ClientError, NotFoundError

    try:
        described = _of_folder(Path(ref), owner) if _is_folder(ref) else _of_release(ref, url)
    except NotFoundError as exc:
        return fail(str(exc), EXIT_NOT_FOUND, as_json=as_json, code=exc.code)
    except NoSuchFunctionError as exc:
        return fail(str(exc), EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    except AuthenticationError as exc:
        return fail(str(exc), EXIT_AUTH, as_json=as_json, code=exc.code)
    except ClientError as exc:
        return fail(str(exc), EXIT_FAILED, as_json=as_json, code=exc.code)
    except ValueError as exc:
        return fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage")
    text = _text(described, lang, import_from)
    if output is not None:
        try:
            write_file(output, text.encode())
        except OSError as exc:
            return fail(f"{output} was not written: {exc.strerror}", EXIT_FAILED, as_json=as_json, code="storage")
    if as_json:
        facts = {"path": str(output)} if output is not None else {"text": text}
        print_json({"functions": [entry.name for entry in described.entries], "language": lang, "source": described.source, **facts})
    elif output is None:
        stdout_of().write(text.encode())
    else:
        say(f"{output}: {counted(len(described.entries), 'function')} of {described.owner}/{described.endpoint}")
    return 0


def _is_folder(ref: str) -> bool:
    """Whether it names a folder: a path that exists, or is written as a path. Anything else names an endpoint."""
    return ref.startswith((".", os.sep, "~")) or (Path(ref) / "cozy.toml").is_file()


def _of_folder(folder: Path, owner: str) -> Described:
    from gen_worker import discover

    folder = folder.expanduser()
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder")
    found = discover.find(folder.resolve())
    for warning in found.warnings:
        say(f"warning: {warning}")
    if found.problem:
        raise ValueError(found.problem)
    manifest = msgspec.json.decode(discover.printed(found), type=Manifest)
    return Described(owner, manifest.endpoint_name, manifest.entries, "its project")


def _of_release(ref: str, url: str | None) -> Described:
    from gen_worker.client import Client

    mark = "@" if "@" in ref else ":"
    name, marked, rest = ref.partition(mark)
    parts = name.split("/")
    if len(parts) not in (2, 3) or not all(parts) or (marked and not rest):
        raise ValueError(f"{ref!r}: expected owner/endpoint[/function][:tag], owner/endpoint@release, or a folder with a cozy.toml")
    owner, endpoint, function = (*parts, "")[:3]
    with Client(url) as client:
        release_id, tag = (rest, "") if mark == "@" else ("", rest)
        found = client.release(owner, endpoint, release_id) if release_id else client.releases(owner, endpoint, tag=tag or "prod")
    entries = [entry for each in found.values() for entry in each if function in ("", entry.name)]
    if not entries:
        known = sorted(entry.name for each in found.values() for entry in each)
        raise NoSuchFunctionError(
            f"{owner}/{endpoint} has no function {function!r}.{did_you_mean(function, known)} Functions: {', '.join(known)}"
        )
    return Described(owner, endpoint, entries, f"release {', '.join(sorted(found))}", tag)


def _text(described: Described, lang: str, import_from: str | None) -> str:
    from gen_worker.codegen import python, typescript
    from gen_worker.codegen.shapes import read_endpoint

    write = python if lang == "python" else typescript
    endpoint = read_endpoint(described.owner, described.endpoint, described.entries, write.type_name)
    if lang == "python":
        return python.python_module(endpoint, described.source, tag=described.tag)
    return typescript.typescript_module(endpoint, described.source, import_from or typescript.PACKAGE, tag=described.tag)
