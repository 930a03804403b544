"""A caller who asks for JSON gets the items of a streaming function as a list."""

from pathlib import Path

from platform_process import PlatformProcess, write_project

NUMBERS = [{"number": number} for number in range(3)]


def test_the_items_of_a_stream_are_in_the_runs_json(tmp_path: Path) -> None:
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data")
    try:
        for function in ("count", "tokens"):  # `tokens` is not durable
            run = platform.invoke(function, {"times": 3}).json()
            assert (run["status"], run["outputs"], run.get("output")) == ("succeeded", NUMBERS, None)
            assert platform.run(run["id"])["outputs"] == NUMBERS
        assert platform.invoke("count", {"times": 0}).json()["outputs"] == []
        assert "outputs" not in platform.invoke("echo", {"text": "one answer"}).json()
        assert "outputs" not in platform.invoke("broken", {}).json()
        large = platform.invoke("words", {"text": "x" * 60_000, "times": 160}).json()
        assert (large["status"], "outputs" in large) == ("succeeded", False), large.get("error")
        assert "outputs" not in platform.run(large["id"])

        platform.kill()
        platform.start()
        assert platform.run(run["id"])["outputs"] == NUMBERS
        found = {each["id"]: each for each in platform.http.get("/v1/runs").json()["data"]}
        assert "outputs" not in found[run["id"]], "a list of runs reads no events"
    finally:
        platform.close()
