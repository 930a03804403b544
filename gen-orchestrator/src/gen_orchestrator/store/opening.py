"""A store by its name: `postgresql://...`, or a folder for SQLite."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from gen_orchestrator.store.archive import Archive
from gen_orchestrator.store.base import DamagedRowError, Store, StoreError
from gen_orchestrator.store.sql_store import quietly
from gen_orchestrator.store.sqlite import SqliteStore

SCHEMES = ("postgresql://", "postgres://")


class DatabaseStore(Store, Archive, Protocol):
    """A store that outlives its process."""

    def doubts(self) -> Sequence[str]:
        """Settings of this database that weaken the promise "an accepted run is never lost"."""
        ...


def is_database(name: str) -> bool:
    """Whether this names a database, not a folder."""
    return name.startswith(SCHEMES)


def open_store(name: str, on_damaged: Callable[[DamagedRowError], None] = quietly) -> DatabaseStore:
    """Open it; `on_damaged` is called for unreadable rows.

    `StoreUnavailableError` when a database does not answer, `StoreError` for errors that waiting does not fix.
    """
    if not is_database(name):
        if "://" in name:
            raise StoreError(f"--store {name.partition('://')[0]}://...: expected postgresql://USER@HOST/DATABASE, or a folder")
        return SqliteStore(Path(name), on_damaged=on_damaged)
    try:
        from gen_orchestrator.store.postgres import PostgresStore
    except ImportError as exc:
        raise StoreError(f"PostgreSQL needs psycopg ({exc}): pip install 'gen-orchestrator[postgres]'") from None
    return PostgresStore(name, on_damaged)
