"""Moving a store from one database to another as a file, with its runs in flight."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from test_gate_store import A_CANDIDATE, A_GOLDEN, A_RESULT, A_SHADOW
from test_store import SUCCESS, a_run, lead

from gen_orchestrator.domain.access import AuditRow, Key
from gen_orchestrator.domain.budgets import Budgets
from gen_orchestrator.domain.receipts import UNPRICED
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.secrets import StoredSecret
from gen_orchestrator.domain.webhooks import Delivery, Try
from gen_orchestrator.store import archive, tables
from gen_orchestrator.store.archive import ArchiveError
from gen_orchestrator.store.base import Release, RunFilter, StoreError, Tag
from gen_orchestrator.store.migrations import STEPS
from gen_orchestrator.store.ops import DONE, Accept, AppendEvents, Finish, Lease, RequestCancel
from gen_orchestrator.store.postgres import PostgresStore
from gen_orchestrator.store.sql import RUN_COLUMNS
from gen_orchestrator.store.sqlite import FILE_NAME, SqliteStore

DatabaseStore = SqliteStore | PostgresStore


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "sqlite")
    yield store
    store.close()


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    yield store
    store.close()


DELIVERY = Delivery(id="r2.ended", run_id="r2", moment="ended", created_at=1.0, tries=(Try(2.0, 3, 500, "no"),))


def fill(store: DatabaseStore) -> None:
    leader = lead(store)
    store.add_release(Release(release_id="rel-1", owner="ann", endpoint="e", manifest=b'{"a":1}', source="/x", created_at=1.5))
    for version in (1, 2):
        store.move_tag(Tag(owner="ann", endpoint="e", function="f", tag="prod", release_id="rel-1", version=version, moved_at=1.0))
    store.apply(leader.epoch, [Accept(a_run(f"r{n}", created_at=float(n), payload=bytes(range(256)))) for n in range(5)])
    store.apply(leader.epoch, [Lease("r1", 1, "w", 1.25), AppendEvents("r1", 1, 1, 2, b'["\xc3\xa4"]', "inst", 7)])
    store.apply(leader.epoch, [Lease("r2", 1, "w", 1.0), Finish("r2", 1, SUCCESS, DELIVERY), RequestCancel("r3")])
    store.trim(1e12, 10)
    store.apply(leader.epoch, [Accept(a_run("gone")), Finish("gone", 0, SUCCESS)])
    assert store.forget(["gone"]) == 1
    store.add_key(
        Key(key_id="k", owner="ann", name="ci", scopes=("admin",), secret_sha256="ab", created_at=1.0, budgets=Budgets(rate="1/s"))
    )
    store.add_audit(AuditRow(row_id="1", at=1.0, owner="ann", actor="local", action="key.created", subject="k"))
    store.add_golden(A_GOLDEN)
    store.set_candidate(A_CANDIDATE)
    store.set_shadow(A_SHADOW)
    store.save_results([A_RESULT])
    store.add_secret(StoredSecret(owner="ann", endpoint="e", name="KEY", version=1, sealed=b"\xff\0", set_at=1.0, set_by="local"))


def shown(store: DatabaseStore) -> tuple[Any, ...]:
    return (
        store.list_runs(RunFilter(limit=100)), store.open_runs(), store.releases(), store.tags(), store.tag_history("ann", "e", "f", "prod"),
        store.events_of("r1"), store.deliveries_of("r2"), store.list_keys(), store.audit("", 9), store.secrets(),
        store.goldens(), store.results("rel-1"), store.candidates(), store.shadows(),
    )  # fmt: skip


def test_there_and_back(sqlite_store: SqliteStore, postgres_store: PostgresStore, tmp_path: Path) -> None:
    fill(sqlite_store)
    first = b"".join(archive.export(sqlite_store))
    rows = archive.import_into(postgres_store, io.BytesIO(first))
    assert rows == len(first.splitlines()) - 2
    assert shown(postgres_store) == shown(sqlite_store)
    assert [row.runs for row in postgres_store.usage(0, 10)] == [2]
    back = SqliteStore(tmp_path / "back")
    second = b"".join(archive.export(postgres_store))
    archive.import_into(back, io.BytesIO(second))
    assert shown(back) == shown(sqlite_store)
    old = sqlite_store.leader()
    new = back.campaign("other", "a:1", 60)  # no lease came along, and the epoch goes on
    assert old is not None
    assert new is not None
    assert new.epoch == old.epoch + 1
    assert back.apply(new.epoch, [Finish("r1", 1, SUCCESS)]) == [DONE]  # the run in flight goes on where it was
    back.close()


@pytest.mark.parametrize("kind", ["sqlite_store", "postgres_store"])
def test_a_wrong_file_changes_nothing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    store: DatabaseStore = request.getfixturevalue(kind)
    source = SqliteStore(tmp_path / "source")
    fill(source)
    lines = list(archive.export(source))
    source.close()
    for wrong, text in (
        (lines[:-1], "was cut off"),
        ([*lines[:4], *lines[5:]], "rows, and has"),
        ([*lines[:4], b'["runs",[1,2]]\n', *lines[4:]], "line 5: a row of 2 values"),
        ([*lines[:4], b'["users",[]]\n', *lines[4:]], "line 5: a row of 0 values for table 'users'"),
        ([*lines[:4], b"\xff\n", *lines[4:]], "line 5"),
        ([b"{}\n"], "line 1"),
        ([], "line 1"),
        ([lines[0].replace(b'"schema":%d' % len(STEPS), b'"schema":99'), *lines[1:]], "newer gen-orchestrator"),
        ([lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]], "version 2; expected"),
    ):
        with pytest.raises(ArchiveError, match=text):
            archive.import_into(store, wrong)
        assert (store.list_runs(RunFilter()), store.releases()) == ([], [])
    archive.import_into(store, lines)
    with pytest.raises(StoreError, match="empty"):
        archive.import_into(store, lines)


def test_every_column_is_exported(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    database = apsw.Connection(str(tmp_path / "sqlite" / FILE_NAME))
    names = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
    there = {name: {row[1]: row[2].lower() == "blob" for row in database.execute(f"pragma table_info({name})")} for name in names}
    assert there == {table.name: {column: column in table.blobs for column in table.columns} for table in tables.TABLES}


def test_a_file_of_the_first_schema_is_taken(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    fill(sqlite_store)
    head, *lines = archive.export(sqlite_store)
    later = [*RUN_COLUMNS[RUN_COLUMNS.index("warnings") :], "trimmed"]
    head = head.replace(b'"schema":%d' % len(STEPS), b'"schema":1').replace(
        f",{json.dumps(later, separators=(',', ':'))[1:-1]}".encode(), b""
    )
    older = [head]
    for line in lines:
        row = json.loads(line)
        older.append(json.dumps(["runs", row[1][: -len(later)]]).encode() + b"\n" if line.startswith(b'["runs"') else line)
    new = SqliteStore(tmp_path / "new")
    archive.import_into(new, older)
    runs, open_runs, *others = shown(sqlite_store)
    assert shown(new) == (*([_as_of_before(run) for run in each] for each in (runs, open_runs)), *others)
    assert new.trim(1e12, 10) == 1
    new.close()


def _as_of_before(run: Run) -> Run:
    """What that version knew of it: not what it used, nor what that cost."""
    return msgspec.structs.replace(run, leased_at=0.0, cost_nanos=UNPRICED)


def test_a_stored_database_of_the_first_schema_is_upgraded(tmp_path: Path) -> None:
    """The file was written by the first version: a queued run, one that a worker had, one that succeeded."""
    folder = tmp_path / "old"
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "schema-1.sqlite", folder / FILE_NAME)
    store = SqliteStore(folder)
    runs = {run.id: run for run in store.list_runs(RunFilter())}
    assert {run_id: str(run.state) for run_id, run in runs.items()} == {"waits": "queued", "works": "leased", "done": "succeeded"}
    assert (runs["done"].output, runs["works"].attempt, len(store.events_of("works"))) == (b"\x81", 1, 1)
    leader = store.campaign("n2", "127.0.0.1:2", 60, "http://127.0.0.1:3")
    assert leader is not None
    assert leader.epoch == 2
    assert store.apply(leader.epoch, [Finish("works", 1, SUCCESS), Lease("waits", 1, "w", 2.0)]) == [DONE, DONE]
    assert store.trim(1e12, 10) == 2
    store.close()
    again = SqliteStore(folder)
    assert again.get("waits") is not None
    again.close()


def test_a_newer_store_is_left_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s")
    store.close()
    database = apsw.Connection(str(tmp_path / "s" / FILE_NAME))
    database.pragma("user_version", 99)
    database.close()
    before = (tmp_path / "s" / FILE_NAME).read_bytes()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"schema version 99.*start the newer gen-orchestrator, or take another data folder"):
            SqliteStore(tmp_path / "s")
    assert (tmp_path / "s" / FILE_NAME).read_bytes() == before
