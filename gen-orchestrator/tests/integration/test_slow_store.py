"""A store that accepts nothing for a while, with real parts: callers are told, active runs continue, and afterwards nothing is missing."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from platform_process import PlatformProcess

from gen_orchestrator.scheduling.intake import STALLED_S

ECHO = "/v1/local/probe/echo"
HELD_S = 7.0  # longer than a lease of the leader, and than requests wait


@contextmanager
def locked_file(platform: PlatformProcess) -> Iterator[None]:
    """As a backup does, or somebody with sqlite3."""
    database = sqlite3.connect(platform.data / "store.sqlite", isolation_level=None, timeout=60)
    database.execute("begin exclusive")
    try:
        yield
    finally:
        database.close()


@contextmanager
def locked_table(url: str) -> Iterator[None]:
    """As a migration does, or somebody with psql."""
    with psycopg.connect(url) as database:
        database.execute("lock table runs in access exclusive mode")
        yield


class Asked:
    """Requests that are under way beside the test, with how long each took."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._threads: list[threading.Thread] = []
        self.answers: list[tuple[str, httpx.Response, float]] = []

    def post(self, what: str, path: str, json: object = None, **headers: str) -> None:
        def ask() -> None:
            began_s = time.monotonic()
            answer = httpx.post(f"{self._url}{path}", json=json, headers=headers, timeout=60, trust_env=False)
            self.answers.append((what, answer, time.monotonic() - began_s))

        self._threads.append(threading.Thread(target=ask))
        self._threads[-1].start()

    def of(self, what: str) -> list[httpx.Response]:
        for thread in self._threads:
            thread.join()
        return [answer for name, answer, _ in self.answers if name == what]


def hold_for(platform: PlatformProcess, held: Callable[[], Any]) -> None:
    before = platform.invoke("echo").json()["output"]["pid"]
    folder = platform.data.parent / "works"
    folder.mkdir()
    works = platform.submit("sleep", {"seconds": 600, "text": "ended meanwhile", "folder": str(folder)})
    lasts = platform.submit("sleep", {"seconds": 600})
    platform.until(lambda: {platform.run(each)["status"] for each in (works, lasts)} == {"running"})
    resident = resident_mb(platform)
    asked = Asked(platform.url)
    with held():
        began_s = time.monotonic()
        (folder / "go").touch()
        for number in range(8):
            asked.post("early", ECHO, {"text": str(number)}, **{"idempotency-key": f"early-{number}"})
        asked.post("cancel", f"/v1/runs/{lasts}/cancel")
        platform.until(lambda: "store" in platform.http.get("/readyz").json() or platform.http.get("/readyz").status_code == 503)
        platform.until(lambda: time.monotonic() - began_s > STALLED_S + 1)
        for number in range(300):  # nobody waits for a store that takes nothing, and nothing is kept of them
            answer = platform.http.post(ECHO, json={"text": "x" * 50_000}, headers={"idempotency-key": f"late-{number}"})
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text
            if answer.elapsed.total_seconds() > 1:  # it was asked while this node did not lead: all others would be, too
                break
        assert platform.http.get("/livez").status_code == 200
        platform.until(lambda: time.monotonic() - began_s > HELD_S)
        assert resident_mb(platform) - resident < 60
    run = platform.until(lambda: found if (found := look(platform, works)).get("status") == "succeeded" else None)
    assert (run["attempt"], run["output"]["pid"]) == (1, before), "its worker had it all the time"
    answers = asked.of("early")
    assert all(answer.status_code in (200, 503) for answer in answers), [answer.text for answer in answers]
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
    platform.until(lambda: platform.http.post(f"/v1/runs/{lasts}/cancel").json().get("status") == "canceled")
    for number in range(8):  # who asks again gets the same run
        again = [platform.http.post(ECHO, json={"text": str(number)}, headers={"idempotency-key": f"early-{number}"}) for _ in range(2)]
        assert [each.status_code for each in again] == [200, 200], again[0].text
        assert again[0].json() == again[1].json()
    assert {each.json()["id"] for each in answers if each.status_code == 200} <= {each["id"] for each in listed(platform)}
    platform.until(lambda: "store" not in platform.http.get("/readyz").json())  # when the lease is renewed the next time
    assert platform.invoke("echo").status_code == 200


def listed(platform: PlatformProcess) -> list[dict[str, Any]]:
    return list(platform.http.get("/v1/runs", params={"limit": 100}).json()["data"])


def look(platform: PlatformProcess, run_id: str) -> dict[str, Any]:
    answer = platform.http.get(f"/v1/runs/{run_id}")
    return dict(answer.json()) if answer.status_code == 200 else {}


def resident_mb(platform: PlatformProcess) -> float:
    return int(Path(f"/proc/{platform.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


def test_a_file_that_another_program_has_locked_deposes_nobody(project: Path, tmp_path: Path) -> None:
    platform = PlatformProcess(project, tmp_path / "data")
    try:
        hold_for(platform, lambda: locked_file(platform))
        log = platform.log.read_text()
        assert (log.count("leader.stepped_down"), log.count("run.worker_lost")) == (0, 0)
    finally:
        platform.close()
    assert platform.process.returncode == 0


def test_a_table_that_another_session_has_locked(project: Path, tmp_path: Path, postgres_url: str) -> None:
    platform = PlatformProcess(project, tmp_path / "data", "--store", postgres_url)
    try:
        hold_for(platform, lambda: locked_table(postgres_url))
    finally:
        platform.close()
    assert platform.process.returncode == 0


def test_a_start_with_a_locked_file_says_so(project: Path, tmp_path: Path) -> None:
    platform = PlatformProcess(project, tmp_path / "data")
    assert platform.stop() == 0
    with locked_file(platform):
        process = platform.launch()
        assert process.wait(60) == 1
        assert process.stdout is not None
        process.stdout.close()
    assert "store.sqlite is locked by another program, such as a backup or sqlite3: end that one" in platform.log.read_text()
    platform.start()
    assert platform.invoke("echo").status_code == 200
    platform.close()
