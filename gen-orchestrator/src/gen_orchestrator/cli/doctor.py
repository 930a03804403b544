"""`cozyctl doctor`: problems of the project in this folder, and the platform's disk use.

--data FOLDER                    that folder, read without a platform
the platform answers             its own report, which knows its releases
none answers on this machine     the default data folder, if there is one
none answers on another machine  only that it does not: this machine's disk would say nothing about it
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec

from gen_orchestrator.cli.api import DEFAULT_URL, Api, ApiError, ApiVerb, url_option
from gen_orchestrator.cli.shown import size
from gen_orchestrator.cli.up import LOOPBACK, default_data
from gen_orchestrator.hub.disk_report import DataFolder, DiskReport
from gen_orchestrator.hub.models import ModelStore
from gen_worker.cli.check import Findings, examine
from gen_worker.cli.folder import folder_option
from gen_worker.cli.output import EXIT_FAILED, EXIT_NOT_FOUND, fail, json_option, print_json, print_line, say
from gen_worker.project.cozy_toml import find_cozy_toml


class Seen(msgspec.Struct, frozen=True):
    """What was learned about a platform. `code` and `error`: why it gave no report; empty otherwise. `is_wrong`: whether somebody should
    do something about it. Nobody needs a platform that they have not named, or the report of one that belongs to others.
    """

    url: str
    code: str = ""
    error: str = ""
    is_wrong: bool = False


@click.command("doctor", cls=ApiVerb, short_help="Check the project and the platform's disk use.")
@folder_option(positional=True)
@click.option("--data", type=click.Path(path_type=Path), help="A data folder, read without its platform.")
@url_option
@json_option
def command(folder: str, data: Path | None, url: str, as_json: bool) -> int:
    """Check the project in this folder (as `cozyctl check`), and show the platform's disk use. Exit status 1 when
    something is wrong, the disk is nearly full, or the platform that you named does not answer.
    """
    root = Path(folder)
    if data is not None and not data.is_dir():
        raise click.UsageError(f"--data {data}: expected a folder")
    found = examine(root) if find_cozy_toml(root, os.environ) is not None else None
    platform, report = (None, None) if data is not None else _asked(url, is_named=_is_named(url))
    if data is None and platform is not None and platform.code == "unreachable" and _is_here(url) and default_data().is_dir():
        data = default_data()
    if data is not None:
        try:
            report = DataFolder(data, ModelStore(data / "models")).look()
        except OSError as exc:
            return fail(f"the data folder {data} cannot be read: {exc.strerror}", EXIT_FAILED, as_json=as_json, code="storage")
    if found is None and report is None and platform is not None and not platform.is_wrong:
        nothing = f"nothing to look at: no cozy.toml in {root.resolve()}, and {platform.error}"
        return fail(nothing, EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    is_well = not (found is not None and found.errors) and not (report is not None and report.is_nearly_full)
    is_well = is_well and not (platform is not None and platform.is_wrong)
    if as_json:
        print_json(
            {
                "ok": is_well,
                "project": msgspec.to_builtins(found),
                "platform": msgspec.to_builtins(platform),
                "disk": msgspec.to_builtins(report),
            }
        )
        return 0 if is_well else EXIT_FAILED
    if found is not None:
        _print_project(found)
    if platform is not None and platform.error:
        say(f"{'error' if platform.is_wrong else 'note'}: {platform.error}")
    if report is not None:
        _print(report, where=f"{url}, " if platform is not None and not platform.error else "")
    return 0 if is_well else EXIT_FAILED


def _asked(url: str, *, is_named: bool) -> tuple[Seen, DiskReport | None]:
    """The platform's own report, if it gives one. One that is starting is not waited for: its start may be what is looked into."""
    try:
        return Seen(url), msgspec.convert(Api(url, starting_s=0).get("/v1/disk"), DiskReport)
    except ApiError as exc:
        is_wrong = exc.code != "forbidden" and (is_named or exc.code != "unreachable")
        if exc.code == "usage":
            raise
        return Seen(url, exc.code, str(exc), is_wrong), None
    except msgspec.ValidationError as exc:
        return Seen(url, "unexpected", f"the disk report of {url} has another format: {exc}. Is it older than this cozyctl?", True), None


def _is_named(url: str) -> bool:
    source = click.get_current_context().get_parameter_source("url")
    return url != DEFAULT_URL or source in (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)


def _is_here(url: str) -> bool:
    return (urlsplit(url).hostname or "") in LOOPBACK


def _print_project(found: Findings) -> None:
    for text in (*(f"warning: {each}" for each in found.warnings), *(f"error: {each}" for each in found.errors)):
        say(text)
    if not found.errors:
        say(f"ok: {', '.join(found.functions)}")


def _print(report: DiskReport, *, where: str) -> None:
    print_line(f"{where}{report.folder}: {size(report.free_bytes)} of {size(report.size_bytes)} are free")
    for kind, size_bytes in report.bytes.items():
        if size_bytes:
            print_line(f"  {kind:<13} {size(size_bytes):>9}")
    print_line(f"  {'together':<13} {size(sum(report.bytes.values())):>9}")
    for each in report.freeable:
        print_line(f"{size(each.size_bytes)} are free after: {each.command}  ({each.what})")
    print_line("models that workers have fetched: cozyctl models list, cozyctl models gc")
    if report.is_nearly_full:
        say(f"error: the disk is nearly full: {size(report.free_bytes)} of {size(report.size_bytes)} are free")
