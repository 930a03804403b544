"""Every strike in every phase of a run's life: runs are brought into all phases at once, something is killed or stopped, and each of them has
to end once, with its own answer, and leave nothing running.

CI does the strikes that no other test does; `make chaos` does all (`EVERY_STRIKE=1`).
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from platform_process import PlatformProcess, kill, write_project

PAUSE_S = 1.0
WAIT_S = 60
EVERY = bool(os.environ.get("EVERY_STRIKE"))
Strike = Callable[[PlatformProcess], None]


def strikes(often: tuple[Strike, ...], more: tuple[Strike, ...] = ()) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("strike", [*often, *(more if EVERY else ())], ids=lambda strike: strike.__name__)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("phases")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    yield started
    started.close()


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


class Runs:
    """A run in each phase."""

    def __init__(self, platform: PlatformProcess, folder: Path) -> None:
        self.platform, self.folder = platform, folder
        self.ids = {
            "finished": platform.submit("echo", {"text": "finished"}),
            "running": platform.submit("sleep", {"seconds": 0.6, "text": "running", "folder": str(folder)}),
            "streaming": platform.submit("count", {"times": 60, "seconds": 0.01}),
            "saved": platform.submit("save-as", {"text": "outputs/a.txt", "seconds": 0.6}),
            "alone": platform.submit("one-at-a-time", {"text": "alone", "seconds": 0.6}),
            "queued": platform.submit("one-at-a-time", {"text": "queued", "seconds": 0.01}),
        }
        platform.until(lambda: notes(folder) and self._status("finished") == "succeeded" and self._status("streaming") != "queued")

    def _status(self, phase: str) -> str:
        return str(self.platform.run(self.ids[phase])["status"])

    def check(self) -> None:
        """Each of them succeeds, with what is its own."""
        for phase, run_id in self.ids.items():
            found = self.platform.run(run_id, WAIT_S)
            assert found["status"] == "succeeded", (phase, found)
            if phase in ("finished", "running", "alone", "queued"):
                assert found["output"]["text"] == phase
            if phase == "saved":
                file = self.platform.http.get(found["files"][0]["url"])
                assert file.content == run_id.encode()
            self.check_events(phase)

    def check_events(self, phase: str) -> None:
        events = self.platform.events(self.ids[phase])
        assert [name for _, name, _ in events].count("done") == 1
        assert events[-1][1] == "done"
        if phase == "streaming":
            attempt = str(self.platform.run(self.ids[phase])["attempt"])
            last = [data["number"] for ident, name, data in events if name == "output" and ident.split("-")[0] == attempt]
            assert last == list(range(60))


def worker_of(platform: PlatformProcess) -> int:
    return int(next(iter(platform.until(platform.worker_pids).values())))


def all_done(platform: PlatformProcess) -> None:
    """Nothing runs on, and the next one is served."""
    assert platform.invoke("echo", {"text": "next"}).json()["output"]["text"] == "next"
    platform.until(lambda: platform.status()["open_runs"] == 0)


def kill_worker(platform: PlatformProcess) -> None:
    kill(worker_of(platform))


def stop_worker(platform: PlatformProcess) -> None:
    pid = worker_of(platform)
    kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)  # waits: the length of the stop is the strike
    kill(pid, signal.SIGCONT)


def kill_platform(platform: PlatformProcess) -> None:
    platform.kill()
    platform.start()


def stop_platform(platform: PlatformProcess) -> None:
    platform.process.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE_S)  # waits: what runs comes to its end meanwhile, and nobody takes the results
    platform.process.send_signal(signal.SIGCONT)


def kill_worker_of_a_stopped_platform(platform: PlatformProcess) -> None:
    pid = worker_of(platform)
    platform.process.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE_S)  # waits: the length of the stop is the strike
    kill(pid)
    platform.process.send_signal(signal.SIGCONT)


def kill_a_stopped_platform(platform: PlatformProcess) -> None:
    platform.process.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE_S)  # waits: the length of the stop is the strike
    kill_platform(platform)


def kill_both(platform: PlatformProcess) -> None:
    kill(worker_of(platform))
    kill_platform(platform)


@strikes((kill_a_stopped_platform, kill_worker_of_a_stopped_platform, stop_worker), (kill_worker, kill_platform, stop_platform, kill_both))
def test_runs_in_every_phase_end_once(platform: PlatformProcess, tmp_path: Path, strike: Strike) -> None:
    runs = Runs(platform, tmp_path)
    strike(platform)
    runs.check()
    all_done(platform)


@strikes((kill_worker,), (kill_platform,))
def test_a_run_that_a_stopped_worker_was_given_goes_to_another(platform: PlatformProcess, strike: Strike) -> None:
    kill(worker_of(platform), signal.SIGSTOP)
    given = platform.submit("echo", {"text": "given"})
    strike(platform)
    found = platform.run(given, WAIT_S)
    assert (found["status"], found["output"]["text"]) == ("succeeded", "given")
    all_done(platform)


def nothing(platform: PlatformProcess) -> None:
    """No strike."""


@strikes((nothing, kill_worker), (stop_worker, kill_platform))
def test_cancels_in_every_phase_hold(platform: PlatformProcess, tmp_path: Path, strike: Strike) -> None:
    runs = Runs(platform, tmp_path)
    told = {phase: platform.http.post(f"/v1/runs/{run_id}/cancel").json()["status"] for phase, run_id in runs.ids.items()}
    assert told.pop("finished") == "succeeded"
    strike(platform)
    for phase, status in told.items():
        found = platform.run(runs.ids[phase], WAIT_S)
        assert found["status"] == status or status == "running", (phase, status, found)
        assert found["status"] in ("canceled", "succeeded"), (phase, found)
        runs.check_events("finished" if found["status"] == "canceled" else phase)
        assert platform.http.post(f"/v1/runs/{runs.ids[phase]}/cancel").json()["status"] == found["status"]
    all_done(platform)


@strikes((nothing, kill_worker), (stop_worker, kill_platform))
def test_time_outs_end_runs_through_any_strike(platform: PlatformProcess, strike: Strike) -> None:
    run_ids = [platform.submit("brief", {"seconds": 3.0}) for _ in range(3)]
    strike(platform)
    for run_id in run_ids:
        found = platform.run(run_id, WAIT_S)
        assert (found["status"], found["error"]["code"]) == ("failed", "timeout"), found
    all_done(platform)


@strikes((kill_platform,), (kill_worker,))
def test_fifty_requests_with_one_key_are_one_run(platform: PlatformProcess, tmp_path: Path, strike: Strike) -> None:
    key = f"key-{tmp_path.name}"
    payload: dict[str, Any] = {"seconds": 0.4, "text": "once", "folder": str(tmp_path)}

    def asks(number: int) -> tuple[str, str]:
        """As a client that comes again until it is answered, wherever the platform is then."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            try:
                answer = http.post(
                    f"{platform.url}/v1/local/probe/sleep",
                    json={"payload": payload}, headers={"idempotency-key": key},
                )  # fmt: skip
            except httpx.HTTPError:
                time.sleep(0.2)  # waits: as a client does before it asks again
                continue
            if answer.status_code != 503:
                assert answer.status_code == 200, answer.text
                return str(answer.json()["id"]), str(answer.json()["output"]["text"])
            time.sleep(0.2)  # waits: as a client does before it asks again
        raise AssertionError("no answer")

    with httpx.Client(timeout=30, trust_env=False, limits=httpx.Limits(max_connections=50)) as http, ThreadPoolExecutor(50) as threads:
        asked = [threads.submit(asks, number) for number in range(50)]
        platform.until(lambda: notes(tmp_path))
        strike(platform)
        found = {each.result() for each in asked}
    assert len(found) == 1, found
    ((run_id, text),) = found
    assert text == "once"
    assert len(notes(tmp_path)) <= platform.run(run_id)["attempt"]
    all_done(platform)
