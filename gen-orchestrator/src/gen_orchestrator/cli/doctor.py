"""`cozyctl doctor`: problems of the project in this folder, and the platform's disk use."""

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from gen_orchestrator.cli.api import Api, ApiError, ApiVerb, url_option
from gen_orchestrator.cli.shown import size
from gen_orchestrator.cli.up import default_data
from gen_orchestrator.hub.disk_report import DataFolder, DiskReport
from gen_orchestrator.hub.models import ModelStore
from gen_worker.cli.check import examine
from gen_worker.cli.folder import folder_option
from gen_worker.cli.output import EXIT_FAILED, json_option, print_json, print_line, say
from gen_worker.project.cozy_toml import find_cozy_toml


@click.command("doctor", cls=ApiVerb, short_help="Check the project and the platform's disk use.")
@folder_option(positional=True)
@click.option("--data", type=click.Path(path_type=Path), help="A data folder, read without its platform.")
@url_option
@json_option
def command(folder: str, data: Path | None, url: str, as_json: bool) -> int:
    """Check the project in this folder (as `cozyctl check`), and show the platform's disk use. Exit status 1 when
    something is wrong, or the disk is nearly full.
    """
    root = Path(folder)
    if data is not None and not data.is_dir():
        raise click.UsageError(f"--data {data}: expected a folder")
    found = examine(root) if find_cozy_toml(root, os.environ) is not None else None
    report = _report(url, data)
    is_well = not (found is not None and found.errors) and not (report is not None and report.is_nearly_full)
    if as_json:
        print_json({"ok": is_well, "project": msgspec.to_builtins(found), "disk": msgspec.to_builtins(report)})
        return 0 if is_well else EXIT_FAILED
    if found is not None:
        for text in (*(f"warning: {each}" for each in found.warnings), *(f"error: {each}" for each in found.errors)):
            say(text)
        if not found.errors:
            say(f"ok: {', '.join(found.functions)}")
    if report is None:
        say(f"no platform answers at {url}, and there is no data folder {default_data()}; name one with --data")
        return 0 if is_well else EXIT_FAILED
    _print(report)
    if report.is_nearly_full:
        say(f"the disk is nearly full: {size(report.free_bytes)} of {size(report.size_bytes)} are free")
    return 0 if is_well else EXIT_FAILED


def _report(url: str, data: Path | None) -> DiskReport | None:
    """The platform's own report, which knows its releases; if no platform answers, a report made from the data folder."""
    if data is None:
        try:
            return msgspec.convert(_asked(url), DiskReport)
        except ApiError as exc:
            if exc.code != "unreachable":
                raise
            data = default_data()
    if not data.is_dir():
        return None
    return DataFolder(data, ModelStore(data / "models")).look()


def _asked(url: str) -> Any:
    return Api(url).get("/v1/disk")


def _print(report: DiskReport) -> None:
    print_line(f"{report.folder}: {size(report.free_bytes)} of {size(report.size_bytes)} are free")
    for kind, size_bytes in report.bytes.items():
        if size_bytes:
            print_line(f"  {kind:<13} {size(size_bytes):>9}")
    print_line(f"  {'together':<13} {size(sum(report.bytes.values())):>9}")
    for each in report.freeable:
        print_line(f"{size(each.size_bytes)} are free after: {each.command}  ({each.what})")
    print_line("models that workers have fetched: cozyctl models list, cozyctl models gc")
