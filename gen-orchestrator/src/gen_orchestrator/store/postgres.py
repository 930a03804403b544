"""The store beyond one machine: PostgreSQL, the same statements as SQLite.

One connection writes, several read. Each batch begins by locking the leader's row for sharing (`for share`): a successor's campaign
waits for the batch in flight, and a leader that was deposed finds no row. A leader that freezes inside a transaction is cut off by the
server after 2 s, so that it cannot hold its successor up. Reads that lead to a decision go to this server, never to a replica.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from gen_orchestrator.store import migrations, sql, tables
from gen_orchestrator.store.base import (
    SKEW_S,
    DamagedRowError,
    DeposedError,
    Leader,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from gen_orchestrator.store.ops import DONE, Accept, Op, Refused, Result
from gen_orchestrator.store.sql_store import Change, Row, SqlStore, quietly

T = TypeVar("T")
CONNECT_TIMEOUT_S = 5
TRANSACTION_MS = 2000
_OPTIONS = f"-c idle_in_transaction_session_timeout={TRANSACTION_MS} -c lock_timeout={TRANSACTION_MS} -c synchronous_commit=on"
_PROMISES = (
    ("fsync", ("on",), "a crash of the machine can lose or break everything"),
    ("full_page_writes", ("on",), "a crash of the machine can leave half-written pages"),
    ("synchronous_commit", ("on", "remote_apply", "remote_write"), "answered runs can be lost in a crash"),
)
_KEEPALIVE: dict[str, Any] = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
_MIGRATION_LOCK = 0x67656E  # any number that nobody else uses
_FENCE = f"{sql.FENCE} for share"


class PostgresStore(SqlStore):
    """A store in the database at `url` (`postgresql://...`). `StoreError` says why it cannot be opened.

    A broken connection is reopened at the next call. The effect of a broken batch is unknown, and every operation may
    be repeated.
    """

    schema = len(migrations.STEPS)
    is_alone = False

    def __init__(self, url: str, on_damaged: Callable[[DamagedRowError], None] = quietly) -> None:
        super().__init__(on_damaged)
        self._url = url
        self._local = threading.local()
        self._opened: list[psycopg.Connection[Any]] = []
        self._guard = threading.Lock()
        self._write_lock = threading.Lock()
        self._writer: psycopg.Connection[Any] | None = None
        self._lease_lock = threading.Lock()  # the lease is renewed while batches wait, however long they take
        self._leaser: psycopg.Connection[Any] | None = None
        with self._write_lock:
            self._run_write(self._migrate)

    def apply(self, epoch: int, ops: Sequence[Op]) -> list[Result]:
        def work(db: psycopg.Connection[Any]) -> list[Result]:
            with db.transaction(), db.cursor(binary=True) as cursor:
                if cursor.execute(_pg(_FENCE), (epoch,)).fetchone() is None:
                    raise DeposedError(f"epoch {epoch} no longer leads")
                results: list[Result] = []
                for op in ops:
                    results.append(_one(cursor, op))
                return results

        with self._write_lock:
            return self._run_write(work)

    def campaign(self, node_id: str, address: str, lease_s: float, http_url: str = "") -> Leader | None:
        """The database's clock decides whether the lease has expired, or was given before that clock was set back."""

        def work(db: psycopg.Connection[Any]) -> Leader | None:
            with db.transaction(), db.cursor() as cursor:
                row = cursor.execute(
                    "insert into leader as l (shard, epoch, node_id, address, lease_until, http_url) "
                    "values (0, 1, %s, %s, extract(epoch from clock_timestamp()) + %s, %s) "
                    "on conflict (shard) do update set epoch = l.epoch + 1, node_id = excluded.node_id, address = excluded.address, "
                    "lease_until = excluded.lease_until, http_url = excluded.http_url "
                    "where l.lease_until <= extract(epoch from clock_timestamp()) or l.lease_until > excluded.lease_until + %s "
                    "or l.node_id = excluded.node_id returning epoch",
                    (node_id, address, lease_s, http_url, SKEW_S),
                ).fetchone()
            return None if row is None else Leader(node_id, row[0], address, http_url)

        return self._run_lease(work)

    def renew(self, leader: Leader, lease_s: float) -> bool:
        text = "update leader set lease_until = extract(epoch from clock_timestamp()) + ? where shard = 0 and epoch = ?"
        return self._run_lease(lambda db: db.execute(_pg(text), (lease_s, leader.epoch)).rowcount > 0)

    def leader(self) -> Leader | None:
        rows = self._read(
            "select node_id, epoch, address, http_url from leader where shard = 0 and lease_until > extract(epoch from clock_timestamp())"
        )
        return sql.leader_of(rows[0]) if rows else None

    def dump(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        db = self._connect()
        try:
            db.execute("set session idle_in_transaction_session_timeout = 0")
            with db.transaction():
                db.execute("set transaction isolation level repeatable read, read only")  # read from one moment
                for table in tables.TABLES:
                    with db.cursor(f"export_{table.name}", binary=True) as cursor:
                        for row in cursor.execute(table.select.encode()):
                            yield table.name, tuple(row)
        finally:
            db.close()

    def load(self, rows: Iterable[tuple[str, tuple[Any, ...]]]) -> int:
        inserts = {table.name: _pg(table.insert) for table in tables.TABLES}

        def work(cursor: psycopg.Cursor[Any]) -> int:
            cursor.execute("set local idle_in_transaction_session_timeout = 0")  # the reader of the file may be slow
            if cursor.execute(tables.IS_EMPTY.encode()).fetchone() != (0,):
                raise StoreError("the database holds runs or releases already; an import needs an empty one")
            cursor.execute("delete from leader")
            count = 0
            for name, row in rows:
                cursor.execute(inserts[name], row)
                count += 1
            cursor.execute(tables.NO_LEASE.encode())
            return count

        return self._in_transaction(work)

    def doubts(self) -> Sequence[str]:
        """Server settings that differ from what the promise needs."""
        found = []
        for name, wanted, means in _PROMISES:
            value = self._read("select setting from pg_settings where name = ?", (name,))[0][0]
            if value not in wanted:
                found.append(f"{name} is {value}: {means}. Set it to {wanted[0]}")
        if self._read("select pg_is_in_recovery()")[0][0]:
            found.append("this server is a replica: it may show writes in an order that never happened. Name the primary in --store")
        standbys = self._read("select coalesce(string_agg(sync_state, ','), '') from pg_stat_replication")[0][0]
        if standbys and "sync" not in standbys.split(",") and "quorum" not in standbys.split(","):
            found.append("all standbys are asynchronous: a failover loses what they had not received. Set synchronous_standby_names")
        return found

    def close(self) -> None:
        with self._write_lock, self._lease_lock, self._guard:
            for connection in self._opened:
                connection.close()
            self._opened.clear()
            self._writer = self._leaser = None

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, options=_OPTIONS, **_KEEPALIVE)
        except psycopg.OperationalError as exc:
            raise StoreUnavailableError(f"the database does not answer: {_without_password(str(exc), self._url)}") from None
        with self._guard:
            self._opened = [opened for opened in self._opened if not opened.closed]
            self._opened.append(connection)
        return connection

    def _run_write(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        if self._writer is None or self._writer.closed:
            self._writer = self._connect()
        return self._guarded(self._writer, work)

    def _run_lease(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        with self._lease_lock:
            if self._leaser is None or self._leaser.closed:
                self._leaser = self._connect()
            return self._guarded(self._leaser, work)

    def _read(self, text: str, values: Row = ()) -> list[Any]:
        connection: psycopg.Connection[Any] | None = getattr(self._local, "connection", None)

        def work(db: psycopg.Connection[Any]) -> list[Any]:
            return db.execute(_pg(text), tuple(values), binary=True).fetchall()

        if connection is not None and not connection.closed:
            try:
                return self._guarded(connection, work)
            except StoreUnavailableError:
                pass  # it may be from before a restart of the server: each thread finds its own broken once
        connection = self._local.connection = self._connect()
        return self._guarded(connection, work)

    def _transact(self, work: Callable[[Change], T], *, frees: bool = False) -> T:
        return self._in_transaction(lambda cursor: work(lambda text, values: cursor.execute(_pg(text), tuple(values)).rowcount))

    def _in_transaction(self, work: Callable[[psycopg.Cursor[Any]], T]) -> T:
        def whole(db: psycopg.Connection[Any]) -> T:
            with db.transaction(), db.cursor() as cursor:
                return work(cursor)

        with self._write_lock:
            return self._run_write(whole)

    def _change(self, text: str, values: Row, *, frees: bool = False) -> bool:
        with self._write_lock:
            return self._run_write(lambda db: db.execute(_pg(text), tuple(values)).rowcount > 0)

    def _guarded(self, connection: psycopg.Connection[Any], work: Callable[[psycopg.Connection[Any]], T]) -> T:
        try:
            return work(connection)
        except (errors.DiskFull, errors.OutOfMemory) as exc:
            raise StoreFullError(f"the database has no room: {exc}") from None
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            connection.close()
            text = f"the database does not answer: {_without_password(str(exc), self._url)}"
            raise StoreUnavailableError(text, unknown=True) from None  # an unanswered commit may have happened

    def _migrate(self, db: psycopg.Connection[Any]) -> None:
        with db.transaction():
            db.execute("select pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            db.execute("create table if not exists schema_version (version integer not null)")
            row = db.execute("select max(version) from schema_version").fetchone()
            version = (row[0] if row else None) or 0
            if version > len(migrations.STEPS):
                raise StoreError(migrations.newer_version("the database", version))
            for number, step in enumerate(migrations.pending(version, migrations.POSTGRES), start=version + 1):
                for text in step:
                    db.execute(text.encode())
                db.execute("insert into schema_version (version) values (%s)", (number,))


def _one(cursor: psycopg.Cursor[Any], op: Op) -> Result:
    text, values = sql.statement(op)
    cursor.execute(_pg(text), values)
    if cursor.rowcount:
        if (more := sql.consequence(op)) is not None:
            cursor.execute(_pg(more[0]), more[1])
        return DONE
    found, subject = sql.subject(op)
    row = cursor.execute(_pg(found), subject).fetchone()
    if row is None and isinstance(op, Accept):
        raise StoreUnavailableError("a run with this id or key is being written by another process; try again")
    return Refused(sql.run_of(row) if row is not None else None)


def _pg(text: str) -> bytes:
    return _STATEMENTS.get(text) or _STATEMENTS.setdefault(text, text.replace("?", "%s").encode())


_STATEMENTS: dict[str, bytes] = {}


def _without_password(text: str, url: str) -> str:
    return text.replace(url, "the configured URL").strip()
