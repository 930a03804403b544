"""Workers and the platform are killed while they have runs: no accepted run may be lost."""

from pathlib import Path

import httpx
from platform_process import PlatformProcess, kill


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


def test_a_killed_workers_run_is_done_by_another(platform: PlatformProcess, tmp_path: Path) -> None:
    run_id = platform.submit("sleep", {"seconds": 0.5, "text": "x", "folder": str(tmp_path)})
    platform.until(lambda: notes(tmp_path))
    (pid,) = platform.worker_pids().values()
    kill(pid)
    run = platform.run(run_id, 60)
    assert (run["status"], run["attempt"], run["output"]["text"]) == ("succeeded", 2, "x")
    assert run["output"]["pid"] != pid
    assert len(notes(tmp_path)) == 2


def test_a_run_that_kills_its_workers_is_given_up_after_two(platform: PlatformProcess, tmp_path: Path) -> None:
    answer = platform.invoke("crash", {"folder": str(tmp_path)})
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"]["code"] == "worker_lost"
    assert notes(tmp_path) == ["crash", "crash"]
    assert platform.invoke("echo", {"text": "the others go on"}).json()["status"] == "succeeded"


def test_accepted_runs_survive_the_platforms_death(platform: PlatformProcess, tmp_path: Path) -> None:
    begun = platform.submit("sleep", {"seconds": 1.0, "text": "begun", "folder": str(tmp_path)})
    platform.until(lambda: notes(tmp_path))
    waiting = [platform.submit("one-at-a-time", {"seconds": 0.01, "text": str(number)}) for number in range(20)]
    platform.kill()
    platform.start()
    assert platform.run(begun, 60)["output"]["text"] == "begun"
    assert [platform.run(run_id, 60)["output"]["text"] for run_id in waiting] == [str(number) for number in range(20)]


def test_a_stream_goes_on_after_the_platforms_death(platform: PlatformProcess) -> None:
    run_id = platform.submit("count", {"times": 100, "seconds": 0.02})
    platform.until(lambda: platform.run(run_id)["status"] == "running")
    seen: list[tuple[str, int]] = []
    try:
        with platform.http.stream("GET", f"/v1/runs/{run_id}/events", headers={"accept": "text/event-stream"}) as answer:
            from platform_process import read_events

            for ident, name, data in read_events(answer):
                if name == "output":
                    seen.append((ident, data["number"]))
                    if len(seen) == 10:
                        platform.process.kill()
    except httpx.HTTPError:
        pass
    platform.kill()
    platform.start()
    rest = platform.events(run_id, seen[-1][0])
    assert rest[-1][1] == "done"
    assert rest[-1][2]["status"] == "succeeded"
    numbers: dict[str, list[int]] = {}
    for ident, number in [*seen, *((ident, data["number"]) for ident, name, data in rest if name == "output")]:
        attempt, _, seq = ident.partition("-")
        numbers.setdefault(attempt, []).append(int(seq))
        assert int(seq) == number + 1
    last = numbers[max(numbers)]
    assert last == list(range(last[0], 101))
    if len(numbers) > 1:
        assert any(name == "restart" for _, name, _ in rest)


def test_a_run_that_kills_its_workers_takes_no_neighbour_along(platform: PlatformProcess, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()
    neighbours = [platform.submit("sleep", {"seconds": 0.4, "text": str(number), "folder": str(theirs)}) for number in range(6)]
    platform.until(lambda: len(notes(theirs)) >= 4)
    crash = platform.run(platform.submit("crash", {"folder": str(mine)}), 60)
    assert (crash["status"], crash["error"]["code"]) == ("failed", "worker_lost")
    assert 2 <= len(notes(mine)) <= 4
    done = [platform.run(run_id, 60) for run_id in neighbours]
    assert [(run["status"], run["output"]["text"]) for run in done] == [("succeeded", str(number)) for number in range(6)]


def test_the_platforms_own_deaths_are_held_against_no_run(platform: PlatformProcess, tmp_path: Path) -> None:
    run_id = platform.submit("sleep", {"seconds": 1.0, "text": "x", "folder": str(tmp_path)})
    for deaths in range(1, 4):
        platform.until(lambda deaths=deaths: len(notes(tmp_path)) == deaths)
        platform.kill()
        platform.start()
    run = platform.run(run_id, 60)
    assert (run["status"], run["attempt"], run["output"]["text"]) == ("succeeded", 4, "x")
