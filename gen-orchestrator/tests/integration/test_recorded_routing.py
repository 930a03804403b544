"""`cozyctl up --record`: routing decisions can be repeated from the recorded file alone, also with other policies."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from platform_process import PlatformProcess

from gen_orchestrator.domain.routing import Choice, Need, WorkerView, choose
from gen_orchestrator.scheduling.trace import Ended, Entry, Given, WorkerGone, WorkerSeen, read_trace

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
GB = 1_000_000_000


@pytest.fixture
def routing_replay(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import routing_replay

    return routing_replay


def test_decisions_come_out_again_from_the_file(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    platform = PlatformProcess(project, tmp_path / "data", "--record", str(file))
    try:
        ids = [platform.invoke("echo", {"text": str(number)}).json()["id"] for number in range(20)]
        platform.invoke("refuse")
    finally:
        platform.stop()
    entries = list(read_trace(file))
    given = {entry.run_id: entry for entry in entries if isinstance(entry, Given)}
    assert set(ids) < set(given)
    for entry in given.values():
        choice = choose(entry.need, entry.workers)
        assert (choice.worker_id, choice.reason) == (entry.worker_id, entry.reason)
    assert [entry.succeeded for entry in entries if isinstance(entry, Ended)] == [True] * 20 + [False]
    assert "echo" in next(entry for entry in entries if isinstance(entry, WorkerSeen)).functions
    shown = subprocess.run(
        [sys.executable, str(BENCHMARKS / "routing_replay.py"), str(file)], capture_output=True, text=True, timeout=60, check=True
    )
    assert shown.stdout.startswith("21 runs in ")
    for policy in ("as recorded", "seconds to result (ours)", "least loaded", "by model", "random"):
        assert f"| {policy} | " in shown.stdout
    with file.open("ab") as lines:
        lines.write(b'{"type":"given","at":1')  # as a kill leaves it
    assert list(read_trace(file)) == entries


def made_up(runs: int, models: int) -> list[Entry]:
    """Two workers with room for one model of 10 GB each, which both have all on disk; runs a second apart that want one after the other."""
    tiers = {f"m{number}": ("disk", 10 * GB) for number in range(models)}
    workers = [
        WorkerSeen(
            at=0.0, worker_id=name, release_id="r", functions=("f",), slots=1, device_bytes=15 * GB, load_bytes_per_s=10 * GB, tiers=tiers
        )
        for name in ("a", "b")
    ]
    entries: list[Entry] = [*workers]
    for number in range(runs):
        need = Need(models=(f"m{number % models}",), run_s=0.5)
        entries += [
            Given(at=1.0 + number, run_id=str(number), release_id="r", function="f", attempt=1, waited_s=0.0, need=need, workers=(), worker_id="a",
                  reason="warm"),
            Ended(at=1.5 + number, run_id=str(number), attempt=1, succeeded=True, took_s=0.5, models_s=0.0),
        ]  # fmt: skip
    return entries


def test_policies_differ_in_what_they_load(routing_replay: ModuleType) -> None:
    """With two models on two workers each is loaded once where routing looks at them, and again and again where it does not."""
    entries = made_up(runs=100, models=2)
    ours = routing_replay.replay(entries, choose)
    assert (ours.loads, ours.cold, ours.moved_bytes) == (2, 0, 20 * GB)
    assert (ours.p50_s, ours.p99_s) == (pytest.approx(0.5), pytest.approx(1.5))
    careless = routing_replay.replay(entries, routing_replay.at_random(1))
    assert careless.loads > 20
    assert careless.p50_s >= ours.p50_s
    assert routing_replay.replay(entries, routing_replay.at_random(1)) == careless  # the same every time


def test_replayed_runs_wait_for_room_and_workers_go(routing_replay: ModuleType) -> None:
    entries = [each for each in made_up(runs=10, models=1) if not (isinstance(each, WorkerSeen) and each.worker_id == "b")]
    seen: list[tuple[int, int]] = []

    def policy(need: Need, workers: Sequence[WorkerView]) -> Choice:
        seen.append((len(workers), sum(worker.running for worker in workers)))
        return choose(need, workers)

    alone = routing_replay.replay(entries, policy)
    assert alone.loads == 1
    assert max(running for _, running in seen) == 1
    ended = routing_replay.replay([*entries, WorkerGone(5.2, "a")], choose)
    assert ended.p99_s <= alone.p99_s  # what nobody took by then has no time


def test_a_trace_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"type": "nonsense"}\n')
    with pytest.raises(ValueError, match=r"other.jsonl:1 is not a line of a routing trace"):
        list(read_trace(path))
