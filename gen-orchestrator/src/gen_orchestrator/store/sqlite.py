"""The store of one machine: SQLite, one file, one process, one writing connection.

WAL with `synchronous=FULL`: a confirmed commit survives a crash of the machine. No other connection checkpoints,
nothing is mapped into memory, and a lock file keeps a second process out: two writers of one WAL file that do not see
each other's fences would be two leaders. On a full disk, deletes still work (`store/reserve.py`). Readers have
connections of their own, one per thread, so that a long list never delays a commit.
"""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import apsw

from gen_orchestrator.store import migrations, sql, sqlite_batches, tables
from gen_orchestrator.store.base import (
    SKEW_S,
    DamagedRowError,
    DeposedError,
    Leader,
    StoreError,
    StoreFullError,
    StoreHeldError,
    StoreMovedError,
    StoreUnavailableError,
)
from gen_orchestrator.store.home import Home
from gen_orchestrator.store.ops import Op, Result
from gen_orchestrator.store.reserve import Reserve
from gen_orchestrator.store.sql_store import Change, Row, SqlStore, quietly

T = TypeVar("T")
LOCK_NAME = "store.lock"
FILE_NAME = "store.sqlite"
BUSY_MS = 5000
EXIT_BROKEN = 74  # EX_IOERR
_SYNC_FAILED = (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)


def leave(why: str) -> NoReturn:
    """End the process at once."""
    sys.stderr.write(f"error: {why}. Nothing more is accepted; check the disk, then start again\n")
    sys.stderr.flush()
    os._exit(EXIT_BROKEN)


class SqliteStore(SqlStore):
    """A store in `folder`, created if it does not exist. `StoreError` when another process has it open, or a newer version wrote it."""

    schema = len(migrations.STEPS)
    is_alone = True

    def __init__(
        self, folder: Path, on_broken: Callable[[str], NoReturn] = leave, on_damaged: Callable[[DamagedRowError], None] = quietly
    ) -> None:
        """`on_broken` is called when a sync fails. The disk's state is then unknown: the kernel drops failed pages, and
        the next sync would report success. So the process ends without another answer, and its next start reads what is
        there.
        """
        super().__init__(on_damaged)
        self._on_broken = on_broken
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE_NAME
        self._lock_fd = _lock(folder)
        self._home = Home(self._path)
        self._local = threading.local()
        self._readers: list[apsw.Connection] = []
        self._guard = threading.Lock()  # guards the writing connection and the list of readers
        self._reserve = Reserve(self._path.with_name(f"{FILE_NAME}-wal"))
        try:
            self._open()
            self._home.check()
            self._reserve.take()
        except BaseException as exc:
            os.close(self._lock_fd)
            if isinstance(exc, apsw.Error):
                raise self._said(exc) from exc
            raise

    def apply(self, epoch: int, ops: Sequence[Op]) -> list[Result]:
        with self._guard:
            self._home.check()
            self._need_reserve()
            db = self._writer
            try:
                results = self._written(db, epoch, ops, sqlite_batches.at_once)
                if results is None:
                    results = self._written(db, epoch, ops, sqlite_batches.one_by_one)
            except (apsw.FullError, apsw.BusyError) as exc:
                self._roll_back()
                raise self._said(exc) from None
            except (apsw.IOError, apsw.CorruptError, apsw.CantOpenError, apsw.ReadOnlyError) as exc:
                if getattr(exc, "extendedresult", 0) in _SYNC_FAILED:
                    self._on_broken(f"{self._path} cannot be synced to the disk: {exc}")
                self._roll_back()
                raise StoreUnavailableError(f"{self._path} cannot be written: {exc}", unknown=True) from exc
            try:
                self._home.check()
            except StoreMovedError as exc:  # written, but to files that may vanish with this process
                raise StoreMovedError(str(exc), unknown=True) from None
            return results or []

    def _written(
        self, db: apsw.Connection, epoch: int, ops: Sequence[Op], write: Callable[[apsw.Connection, Sequence[Op]], list[Result] | None]
    ) -> list[Result] | None:
        """The results that `write` returns for a batch, committed; None if it returned None, and then nothing is written."""
        db.execute("begin immediate")
        try:
            if not db.execute(sql.FENCE, (epoch,)).fetchall():
                raise DeposedError(f"epoch {epoch} no longer leads")
            results = write(db, ops)
        except BaseException:
            db.execute("rollback")
            raise
        db.execute("rollback" if results is None else "commit")
        return results

    def campaign(self, node_id: str, address: str, lease_s: float, http_url: str = "") -> Leader | None:
        def work() -> Leader | None:
            now_s = time.time()  # this machine's clock is the database's
            rows: list[Any] = self._writer.execute("select epoch, node_id, lease_until from leader where shard = 0").fetchall()
            # A lease that ends later than a new one would was given before the clock was set back: nobody renews it.
            if rows and now_s < rows[0][2] <= now_s + lease_s + SKEW_S and rows[0][1] != node_id:
                return None
            epoch = rows[0][0] + 1 if rows else 1
            self._writer.execute(
                "insert into leader (shard, epoch, node_id, address, lease_until, http_url) values (0, ?, ?, ?, ?, ?) "
                "on conflict (shard) do update set epoch = excluded.epoch, node_id = excluded.node_id, address = excluded.address, "
                "lease_until = excluded.lease_until, http_url = excluded.http_url",
                (epoch, node_id, address, now_s + lease_s, http_url),
            )
            return Leader(node_id, epoch, address, http_url)

        return self._in_transaction(work, frees=True)  # only the leader may delete

    def renew(self, leader: Leader, lease_s: float) -> bool:
        return self._change("update leader set lease_until = ? where shard = 0 and epoch = ?", (time.time() + lease_s, leader.epoch))

    def leader(self) -> Leader | None:
        rows = self._read("select node_id, epoch, address, http_url from leader where shard = 0 and lease_until > ?", (time.time(),))
        return sql.leader_of(rows[0]) if rows else None

    def dump(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        reader = self._reader()
        with reader:  # one transaction, so all rows are from one moment
            for table in tables.TABLES:
                for row in reader.execute(table.select):
                    yield table.name, tuple(row)

    def load(self, rows: Iterable[tuple[str, tuple[Any, ...]]]) -> int:
        inserts = {table.name: table.insert for table in tables.TABLES}

        def work() -> int:
            db = self._writer
            if db.execute(tables.IS_EMPTY).fetchall() != [(0,)]:
                raise StoreError(f"{self._path} holds runs or releases already; an import needs an empty store")
            db.execute("delete from leader")
            count = 0
            for name, row in rows:
                db.execute(inserts[name], row)
                count += 1
            db.execute(tables.NO_LEASE)
            return count

        return self._in_transaction(work)

    def doubts(self) -> Sequence[str]:
        """The file's settings are ours; only the file system is not."""
        kind = _file_system(self._path)
        if kind in ("tmpfs", "ramfs"):
            return [f"{self._path} is in memory ({kind}): a restart of the machine loses it. Use a folder on a disk"]
        if kind.startswith(("nfs", "cifs", "smb", "fuse.sshfs")):
            return [f"{self._path} is on a network file system ({kind}): its locks and syncs may not be reliable. Use a local disk"]
        return []

    def close(self) -> None:
        """Checkpoint, close all connections, let the next process in. If the files are gone, their content is written once more."""
        with self._guard:
            saved = self._home.rescue(self._writer)
            if saved is not None:
                sys.stderr.write(f"warning: {self._path} was removed or replaced while it was in use; its content was saved to {saved}\n")
            for connection in (*self._readers, self._writer):
                connection.close()
            self._readers.clear()
            self._reserve.close()
            os.close(self._lock_fd)

    def _open(self) -> None:
        while True:
            try:
                self._writer = self._connect()
                return self._migrate()
            except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as exc:  # it needs a log and an index for it
                if not self._reserve.give_some():
                    raise self._said(exc) from None

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path))
        connection.set_busy_timeout(BUSY_MS)
        connection.execute("pragma journal_mode=wal; pragma synchronous=full; pragma mmap_size=0; pragma temp_store=memory").fetchall()
        return connection

    def _reader(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            self._home.check()  # otherwise SQLite would create an empty database
            connection = self._local.connection = self._connect()
            with self._guard:
                self._readers.append(connection)
        return connection

    def _read(self, text: str, values: Row = ()) -> list[Any]:
        try:
            return list(self._reader().execute(text, tuple(values)))
        except apsw.Error as exc:
            raise StoreUnavailableError(f"{self._path} cannot be read: {exc}") from exc

    def _change(self, text: str, values: Row, *, frees: bool = False) -> bool:
        def work() -> bool:
            self._writer.execute(text, tuple(values))
            return self._writer.changes() > 0

        return self._write(work, frees=frees)

    def _transact(self, work: Callable[[Change], T], *, frees: bool = False) -> T:
        def change(text: str, values: Row) -> int:
            self._writer.execute(text, tuple(values))
            return self._writer.changes()

        return self._in_transaction(lambda: work(change), frees=frees)

    def _in_transaction(self, work: Callable[[], T], *, frees: bool = False) -> T:
        """The same in one transaction."""

        def whole() -> T:
            with self._writer:
                result = work()
            return result  # noqa: RET504 - for mypy, the connection might swallow what is raised

        return self._write(whole, frees=frees)

    def _write(self, work: Callable[[], T], *, frees: bool) -> T:
        """Run this on the writing connection; raises the errors of `StoreError`. Work that `frees` room is repeated
        with the reserve when there is none.
        """
        with self._guard:
            self._home.check()
            if not frees:
                self._need_reserve()
            while True:
                try:
                    return work()
                except apsw.FullError:
                    self._roll_back()
                    if not frees or not self._reserve.give_some():
                        raise self._full() from None
                except apsw.Error as exc:
                    raise self._said(exc) from exc

    def _need_reserve(self) -> None:
        if not self._reserve.take():
            raise self._full()

    def _full(self) -> StoreFullError:
        return StoreFullError(f"no space left to write {self._path}. Deleting still works; to see what takes room: cozyctl doctor")

    def _said(self, exc: apsw.Error) -> StoreError:
        """The store's error for an error of SQLite, for a write that did not happen."""
        if isinstance(exc, apsw.FullError):
            return self._full()
        if isinstance(exc, (apsw.BusyError, apsw.LockedError)):
            return StoreHeldError(f"{self._path} is locked by another program, such as a backup or sqlite3: end that one")
        return StoreUnavailableError(f"{self._path} cannot be written: {exc}")

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("rollback")

    def _migrate(self) -> None:
        version: int = self._writer.pragma("user_version") or 0
        if version > len(migrations.STEPS):
            raise StoreError(migrations.newer_version(str(self._path), version))
        for number, step in enumerate(migrations.pending(version, migrations.SQLITE), start=version + 1):
            with self._writer:
                for text in step:
                    self._writer.execute(text)
                self._writer.pragma("user_version", number)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreError(f"the data folder {folder} is in use by another process; stop it, or choose another folder with --data") from None
    return descriptor


def _file_system(path: Path) -> str:
    """The type of the file system of a path; empty when the system does not tell."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    where = path.resolve()
    found = [(len(mount[1]), mount[2]) for mount in mounts if where.is_relative_to(mount[1])]
    return max(found)[1] if found else ""
