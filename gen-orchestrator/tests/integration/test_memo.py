"""Equal requests to a function with `memo` share a run."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from platform_process import PlatformProcess, write_project


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("memo")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    yield started
    started.close()


def test_equal_requests_share_a_run(platform: PlatformProcess, tmp_path: Path) -> None:
    first = platform.invoke("remembered", {"folder": str(tmp_path), "text": "a"})
    again = platform.invoke("remembered", {"text": "a", "folder": str(tmp_path)})
    assert [each.headers["x-memo"] for each in (first, again)] == ["miss", "hit"]
    assert first.json()["id"] == again.json()["id"]
    other = platform.invoke("remembered", {"folder": str(tmp_path), "text": "b"})
    assert (other.headers["x-memo"], other.json()["output"]["text"]) == ("miss", "2")
    keyed = platform.invoke("remembered", {"folder": str(tmp_path), "text": "a"}, headers={"idempotency-key": "own"})
    assert ("x-memo" in keyed.headers, keyed.json()["output"]["text"]) == (False, "3")


def test_it_holds_over_a_restart(platform: PlatformProcess, tmp_path: Path) -> None:
    first = platform.invoke("remembered", {"folder": str(tmp_path), "text": "r"}).json()
    platform.kill()
    platform.start()
    again = platform.invoke("remembered", {"folder": str(tmp_path), "text": "r"})
    assert (again.headers["x-memo"], again.json()["id"]) == ("hit", first["id"])


def test_those_that_come_at_once_make_one_run(platform: PlatformProcess, tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        payload = {"folder": str(tmp_path), "seconds": 0.5}
        answers = list(pool.map(lambda _: platform.invoke("remembered", payload), range(16)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.headers["x-memo"] for answer in answers).count("miss") == 1
    assert (tmp_path / "notes").read_text().splitlines() == ["called"]


def test_a_failure_answers_nobody_else(platform: PlatformProcess, tmp_path: Path) -> None:
    payload = {"folder": str(tmp_path), "text": "fails"}
    answers = [platform.invoke("remembered", payload) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [400, 200, 200]
    assert [answer.headers["x-memo"] for answer in answers] == ["miss", "miss", "hit"]


def test_it_is_forgotten_in_time(platform: PlatformProcess, tmp_path: Path) -> None:
    payload = {"folder": str(tmp_path)}
    first = platform.invoke("forgotten", payload).json()["id"]
    platform.until(lambda: platform.invoke("forgotten", payload).json()["id"] != first)
    assert platform.run(first)["status"] == "succeeded"
