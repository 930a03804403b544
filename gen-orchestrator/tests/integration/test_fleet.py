"""Workers as child processes: how many there are, what they see, and how they are replaced."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from platform_process import COZYCTL, PlatformProcess, kill

SECRETS = {
    "COZY_API_KEY": "planted-1",
    "PGPASSWORD": "planted-2",
    "GEN_ORCHESTRATOR_DATABASE_URL": "postgresql://u:planted-3@db/x",
    "AWS_SECRET_ACCESS_KEY": "planted-4",
    "WEBHOOK_SIGNING_KEY": "planted-5",
}
Start = Callable[..., PlatformProcess]


@pytest.fixture
def start(project: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a platform whose project has these lines in its cozy.toml."""
    started: list[PlatformProcess] = []

    def begin(toml: str = "", **named: dict[str, str]) -> PlatformProcess:
        with (project / "cozy.toml").open("a") as file:
            file.write("\n" + toml)
        started.append(PlatformProcess(project, tmp_path / "data", **named))
        return started[-1]

    yield begin
    for platform in started:
        platform.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_project_finds_none_of_the_platforms_secrets(start: Start) -> None:
    platform = start(env=SECRETS)
    seen = json.loads(platform.invoke("environment").json()["output"]["text"])
    assert not [name for name, value in seen.items() if "planted" in value]
    assert str(platform.data) not in {value for name, value in seen.items() if not name.startswith("GEN_WORKER_")}


def littered(platform: PlatformProcess, folder: Path) -> list[int]:
    """A run that has started three processes and goes on; the worker, then those."""
    platform.submit("litter", {"seconds": 600, "folder": str(folder)})
    notes = folder / "notes"
    platform.until(lambda: notes.exists() and len(notes.read_text().splitlines()) == 3)
    (worker,) = platform.worker_processes()
    pids = [worker, *map(int, notes.read_text().split())]
    assert [pid for pid in pids if not is_alive(pid)] == []
    return pids


def test_workers_die_with_the_platform_and_all_that_they_started(platform: PlatformProcess, tmp_path: Path) -> None:
    pids = littered(platform, tmp_path)
    platform.kill()
    platform.until(lambda: not any(map(is_alive, pids)))


def test_a_killed_worker_leaves_nothing_behind(platform: PlatformProcess, tmp_path: Path) -> None:
    pids = littered(platform, tmp_path)
    kill(pids[0])
    platform.until(lambda: not any(map(is_alive, pids)))
    assert platform.invoke("echo", {"text": "the next one"}).json()["status"] == "succeeded"
    platform.kill()  # the run that goes on would hold up the end


def test_what_a_killed_worker_has_in_temporary_folders_is_removed_at_once(start: Start, tmp_path: Path) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    platform = start("[scaling]\nmin = 0\n", env={"TMPDIR": str(tmp)})
    assert platform.invoke("echo", {"text": "on"}).json()["status"] == "succeeded"
    (worker,) = platform.worker_processes()
    (folder,) = tmp.glob("gen-worker-*")
    (folder / "a callers file").touch()
    kill(worker)
    platform.until(lambda: not folder.exists(), 60)


def test_a_platform_that_is_told_twice_to_end_leaves_nothing_behind(platform: PlatformProcess, tmp_path: Path) -> None:
    pids = littered(platform, tmp_path)
    platform.process.send_signal(signal.SIGTERM)
    assert platform.process.stdout is not None
    while b"draining" not in platform.process.stdout.readline():
        pass
    platform.process.send_signal(signal.SIGTERM)
    assert platform.wait_for_end() == 130
    platform.until(lambda: not any(map(is_alive, pids)))


def test_what_outlives_the_platform_is_found_again_when_it_was_killed_itself(platform: PlatformProcess, tmp_path: Path) -> None:
    (before,) = platform.until(platform.reapers)
    kill(before)
    first = littered(platform, tmp_path)
    kill(first[0])  # the next worker brings another
    platform.until(lambda: platform.reapers() not in ([], [before]))
    second = tmp_path / "second"
    second.mkdir()
    pids = [*first, *littered(platform, second)]
    platform.kill()
    platform.until(lambda: not any(map(is_alive, pids)))


def test_a_worker_that_somebody_else_tells_to_end_has_not_crashed(platform: PlatformProcess) -> None:
    before = platform.until(platform.worker_pids)
    assert platform.invoke("echo").json()["status"] == "succeeded"
    kill(next(iter(before.values())), signal.SIGTERM)
    platform.until(lambda: platform.worker_pids() and not platform.worker_pids().keys() & before.keys())
    assert platform.invoke("echo", {"text": "on"}).json()["output"]["text"] == "on"
    assert "worker.crashed" not in platform.log.read_text()


def test_workers_follow_the_work_to_zero_and_back(start: Start, tmp_path: Path) -> None:
    platform = start("[scaling]\nmax = 3\nidle_s = 1.5\n")
    ids = [platform.submit("one-at-a-time", {"seconds": 3, "text": str(number)}) for number in range(6)]
    platform.until(lambda: len(platform.worker_pids()) == 3)
    assert [platform.run(run_id, 60)["status"] for run_id in ids] == ["succeeded"] * 6
    platform.until(lambda: len(platform.status()["workers"]) == 0)
    platform.until(lambda: not platform.worker_pids())
    assert platform.invoke("echo", {"text": "back"}).json()["output"]["text"] == "back"
    assert "worker.crashed" not in platform.log.read_text()  # they drained, and ended with 0


def test_a_run_that_is_kept_apart_holds_nobody_up_where_another_worker_may_come(start: Start, tmp_path: Path) -> None:
    platform = start("[scaling]\nmax = 2")
    # Both on one worker: as long as no worker has said how many runs it takes at once, each run gets a worker.
    platform.invoke("echo", {"text": "one worker is there"})
    runs = [platform.submit("sleep", {"seconds": 1000, "folder": str(tmp_path)}) for _ in range(2)]
    (tmp_path / "notes").touch()
    for losses in range(2):
        platform.until(lambda begun=2 * (losses + 1): len((tmp_path / "notes").read_text().splitlines()) >= begun)
        (worker,) = {platform.run(run_id)["worker_id"] for run_id in runs}
        kill(platform.worker_pids()[worker])
    platform.http.post(f"/v1/runs/{runs[1]}/cancel")
    platform.until(lambda: platform.run(runs[0])["status"] == "running")
    assert platform.invoke("echo", {"text": "meanwhile"}).json()["output"]["text"] == "meanwhile"
    assert platform.run(runs[0])["status"] == "running"
    platform.http.post(f"/v1/runs/{runs[0]}/cancel")


def test_a_minimum_is_kept(start: Start) -> None:
    platform = start("[scaling]\nmin = 2\nmax = 2\nidle_s = 0\n")
    pids = platform.until(lambda: found if len(found := platform.worker_pids()) == 2 else None)
    kill(next(iter(pids.values())))
    platform.until(lambda: len(platform.worker_pids()) == 2 and platform.worker_pids() != pids)


def test_a_worker_that_ignores_a_cancel_is_replaced_with_all_it_started(start: Start, tmp_path: Path) -> None:
    platform = start()
    neighbour = platform.submit("sleep", {"seconds": 600})
    run_id = platform.submit("deaf", {"seconds": 600, "folder": str(tmp_path)})
    platform.until(lambda: (tmp_path / "notes").exists())
    (before,) = platform.worker_pids().values()
    platform.http.post(f"/v1/runs/{run_id}/cancel")
    platform.until(lambda: not is_alive(before))
    platform.until(lambda: not is_alive(int((tmp_path / "notes").read_text())))
    assert platform.run(run_id, 60)["status"] == "canceled"
    assert platform.invoke("echo", {"text": "at once"}).json()["status"] == "succeeded"
    platform.until(lambda: (run := platform.run(neighbour))["status"] == "running" and run["attempt"] == 2)
    platform.http.post(f"/v1/runs/{neighbour}/cancel")


def test_a_worker_that_stops_is_replaced_once_a_runs_time_is_over(start: Start) -> None:
    platform = start()
    run_id = platform.submit("sleep", {"seconds": 600}, timeout_s=1)
    platform.until(lambda: platform.run(run_id)["status"] == "running")
    (before,) = platform.worker_pids().values()
    os.kill(before, signal.SIGSTOP)
    done = platform.run(run_id, 60)
    assert (done["status"], done["error"]["code"]) == ("failed", "timeout")
    platform.until(lambda: not is_alive(before))
    assert platform.invoke("echo", {"text": "on"}).json()["status"] == "succeeded"


def test_a_worker_that_goes_bad_is_drained_and_replaced(start: Start, tmp_path: Path) -> None:
    platform = start()
    (before,) = platform.until(platform.worker_pids)
    slow = platform.submit("sleep", {"seconds": 60, "text": "finished", "folder": str(tmp_path)})
    platform.until(lambda: platform.run(slow)["status"] == "running")
    for _ in range(3):
        assert platform.invoke("broken").json()["status"] == "failed"
    (tmp_path / "go").touch()
    platform.until(lambda: before not in platform.worker_pids())
    done = platform.run(slow, 60)
    assert (done["status"], done["attempt"], done["output"]["text"]) == ("succeeded", 1, "finished")
    assert platform.invoke("echo", {"text": "on"}).json()["status"] == "succeeded"


def test_a_worker_joins_by_hand(platform: PlatformProcess) -> None:
    """A second worker of the release, started as on another machine: with a token that `cozyctl workers token` has made."""
    (child,) = platform.until(platform.worker_pids)
    assert platform.http.get("/.well-known/jwks.json").json()["keys"][0]["alg"] == "RS256"
    options = ("--endpoint", "local/probe", "--ttl", "10m", "--url", platform.url)
    made = json.loads(subprocess.run([COZYCTL, "workers", "token", *options, "--json"], check=True, capture_output=True, timeout=60).stdout)
    said = subprocess.run([COZYCTL, "workers", "token", *options], check=True, capture_output=True, text=True, timeout=60).stderr
    assert f"SCHEDULER_PUBLIC_ADDR={made['scheduler_addr']} " in said
    assert "--worker-listen" in said, "it listens on loopback only"
    child_env = dict(
        line.split("=", 1) for line in Path(f"/proc/{platform.worker_pids()[child]}/environ").read_text().split("\0") if "=" in line
    )
    env = {
        **{name: value for name, value in child_env.items() if not name.startswith("GEN_ORCHESTRATOR")},
        "WORKER_JWT": made["token"],
        "SCHEDULER_PUBLIC_ADDR": made["scheduler_addr"],
        "SCHEDULER_JWKS_URL": f"{platform.url}/.well-known/jwks.json",
        "SCHEDULER_JWT_ISSUER": made["issuer"],
        "SCHEDULER_JWT_AUDIENCE": made["audience"],
    }
    command = [sys.executable, "-m", "gen_worker.entrypoint"]
    worker = subprocess.Popen(command, env=env, cwd=env["GEN_WORKER_ENDPOINT_ROOT"], stdin=subprocess.DEVNULL)
    try:
        platform.until(lambda: {made["worker_id"], child} <= {each["worker_id"] for each in platform.status()["workers"]})
        listed = subprocess.run([COZYCTL, "workers", "list", "--url", platform.url], check=True, capture_output=True, text=True, timeout=60)
        assert made["worker_id"][:12] in listed.stdout
    finally:
        worker.terminate()
        worker.wait(60)


def test_workers_killed_after_they_served_are_replaced_at_once(start: Start) -> None:
    """The pauses are for code that crashes at its start; whoever has served was killed by something else."""
    platform = start()
    for _ in range(4):
        platform.invoke("echo")
        (pid,) = platform.worker_pids().values()
        kill(pid)
        platform.until(lambda pid=pid: pid not in platform.worker_pids().values())
    lines = [json.loads(line) for line in platform.log.read_text().splitlines() if '"worker.crashed"' in line]
    assert [entry["again_in_s"] for entry in lines[:3]] == [0.5, 0.5, 0.5]
