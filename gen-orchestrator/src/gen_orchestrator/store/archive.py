"""A store as JSON lines, to move from one database to another with runs in flight: SQLite to PostgreSQL, and back.

    {"format": "gen-orchestrator store", "version": 1, "schema": 3, "tables": {"runs": ["id", "owner", ...], ...}}
    ["runs", ["r1", "ann", ...]]        one row per line, in the columns of the head; bytes as base64
    {"rows": 1}                         the end: a file without it was cut off

The export is one snapshot, and streamed: memory does not grow with the store. The epoch is exported, so that it never
decreases; the lease is not, so the first node on the new store leads at once. The import fills an empty store, in one
transaction.
"""

import binascii
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

from gen_orchestrator.store.base import StoreError
from gen_orchestrator.store.tables import TABLES

FORMAT = "gen-orchestrator store"
VERSION = 1


class ArchiveError(StoreError):
    """The file cannot be imported; nothing was changed."""


class Archive(Protocol):
    """What a database provides for export and import. Rows are tuples in the columns of `TABLES`."""

    schema: int

    def dump(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """All rows of all tables, from one moment."""
        ...

    def load(self, rows: Iterable[tuple[str, tuple[Any, ...]]]) -> int:
        """Write all these rows or none; returns their number. `StoreError` when the store is not empty."""
        ...


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: int
    schema: int
    tables: dict[str, tuple[str, ...]]


class _End(msgspec.Struct):
    rows: int


def export(store: Archive) -> Iterator[bytes]:
    """The lines of an archive, each with its newline."""
    tables = {table.name: table.columns for table in TABLES}
    yield _encode(_Head(FORMAT, VERSION, store.schema, tables)) + b"\n"
    count = 0
    for row in store.dump():
        yield _encode(row) + b"\n"
        count += 1
    yield _encode(_End(count)) + b"\n"


def import_into(store: Archive, lines: Iterable[bytes]) -> int:
    """Fill an empty store; returns the number of rows. `ArchiveError` names the wrong line, and then nothing was written."""
    source = iter(lines)
    try:
        head = msgspec.json.decode(next(source, b""), type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ArchiveError(f"line 1: {exc}; expected the head of a file that `gen-orchestrator store export` wrote") from None
    if head.format != FORMAT or head.version != VERSION:
        raise ArchiveError(f"line 1: {head.format!r} version {head.version}; expected {FORMAT!r} version {VERSION}")
    if head.schema > store.schema:
        raise ArchiveError(
            f"the file was written by a newer gen-orchestrator (schema {head.schema}, this one knows {store.schema}): update it"
        )
    return store.load(_rows(head, source))


def _rows(head: _Head, lines: Iterator[bytes]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    places = {}
    for table in TABLES:
        given = head.tables.get(table.name, ())
        if unknown := set(given) - set(table.columns):
            raise ArchiveError(f"line 1: table {table.name} has unknown columns {', '.join(sorted(unknown))}")
        places[table.name] = [(given.index(column) if column in given else None, column, table) for column in table.columns]
    count = 0
    for number, line in enumerate(lines, start=2):
        if line.startswith(b"{"):
            end = _decode(line, _End, number)
            if end.rows != count:
                raise ArchiveError(f"line {number}: the file says {end.rows} rows, and has {count}")
            return
        name, values = _decode(line, tuple[str, list[Any]], number)
        if name not in places or len(values) != len(head.tables.get(name, ())):
            raise ArchiveError(f"line {number}: a row of {len(values)} values for table {name[:40]!r}, which the head does not describe")
        count += 1
        try:
            yield name, tuple(table.value(column, values[at] if at is not None else None) for at, column, table in places[name])
        except (binascii.Error, ValueError, TypeError) as exc:
            raise ArchiveError(f"line {number}: {exc}") from None
    raise ArchiveError(f"the file ends after {count} rows without its last line: it was cut off")


def _decode(line: bytes, kind: Any, number: int) -> Any:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ArchiveError(f"line {number}: {exc}") from None


_encode = msgspec.json.Encoder().encode
