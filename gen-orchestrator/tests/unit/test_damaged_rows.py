"""Rows that no program of ours wrote: each is named and skipped, without affecting other rows."""

import sqlite3
from pathlib import Path

import pytest

from gen_orchestrator.domain.access import Key
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.webhooks import Delivery
from gen_orchestrator.hub.registry import NotFoundError, Registry
from gen_orchestrator.store.base import DamagedRowError, RunFilter
from gen_orchestrator.store.ops import Accept, AddDelivery
from gen_orchestrator.store.sqlite import SqliteStore

ENTRY = b"""{"name":"f","python_name":"f","module":"m","resources":{},"input_schema":{},"output_schema":{},"output_mode":"single","injection_json":[]}"""


class Damaged:
    """A store with three of everything, and a second pair of hands in its file."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self._folder = folder
        self.store = SqliteStore(folder)
        leader = self.store.campaign("node", "here:1", 60)
        assert leader is not None
        runs = [
            Run(id=f"run-{n}", owner="o", endpoint="e", function="f", tag="prod", release_id="r", payload=b"", created_at=float(n))
            for n in range(3)
        ]
        deliveries = [Delivery(id=f"d-{n}", run_id="run-0", moment="succeeded", created_at=1.0) for n in range(3)]
        self.store.apply(leader.epoch, [*map(Accept, runs), *map(AddDelivery, deliveries)])
        for n in range(3):
            self.store.add_key(Key(key_id=f"k-{n}", owner="o", name="n", scopes=("run",), secret_sha256="0" * 64, created_at=1.0))

    def edit(self, statement: str) -> None:
        """Change the file, and open it again."""
        self.store.close()
        with sqlite3.connect(self._folder / "store.sqlite") as db:
            assert db.execute(statement).rowcount > 0
        db.close()
        self.store = SqliteStore(self._folder, on_damaged=lambda exc: self.told.append(str(exc)))


@pytest.fixture
def damaged(tmp_path: Path) -> Damaged:
    return Damaged(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "error = '{'",
        "error = x'7b7d7d'",
        "error = x'5b5d'",
        "attempt = 'many'",
        "created_at = x'00'",
        "payload = 'text'",
        "timeout_ms = 'long'",
        "release_id = x'ff'",
    ],
)
def test_a_damaged_run_is_named_and_left_out(damaged: Damaged, change: str) -> None:
    damaged.edit(f"update runs set {change} where id = 'run-1'")
    assert [run.id for run in damaged.store.open_runs()] == ["run-0", "run-2"]
    pages = [damaged.store.list_runs(RunFilter(limit=1)), damaged.store.list_runs(RunFilter(limit=2))]
    assert [[run.id for run in page] for page in pages] == [["run-2"], ["run-2", "run-0"]] or change.startswith("created_at")
    assert all("run 'run-1' cannot be read" in text for text in damaged.told)
    assert damaged.told
    with pytest.raises(DamagedRowError, match="run-1"):
        damaged.store.get("run-1")


@pytest.mark.parametrize("change", ["created_at = x'00'", "gpu_ms = 'much'", "owner = x'ff'", "cost_nanos = 'free'"])
def test_a_damaged_run_is_forgotten_without_what_it_used(damaged: Damaged, change: str) -> None:
    damaged.edit("update runs set state = 'succeeded', finished_at = 5.0, gpu_ms = 7")
    damaged.edit(f"update runs set {change} where id = 'run-1'")
    assert sum(row.gpu_ms for row in damaged.store.usage(0, 10)) in (14, 21)
    assert damaged.store.gpu_ms_since("", 0.0, 1.0)[0] == 0
    damaged.told.clear()
    assert damaged.store.forget(["run-0", "run-1", "run-2"]) == 3
    assert [(row.runs, row.gpu_ms) for row in damaged.store.usage(0, 10)] == [(2, 14)]
    assert "run 'run-1' cannot be read" in damaged.told[0]


@pytest.mark.parametrize("budgets", ['{"rate":"60"}', '{"concurrency":-1}', '{"gpu_seconds":"all/d"}', '{"rate":5}', "{", "7"])
def test_a_key_with_damaged_budgets_is_left_out(damaged: Damaged, budgets: str) -> None:
    """It is not let in without a bound."""
    damaged.edit(f"update access_keys set budgets = cast('{budgets}' as blob) where key_id = 'k-1'")
    assert [key.key_id for key in damaged.store.list_keys()] == ["k-0", "k-2"]
    assert "key 'k-1' cannot be read" in damaged.told[0]


@pytest.mark.parametrize("change", ["tries = '{'", "tries = x'7b7d'", "next_at = 'soon'", "created_at = x'00'"])
def test_a_damaged_delivery_is_named_and_left_out(damaged: Damaged, change: str) -> None:
    damaged.edit(f"update deliveries set {change} where id = 'd-1'")
    assert [each.id for each in damaged.store.deliveries_of("run-0")] == ["d-0", "d-2"]
    assert "delivery 'd-1' cannot be read" in damaged.told[0]


@pytest.mark.parametrize("change", ["scopes = x'7b'", "scopes = 'run'", "expires_at = 'never'", "secret_sha256 = x'00'"])
def test_a_damaged_key_is_named_and_left_out(damaged: Damaged, change: str) -> None:
    damaged.edit(f"update access_keys set {change} where key_id = 'k-1'")
    assert [key.key_id for key in damaged.store.list_keys()] == ["k-0", "k-2"]
    assert "key 'k-1' cannot be read" in damaged.told[0]


def manifest(name: str) -> bytes:
    return b'{"endpoint_name":"%s","functions":[%s]}' % (name.encode(), ENTRY)


@pytest.mark.parametrize(
    "change",
    [
        "manifest = x'7b'",
        "manifest = 'text'",
        "manifest = x''",
        'manifest = replace(manifest, \'"resources":{}\', \'"resources":{"timeout_s":"long"}\')',
        'manifest = cast(replace(cast(manifest as text), \'"resources":{}\', \'"resources":{"timeout_s":"long"}\') as blob)',
        'manifest = cast(replace(cast(manifest as text), \'{"endpoint_name"\', \'{"scaling":{"max":"x"},"endpoint_name"\') as blob)',
    ],
)
def test_a_damaged_release_is_named_and_published_again(damaged: Damaged, change: str) -> None:
    registry = Registry(damaged.store)
    bad, good = (registry.add("o", manifest(name), "source") for name in ("bad", "good"))
    for release in (bad, good):
        registry.move("o", release.endpoint, "f", "prod", release.release_id)
    damaged.edit(f"update releases set {change} where endpoint = 'bad'")
    registry = Registry(damaged.store)
    assert registry.resolve("o", "good", "f", "prod").release_id == good.release_id
    for ask in (lambda: registry.resolve("o", "bad", "f", "prod"), lambda: registry.settings(bad.release_id, "f")):
        with pytest.raises(NotFoundError, match=r"damaged.*cozyctl promote"):
            ask()
    assert registry.add("o", manifest("bad"), "source").release_id == bad.release_id
    for each in (registry, Registry(damaged.store)):
        assert each.resolve("o", "bad", "f", "prod").release_id == bad.release_id
        assert not each.damaged


def test_a_tag_that_points_at_nothing_can_be_moved(damaged: Damaged) -> None:
    registry = Registry(damaged.store)
    release = registry.add("o", manifest("e"), "source")
    registry.move("o", "e", "f", "prod", release.release_id)
    damaged.edit("update tags set release_id = x'ff' where tag = 'prod'")
    registry = Registry(damaged.store)
    with pytest.raises(NotFoundError, match="no release ''"):
        registry.resolve("o", "e", "f", "prod")
    assert registry.move("o", "e", "f", "prod", release.release_id).version == 2
    assert Registry(damaged.store).resolve("o", "e", "f", "prod").release_id == release.release_id
