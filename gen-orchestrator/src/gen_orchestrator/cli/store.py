"""`gen-orchestrator store export | import` and `doctor`: store maintenance for operators."""

import sys
from pathlib import Path

import click

from gen_orchestrator.store import archive
from gen_orchestrator.store.base import StoreError
from gen_orchestrator.store.opening import DatabaseStore, is_database, open_store

Source = click.option("--data", metavar="DIR", help="The data folder of a store in SQLite.")
Database = click.option("--store", "url", metavar="URL", help="postgresql://USER@HOST/DATABASE")


@click.group("store")
def group() -> None:
    """Move a store to another database, with its runs in flight. Stop the orchestrator first."""


@group.command("export")
@Source
@Database
def export_command(data: str | None, url: str | None) -> None:
    """Write all tables to stdout as JSON lines. Files of runs are in the data folder; copy that, too."""
    store = _open(data, url)
    try:
        for line in archive.export(store):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except (StoreError, OSError) as exc:
        raise click.ClickException(f"the export is incomplete: {exc}") from None
    finally:
        store.close()


@group.command("import")
@Source
@Database
def import_command(data: str | None, url: str | None) -> None:
    """Fill an empty store from stdin, with the whole file or nothing."""
    store = _open(data, url)
    try:
        rows = archive.import_into(store, sys.stdin.buffer)
    except StoreError as exc:
        raise click.ClickException(f"nothing was imported: {exc}") from None
    finally:
        store.close()
    click.echo(f"imported {rows} rows", err=True)


@click.command("doctor")
@Source
@Database
def doctor_command(data: str | None, url: str | None) -> None:
    """Show what this store does not promise. Exit status 1 when there is something."""
    store = _open(data, url)
    try:
        notes = store.doubts()
    except StoreError as exc:
        raise click.ClickException(str(exc)) from None
    finally:
        store.close()
    for note in notes:
        click.echo(f"not promised: {note}")
    if notes:
        sys.exit(1)
    click.echo("ok: accepted runs survive a crash of this store")


def _open(data: str | None, url: str | None) -> DatabaseStore:
    if (data is None) == (url is None):
        raise click.UsageError("expected --data DIR or --store URL, one of them")
    if url is not None and not is_database(url):
        raise click.UsageError(f"--store {url.partition('://')[0]}: expected postgresql://USER@HOST/DATABASE")
    try:
        return open_store(url or str(Path(data or "").expanduser()))
    except (StoreError, OSError) as exc:
        raise click.ClickException(str(exc)) from None
