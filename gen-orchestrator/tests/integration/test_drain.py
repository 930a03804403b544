"""The platform is asked to end while callers wait: they get answers, not broken connections."""

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from platform_process import PlatformProcess


def test_callers_whose_runs_finish_in_time_get_their_results(platform: PlatformProcess, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(platform.invoke, "sleep", {"seconds": 2, "text": "kept", "folder": str(tmp_path)})
        platform.until(lambda: (tmp_path / "notes").exists())
        platform.process.send_signal(signal.SIGINT)
        answer = waiting.result(60)
    assert (answer.status_code, answer.json()["output"]["text"]) == (200, "kept")
    assert platform.wait_for_end() == 0


def test_callers_whose_runs_do_not_are_told_that_they_go_on(project: Path, tmp_path: Path) -> None:
    platform = PlatformProcess(project, tmp_path / "data")
    try:
        first = httpx.post(f"{platform.url}/v1/local/probe/echo", json={}, timeout=60, trust_env=False)
        assert first.status_code == 200
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(platform.invoke, "sleep", {"seconds": 50, "text": "later", "folder": str(tmp_path)})
            platform.until(lambda: (tmp_path / "notes").exists())
            platform.process.send_signal(signal.SIGINT)
            answer = waiting.result(60)
        assert answer.status_code == 202
        run_id = answer.json()["id"]
        assert answer.headers["location"] == f"/v1/runs/{run_id}"
        platform.wait_for_end()
        platform.start()
        assert platform.run(run_id)["status"] in ("queued", "starting", "running")
        platform.http.post(f"/v1/runs/{run_id}/cancel")
    finally:
        platform.close()
