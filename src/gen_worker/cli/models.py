"""`cozyctl models ...`: what a project's models need, what is on this disk, and how to maintain it."""

import asyncio
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import msgspec

from gen_worker.cli.folder import folder_flag, folder_option
from gen_worker.cli.model_bars import ModelBars
from gen_worker.cli.model_bench import Bench, PlatformAddress
from gen_worker.cli.output import (
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_USAGE,
    Verb,
    fail,
    json_option,
    print_json,
    print_line,
    say,
    table_console,
)
from gen_worker.content.disk import free_bytes
from gen_worker.content.housekeeping import collect, repair, verify
from gen_worker.content.measured import NET, Measurements
from gen_worker.errors import WorkerError
from gen_worker.names import did_you_mean
from gen_worker.refs import canonical_ref
from gen_worker.residency.devices import model_cache
from gen_worker.residency.hardware import GpuWatch
from gen_worker.sources.arrivals import Arrivals
from gen_worker.sources.plan import ModelPlan, Room
from gen_worker.sources.source import ModelWant, OverrideError
from gen_worker.texts import counted

names_argument = click.argument("names", nargs=-1, metavar="[KEY|REF]...")
model_option = click.option(
    "--model", "models", multiple=True, metavar="KEY=FOLDER", help="Use a local folder for a model key. May be repeated."
)
dtype_option = click.option(
    "--dtype", "dtypes", multiple=True, help="Allowed precision, best first, instead of those in cozy.toml. May be repeated."
)


def platform_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name the platform which `cozy:` refs come from."""
    url = click.option("--url", metavar="URL", help="The platform for `cozy:` refs. Also COZY_URL. By default that of the profile.")
    profile = click.option("--profile", metavar="NAME[/PROFILE]", help="Profile of `cozyctl login`. By default the one in use.")
    return url(profile(command))


def _platform(url: str | None, profile: str | None) -> PlatformAddress:
    try:
        return PlatformAddress.find(url, profile, os.environ)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None


ADDED_VERBS = "gen_worker.cli.models"  # entry points by which other distributions add verbs; gen-orchestrator adds `push`


class _Models(click.Group):
    """Our verbs, and those added by other distributions."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(point.name for point in entry_points(group=ADDED_VERBS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None:
            for point in entry_points(group=ADDED_VERBS, name=cmd_name):
                added: click.Command = point.load()
                return added
        return found


@click.group("models", cls=_Models)
def command() -> None:
    """Plan, fetch, list and check models."""


def _opened(folder: str, as_json: bool, models: Sequence[str] = (), platform: PlatformAddress | None = None) -> "Bench | int":
    try:
        return Bench(folder, models, platform)
    except OverrideError as exc:
        return fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage")
    except ValueError as exc:
        return fail(str(exc), EXIT_FAILED, as_json=as_json)


@command.command("plan", cls=Verb)
@names_argument
@folder_option()
@model_option
@dtype_option
@platform_options
@json_option
def plan(
    names: tuple[str, ...],
    folder: str,
    models: tuple[str, ...],
    dtypes: tuple[str, ...],
    url: str | None,
    profile: str | None,
    as_json: bool,
) -> int:
    """Show what the models need on this machine and where they come from, before any download. Exit status 1 when one does not fit."""
    bench = _opened(folder, as_json, models, _platform(url, profile))
    if isinstance(bench, int):
        return bench
    measured = Measurements(bench.settings.cas_root.parent / "measured.json").rate(NET)
    room = Room(
        bench.settings.cas_root,
        round(bench.settings.worker_min_free_disk_gb * 1e9),
        model_cache(bench.devices, GpuWatch(bench.devices).read().memory_bytes).ledger.capacity_bytes,
        float(measured),
    )
    plans = []
    try:
        for want in bench.wants(names, dtypes):
            plans.append(bench.plan(want, room))
    except ValueError as exc:
        return fail(str(exc), EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    except WorkerError as exc:
        return fail(str(exc), EXIT_FAILED, as_json=as_json, code=exc.code)
    together = _together(plans, room)
    ok = all(item.fits for item in plans) and not together
    if as_json:
        print_json({"ok": ok, "models": [msgspec.to_builtins(item) for item in plans], "problems": together})
    else:
        _show_plans(plans, together)
        where = "".join(f" --{name} {shlex.quote(text)}" for name, text in (("url", url), ("profile", profile)) if text)
        if ok and (command := _after_plan(plans, names, folder, models, dtypes, where, in_project=bench.in_project)):
            say(f"next: {command}")
    return 0 if ok else EXIT_FAILED


def _after_plan(
    plans: list[ModelPlan],
    names: Sequence[str],
    folder: str,
    models: Sequence[str],
    dtypes: Sequence[str],
    where: str,
    *,
    in_project: bool,
) -> str:
    """The next command: fetch what is missing, or use what is here; empty if there is nothing to do."""
    flags = "".join(f" --model {shlex.quote(text)}" for text in models)
    if not any(item.size_bytes > item.here_bytes for item in plans):
        return f"cozyctl dev{folder_flag(folder)}{flags}" if plans and in_project else ""
    named = "".join(f" {shlex.quote(name)}" for name in names)
    return f"cozyctl models prefetch{named}{folder_flag(folder)}{flags}{''.join(f' --dtype {dtype}' for dtype in dtypes)}{where}"


def _together(plans: list[ModelPlan], room: Room) -> list[str]:
    missing = sum(item.size_bytes - item.here_bytes for item in plans)
    free = free_bytes(room.folder)
    if len(plans) > 1 and missing + room.floor_bytes > free and all(item.fits for item in plans):
        return [f"together they need {missing / 1e9:.2f} GB more, and the disk has {free / 1e9:.2f} GB free"]
    return []


def _show_plans(plans: list[ModelPlan], together: list[str]) -> None:
    from rich import box
    from rich.table import Table

    console = table_console()
    if not plans:
        console.print("no models are declared; add them under [models] in cozy.toml")
    for item in plans:
        table = Table(box=box.SIMPLE, title=f"{item.key}  {item.ref}  ({item.source}, {item.kind})", title_justify="left")
        for name in ("component", "files", "size", "on the device", "precision"):
            table.add_column(name, justify="left" if name in ("component", "precision") else "right")
        for part in item.parts:
            weight = human(part.weight_bytes) if part.weight_bytes else ""
            table.add_row(part.name, str(part.files), human(part.size_bytes), weight, part.precision or "")
        table.add_section()
        table.add_row("all", str(sum(part.files for part in item.parts)), human(item.size_bytes), human(item.weight_bytes), "")
        console.print(table)
        missing = item.size_bytes - item.here_bytes
        fetch = f"{human(missing)} to fetch from {item.origin}, about {item.download_s:.0f} s" if missing else "everything is on this disk"
        if item.source == "override":
            fetch = f"used from {item.origin}"
        console.print(f"  {fetch}; {human(item.disk_free_bytes)} free on disk, {human(item.device_bytes)} for models on the device")
        if item.left_out:
            shown = ", ".join(item.left_out[:4]) + (f" and {len(item.left_out) - 4} more" if len(item.left_out) > 4 else "")
            console.print(f"  left out, because loading them can run code: {shown}")
        if item.note:
            console.print(f"  {item.note}")
        for problem in item.problems:
            console.print(f"  does not fit: {problem}")
    for problem in together:
        console.print(f"does not fit: {problem}")


@command.command("prefetch", cls=Verb)
@names_argument
@folder_option()
@model_option
@dtype_option
@platform_options
@json_option
def prefetch(
    names: tuple[str, ...],
    folder: str,
    models: tuple[str, ...],
    dtypes: tuple[str, ...],
    url: str | None,
    profile: str | None,
    as_json: bool,
) -> int:
    """Download models to this disk: `hf:` refs from Hugging Face, `cozy:` refs from the platform, or from the hub in COZY_HUB_URL."""
    bench = _opened(folder, as_json, models, _platform(url, profile))
    if isinstance(bench, int):
        return bench
    try:
        wants = bench.wants(names, dtypes)
    except ValueError as exc:
        return fail(str(exc), EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    results = asyncio.run(_prefetch_all(bench, wants, quiet=as_json))
    ok = all(result["ok"] for result in results)
    if as_json:
        print_json({"ok": ok, "models": results})
    else:
        for result in results:
            say(f"{result['key']}: {result['path']}" if result["ok"] else f"error: {result['key']}: {result['error']}")
    return 0 if ok else EXIT_FAILED


async def _prefetch_all(bench: Bench, wants: list[ModelWant], *, quiet: bool) -> list[dict[str, Any]]:
    measurements = Measurements(bench.settings.cas_root.parent / "measured.json")
    at_once, is_right = bench.settings.worker_max_concurrent_downloads, bench.sources.checked.is_right
    sources = {id(source): source for source in map(bench.source_of, wants)}
    arrivals = {name: Arrivals(source, at_once, measurements, is_right) for name, source in sources.items()}

    async def one(want: ModelWant, bars: ModelBars) -> dict[str, Any]:
        try:
            local = await arrivals[id(bench.source_of(want))].locate(want, bars.show)
        except WorkerError as failed:
            exc = bench.explained(failed, want.spec)
            return {"key": want.key, "ref": want.spec.ref, "ok": False, "error": str(exc), "code": exc.code}
        return {"key": want.key, "ref": want.spec.ref, "ok": True, "path": str(local.path), "fetched_bytes": local.fetched_bytes}

    try:
        with ModelBars(quiet=quiet) as bars:
            return await asyncio.gather(*(one(want, bars) for want in wants))
    finally:
        for each in arrivals.values():
            each.close()


@command.command("list", cls=Verb)
@json_option
def list_models(as_json: bool) -> int:
    """List the models on this disk."""
    bench = _opened(".", as_json)
    if isinstance(bench, int):
        return bench
    found = [
        {"ref": ref, "size_bytes": snapshot.listing.size_bytes, "files": len(snapshot.listing.files), "path": str(snapshot.path)}
        for ref, snapshot in bench.sources.cas.inventory()
    ]
    for ref, folder, listing in bench.sources.hf.inventory():
        found.append({"ref": ref, "size_bytes": listing.size_bytes, "files": len(listing.files), "path": str(folder)})
    if as_json:
        print_json({"ok": True, "models": found})
        return 0
    for item in found:
        print_line(f"{human(int(str(item['size_bytes']))):>10}  {item['ref']}")
    if not found:
        say("no models on this disk; fetch a project's models with:  cozyctl models prefetch")
    return 0


@command.command("verify", cls=Verb)
@click.option("--repair", "mend", is_flag=True, help="Delete damaged files, so that they are downloaded again.")
@json_option
def verify_models(mend: bool, as_json: bool) -> int:
    """Check the digest of every model file on this disk. Exit status 1 when one is damaged."""
    bench = _opened(".", as_json)
    if isinstance(bench, int):
        return bench
    damage = []
    for ref, snapshot in bench.sources.cas.inventory():
        found = list(verify(ref, snapshot.path, snapshot.listing.files))
        damage += found
        if mend and found:
            repair(bench.sources.cas, snapshot, found)
    for ref, folder, listing in bench.sources.hf.inventory():
        found = list(verify(ref, folder, listing.files))
        damage += found
        for file in found if mend else ():
            (folder / file.path).resolve().unlink(missing_ok=True)
    if as_json:
        print_json({"ok": not damage, "damaged": [msgspec.to_builtins(item) for item in damage], "repaired": mend})
    else:
        for item in damage:
            say(f"damaged: {item.path} of {item.ref}: expected {item.expected}, found {item.found or 'nothing'}")
        hint = "deleted; they are fetched again when they are next used" if mend else "delete them with: cozyctl models verify --repair"
        say(f"{len(damage)} damaged; {hint}" if damage else "ok: every file matches its digest")
    return EXIT_FAILED if damage else 0


@command.command("evict", cls=Verb)
@click.argument("ref")
@json_option
def evict(ref: str, as_json: bool) -> int:
    """Delete a model from this disk."""
    bench = _opened(".", as_json)
    if isinstance(bench, int):
        return bench
    name = canonical_ref(ref)
    stored = [found for found, _ in bench.sources.cas.inventory()]
    cached = [(found, folder) for found, folder, _ in bench.sources.hf.inventory() if found == name or found.startswith(name + "@")]
    if name not in stored and not cached:
        return fail(f"{ref!r} is not here.{did_you_mean(name, stored)} See: cozyctl models list", EXIT_NOT_FOUND, as_json=as_json)
    freed = 0
    if name in stored:
        bench.sources.cas.forget(name)
        freed += collect(bench.sources.cas, grace_s=0).size_bytes
    for _, folder in cached:
        freed += bench.sources.hf.forget(folder)
    if as_json:
        print_json({"ok": True, "freed_bytes": freed})
    else:
        say(f"ok: {human(freed)} freed")
    return 0


@command.command("gc", cls=Verb)
@json_option
def collect_garbage(as_json: bool) -> int:
    """Delete unused blobs, and leftovers of downloads that ended more than a day ago."""
    bench = _opened(".", as_json)
    if isinstance(bench, int):
        return bench
    collected = collect(bench.sources.cas)
    if as_json:
        print_json({"ok": True, **msgspec.to_builtins(collected)})
    else:
        free = human(shutil.disk_usage(Path.home()).free)
        say(f"ok: {counted(collected.files, 'file')}, {human(collected.size_bytes)} freed; {free} free")
    return 0


def human(size_bytes: int) -> str:
    """A size in bytes, in powers of 1000, as text for people."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return ""
