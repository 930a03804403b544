"""Workers over the API: their logs, draining one, and why a run waits."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from platform_process import COZYCTL, PlatformProcess


def verb(platform: PlatformProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


def worker_of(platform: PlatformProcess) -> str:
    platform.invoke("echo")
    found: str = platform.http.get("/v1/workers").json()["data"][0]["worker_id"]
    return found


def test_what_a_worker_writes_is_read_from_any_place(served: PlatformProcess) -> None:
    worker = worker_of(served)
    served.invoke("refuse")
    first = served.http.get(f"/v1/workers/{worker}/logs").json()
    assert any("run.failed" in line for line in first["lines"]), first
    assert served.http.get(f"/v1/workers/{worker}/logs", params={"after": first["next"]}).json()["lines"] == []
    served.invoke("refuse")
    more = served.http.get(f"/v1/workers/{worker}/logs", params={"after": first["next"], "wait": 60}).json()
    assert any("run.failed" in line for line in more["lines"])
    for path, status in (
        ("nobody/logs", 404),
        ("..%2f..%2fsecret/logs", 404),
        (f"{worker}/logs?after=-1", 400),
        (f"{worker}/logs?wait=x", 400),
    ):
        assert served.http.get(f"/v1/workers/{path}").status_code == status, path
    served.http.post(f"/v1/workers/{worker}/drain")
    served.until(lambda: worker not in [each["worker_id"] for each in served.status()["workers"]])
    assert served.http.get(f"/v1/workers/{worker}/logs").json()["lines"]


def test_logs_on_the_command_line(served: PlatformProcess) -> None:
    worker = worker_of(served)
    served.invoke("refuse")
    for target in ("", worker, "local/probe", "local/probe/refuse:prod"):
        done = verb(served, "logs", *([target] if target else []))
        assert "run.failed" in done.stdout, (target, done)
    missing = verb(served, "logs", "local/nothing")
    assert (missing.returncode, "Endpoints: local/probe" in missing.stderr) == (3, True), missing
    env = {**os.environ, "COZY_URL": served.url}
    following = subprocess.Popen(
        [str(COZYCTL), "logs", "-f", "local/probe"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    assert following.stdout.readline()
    answer = served.invoke("refuse")
    while answer.json()["id"] not in following.stdout.readline():
        pass
    following.send_signal(signal.SIGINT)
    assert following.wait(60) == 130
    following.stdout.close()
    assert following.stderr is not None
    following.stderr.close()


def test_a_drained_worker_ends_its_runs_and_is_replaced(served: PlatformProcess, tmp_path: Path) -> None:
    run_id = served.submit("sleep", {"seconds": 60, "text": "kept", "folder": str(tmp_path)})
    served.until(lambda: served.run(run_id)["status"] == "running")
    worker = served.run(run_id)["worker_id"]
    done = verb(served, "drain", worker)
    assert (done.returncode, done.stdout.split()) == (0, [worker, "draining"]), done
    assert served.invoke("echo", {"text": "by another"}).json()["worker_id"] != worker
    (tmp_path / "go").touch()
    run = served.run(run_id, 60)
    assert (run["status"], run["attempt"], run["worker_id"]) == ("succeeded", 1, worker)
    assert verb(served, "drain", "nobody").returncode == 3


def test_a_queued_run_says_what_it_waits_for(served: PlatformProcess, tmp_path: Path) -> None:
    worker_of(served)
    served.until(lambda: len(served.status()["workers"]) == 1)
    first = served.submit("one-at-a-time", {"seconds": 60, "folder": str(tmp_path)})
    served.until(lambda: served.run(first)["status"] == "running")
    second = served.submit("one-at-a-time", {"seconds": 0.0})
    routing = served.run(second)["routing"]
    assert (routing["reason"], routing["queue_depth"]) == ("busy", 1), routing
    assert "it waits (busy): the only worker is busy; 1 run of one-at-a-time" in verb(served, "runs", "get", second, "--why").stdout
    (tmp_path / "go").touch()
    assert served.run(second, 60)["status"] == "succeeded"
    assert served.run(second)["routing"]["reason"] == "no_models"


def test_a_run_whose_workers_crash_shows_their_last_lines(platform: PlatformProcess, project: Path) -> None:
    worker_of(platform)
    main = project / "src" / "probe" / "main.py"
    text = main.read_text() + '\nif os.environ.get("WORKER_ID"):\n    os._exit(3)\n'
    main.write_text(text)
    known = {tag["release_id"] for tag in platform.status()["tags"]}
    # The release is there a moment before its tags are.
    platform.until(
        lambda: [tag for tag in platform.status()["tags"] if tag["ref"].endswith("/echo:dev") and tag["release_id"] not in known]
    )
    answer = platform.invoke("echo", tag="dev", headers={"prefer": "respond-async"})

    def crashed() -> Any:
        routing = platform.run(answer.json()["id"])["routing"]
        return routing["reason"] == "worker_crashed" and "os._exit(3)" in routing["last_lines"]

    assert platform.until(crashed)
    shown = verb(platform, "runs", "get", answer.json()["id"], "--why").stdout
    assert "it waits (worker_crashed)" in shown, shown
    platform.http.post(f"/v1/runs/{answer.json()['id']}/cancel")


def test_what_is_kept_of_a_workers_lines_is_bounded(project: Path, tmp_path: Path) -> None:
    platform = PlatformProcess(project, tmp_path / "data", env={"GEN_ORCHESTRATOR_WORKER_LOG_BYTES": str(1 << 16)})
    try:
        (worker,) = platform.until(platform.worker_pids)
        first = platform.http.get(f"/v1/workers/{worker}/logs").json()["next"]
        assert platform.invoke("chatter", {"times": 20_000}).json()["status"] == "succeeded"
        path = platform.data / "logs" / f"{worker}.log"
        platform.until(lambda: path.stat().st_blocks * 512 <= 2 << 16)
        rest = platform.http.get(f"/v1/workers/{worker}/logs", params={"after": first}).json()
        said = [line for line in rest["lines"] if line.startswith("chatter")]
        assert said == [f"chatter {number:06d}" for number in range(20_000 - len(said), 20_000)]
        assert 0 < len(said) < 10_000
        assert not any("\0" in line for line in rest["lines"])
        last = platform.http.get(f"/v1/workers/{worker}/logs").json()
        assert any("chatter 019999" in line for line in last["lines"])
    finally:
        platform.close()
