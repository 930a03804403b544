"""Finished runs are deleted in time, and the deletion delays nothing else."""

import asyncio
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_store import a_run

from gen_orchestrator.domain.runs import Ending, RunState
from gen_orchestrator.hub.blobs import FolderBlobs
from gen_orchestrator.hub.files import FileToken, RunFiles
from gen_orchestrator.hub.model_records import Collected
from gen_orchestrator.hub.retention import Retention, RetentionSettings
from gen_orchestrator.store.base import Leader, Store, StoreUnavailableError
from gen_orchestrator.store.ops import Accept, AppendEvents, Finish, Lease
from gen_orchestrator.store.sqlite import SqliteStore
from gen_worker.log import Log

NOW_S = 1e9
DAY_S = 24 * 3600.0


class MovedClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.moved_s = 0.0

    def now_s(self) -> float:
        return 100.0 + self.moved_s

    def unix_s(self) -> float:
        return NOW_S + self.moved_s


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store")
    yield store
    store.close()


def no_files(folder: Path) -> RunFiles:
    return RunFiles(folder / "files", FolderBlobs(folder / "blobs"), lambda owner, run_id: 1, lambda: NOW_S)


def add(store: Store, leader: Leader, run_id: str, ended_s: float, key: str = "") -> None:
    run = a_run(run_id, created_at=ended_s - 1, idempotency_key=key)
    ending = Ending(state=RunState.SUCCEEDED, at=ended_s)
    store.apply(leader.epoch, [Accept(run), Lease(run_id, 1, "w", ended_s), AppendEvents(run_id, 1, 1, 1, b"[1]")])
    store.apply(leader.epoch, [Finish(run_id, 1, ending)])


def test_details_go_after_a_day_and_runs_after_a_week(store: Store, tmp_path: Path) -> None:
    leader = store.campaign("n", "a", 600)
    assert leader is not None
    files = RunFiles(tmp_path / "files", FolderBlobs(tmp_path / "blobs"), lambda owner, run_id: 1, lambda: NOW_S)
    for run_id, age_s in (("new", 60.0), ("day", 1.5 * DAY_S), ("week", 8 * DAY_S)):
        add(store, leader, run_id, NOW_S - age_s, f"key of {run_id}")
        saving = files.saving(FileToken("ann", run_id, 1), "shared/out.txt")
        saving.write(run_id.encode())
        saving.keep()
        saving.publish(create=False)
        saving.drop()
    store.apply(leader.epoch, [Accept(a_run("open", created_at=1.0))])
    retention = Retention(RetentionSettings(), store, files, Log(io.StringIO()), MovedClock())
    assert asyncio.run(retention.round()) == (2, 1)
    assert [run_id for run_id in ("new", "day", "week", "open") if store.get(run_id)] == ["new", "day", "open"]
    assert [len(store.events_of(run_id)) for run_id in ("new", "day", "week")] == [1, 0, 0]
    assert store.by_key("ann", "key of new") is not None
    assert store.by_key("ann", "key of day") is None
    assert sorted(path.name for path in (tmp_path / "files" / "ann").iterdir() if path.name != ".refs") == ["day", "new"]
    assert len(list((tmp_path / "files" / "ann" / ".refs").iterdir())) == 2
    assert sorted(path.name for path in (tmp_path / "blobs" / "runs" / "ann").iterdir()) == ["day", "new"]
    assert asyncio.run(retention.round()) == (0, 0)


def test_forgetting_20000_runs_holds_no_commit_up(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    """Beside it, commits go on; no single one waits for more than one small batch."""
    leader = sqlite_store.campaign("n", "a", 600)
    assert leader is not None
    for start in range(0, 20_000, 1000):
        ops = []
        for number in range(start, start + 1000):
            run_id = f"old{number}"
            ops += [Accept(a_run(run_id, created_at=float(number))), Lease(run_id, 1, "w", 1.0)]
            ops += [AppendEvents(run_id, 1, 1, 1, b"[1]" * 20), Finish(run_id, 1, Ending(state=RunState.SUCCEEDED, at=number + 1.0))]
        sqlite_store.apply(leader.epoch, ops)
    retention = Retention(RetentionSettings(), sqlite_store, no_files(tmp_path), Log(io.StringIO()), MovedClock())
    waits: list[float] = []

    async def both() -> tuple[int, int]:
        forgetting = asyncio.create_task(retention.round())
        while not forgetting.done():
            began_s = time.monotonic()
            await asyncio.to_thread(sqlite_store.apply, leader.epoch, [Accept(a_run(f"new{len(waits)}", created_at=NOW_S))])
            waits.append(time.monotonic() - began_s)
        return await forgetting

    assert asyncio.run(both()) == (20_000, 20_000)
    assert sqlite_store.old_runs(NOW_S, 10) == []
    assert len(sqlite_store.open_runs()) == len(waits) > 50
    waits.sort()
    print(f"{len(waits)} commits beside it: p50 {waits[len(waits) // 2] * 1e3:.1f} ms, p99 {waits[-len(waits) // 100] * 1e3:.1f} ms")
    assert waits[len(waits) // 2] < 0.2


def test_a_run_whose_files_cannot_be_removed_stands_in_nobodys_way(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    """Whatever breaks a round, the next one is made."""

    class Unremovable(RunFiles):
        def remove(self, owner: str, run_id: str) -> None:
            if run_id == "stuck":
                raise PermissionError("a folder of somebody else's")
            super().remove(owner, run_id)

    leader = sqlite_store.campaign("n", "a", 600)
    assert leader is not None
    for run_id in ("one", "stuck", "two"):
        add(sqlite_store, leader, run_id, NOW_S - 8 * DAY_S)
    files = Unremovable(tmp_path / "files", FolderBlobs(tmp_path / "blobs"), lambda owner, run_id: 1, lambda: NOW_S)
    said = io.StringIO()
    retention = Retention(RetentionSettings(), sqlite_store, files, Log(said), MovedClock())
    assert asyncio.run(retention.round())[1] == 2
    assert [run_id for run_id in ("one", "stuck", "two") if sqlite_store.get(run_id)] == ["stuck"]
    assert "retention.files_kept" in said.getvalue()


def test_models_are_collected_once_an_hour(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    """The first time an hour after the start; a time that fails is tried again with the next hour, and keeps nothing else up."""
    clock, said, collected = MovedClock(), io.StringIO(), list[float]()
    leader = sqlite_store.campaign("n", "a", 600)
    assert leader is not None

    def collect() -> Collected:
        collected.append(clock.moved_s)
        if len(collected) == 2:
            raise OSError("the disk is away")
        return Collected(3, 500)

    retention = Retention(RetentionSettings(), sqlite_store, no_files(tmp_path), Log(said), clock, collect_models=collect)
    for minute in range(4 * 60 + 1):
        clock.moved_s = minute * 60.0
        if minute == 120:
            add(sqlite_store, leader, "old", clock.unix_s() - 8 * DAY_S)
        asyncio.run(retention.look())
    assert collected == [3600.0, 7200.0, 10800.0, 14400.0]
    assert sqlite_store.get("old") is None, "though the models were not collected then"
    assert said.getvalue().count('"blobs": 3') + said.getvalue().count("blobs=3") == 3, said.getvalue()
    assert said.getvalue().count("the disk is away") == 1


def test_releases_are_pruned_each_minute_where_that_is_asked_for(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    asked = list[int]()

    async def prune(keep: int) -> list[str]:
        asked.append(keep)
        if len(asked) == 2:
            raise StoreUnavailableError("the database does not answer")
        return ["gone"]

    for keep in (0, 4):
        settings, said = RetentionSettings(gen_orchestrator_keep_releases=keep), io.StringIO()
        retention = Retention(settings, sqlite_store, no_files(tmp_path), Log(said), MovedClock(), prune_releases=prune)

        async def go_on(retention: Retention, rounds: int) -> None:
            going = asyncio.create_task(retention.run(0.0))
            while len(asked) < rounds:
                await asyncio.sleep(0)
            going.cancel()

        asyncio.run(go_on(retention, 3 if keep else 0))
        assert set(asked) == ({4} if keep else set())
    assert said.getvalue().count("retention.releases_kept") == 1
