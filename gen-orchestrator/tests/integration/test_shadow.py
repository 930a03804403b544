"""Shadow runs: copies of a tag's runs on another release, compared, and seen by no caller."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edited_platform import TAG, edited_platform, release_at
from platform_process import COZYCTL, PlatformProcess
from waiting import until

PATH = "/v1/endpoints/local/probe/functions/{}/tags/prod/shadow"
TOML = """
[functions.falter]
timeout_s = 1

[functions.nap]
max_concurrency = 1
"""
MORE = """
def wait_to_be_stopped(ctx: ActionContext) -> None:
    while not ctx.is_canceled():
        time.sleep(0.005)
    raise InterruptedError("canceled")

@worker_function()
def falter(ctx: ActionContext, payload: Input) -> Output:
    if VERSION == 2 and payload.text == "raises": raise ValueError("no more")
    if VERSION == 2 and payload.text == "crashes": os._exit(7)
    if VERSION == 2 and payload.text == "hangs": wait_to_be_stopped(ctx)
    return Output(text=payload.text)

@worker_function()
def nap(ctx: ActionContext, payload: Input) -> Output:
    note(payload, ctx.run_id)
    if ctx.invoker_id == "gate:shadow": wait_to_be_stopped(ctx)
    return Output(text=payload.text)

@worker_function()
def shade(ctx: ActionContext, payload: Input) -> Saved:
    from PIL import Image
    path = Path(payload.folder) / f"{ctx.run_id}.png"
    Image.new("RGB", (8, 8), (100 + VERSION,) * 3).save(path)
    return Saved(file=ctx.save_bytes("shade.png", path.read_bytes()))
"""


def verb(platform: PlatformProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """A platform whose project was edited once: VERSION is 2 at `dev`, and 1 at `prod`."""
    with edited_platform(tmp_path_factory.mktemp("shadow"), MORE, TOML) as started:
        yield started


def start(platform: PlatformProcess, function: str, **more: Any) -> dict[str, Any]:
    body = {"release_id": release_at(platform, "dev"), "percent": 100, **more}
    answer = platform.http.put(PATH.format(function), json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def shown(platform: PlatformProcess, function: str) -> dict[str, Any]:
    found: dict[str, Any] = platform.http.get(PATH.format(function)).json()
    return found


def until_compared(platform: PlatformProcess, function: str, payload: dict[str, Any], count: int) -> dict[str, Any]:
    """Call the function until so many copies were compared: one that finds no free worker is dropped."""

    def enough() -> bool:
        before = shown(platform, function)
        platform.invoke(function, payload)
        platform.until(lambda: (now := shown(platform, function))["compared"] + now["dropped"] > before["compared"] + before["dropped"])
        return bool(shown(platform, function)["compared"] >= count)

    platform.until(enough)
    return shown(platform, function)


def files_of_copies(platform: PlatformProcess) -> list[Path]:
    return list((platform.data / "files").glob("*/shadow-*"))


def test_what_is_equal_and_that_callers_notice_nothing(platform: PlatformProcess) -> None:
    new = release_at(platform, "dev")
    begun = verb(platform, "shadow", "start", "local/probe/count", "--release", new, "--percent", "100%", "--runs", "3")
    assert (begun.returncode, f"100% of its runs on {release_at(platform, 'prod')} are repeated on {new}" in begun.stdout) == (0, True), (
        begun
    )
    made = []

    def ended() -> bool:
        made.append(platform.invoke("count", {"times": 3}).json()["id"])
        return bool(shown(platform, "count")["ended_at"])

    platform.until(ended)
    found = shown(platform, "count")
    assert (found["equal"], found["different"], found["failed"], found["passed"]) == (3, 0, 0, True), found
    assert found["why"] == "3 runs were compared, as many as requested"
    assert all(found["seconds"][side][name] > 0 for side in ("tag", "release") for name in ("p50", "p95")), found
    listed = platform.http.get("/v1/runs", params={"function": "count", "limit": 500}).json()["data"]
    assert {each["id"] for each in listed} == set(made)
    assert platform.figures()['runs_total{function="local/probe/count",status="succeeded"}'] == len(made)
    assert "passed  shadow prod of count" in verb(platform, "gates", new).stdout
    told = verb(platform, "shadow", "show", "local/probe/count")
    assert (told.returncode, "3 compared: 3 equal, 0 different, 0 failed" in told.stdout, "p95 " in told.stdout) == (0, True, True), told
    actions = [row["action"] for row in platform.http.get("/v1/audit").json()["data"]]
    assert {"shadow.started", "shadow.ended"} <= set(actions)


def test_what_differs(platform: PlatformProcess) -> None:
    new = release_at(platform, "dev")
    start(platform, "version")
    run_id = platform.invoke("version").json()["id"]
    found = until_compared(platform, "version", {}, 1)
    assert (found["different"], found["equal"], found["passed"]) == (found["compared"], 0, False)
    (place,) = found["examples"][0]["differences"]
    assert (place["pointer"], place["expected"], place["actual"]) == ("/text", "1", "2")
    told = verb(platform, "shadow", "show")
    assert (told.returncode, '/text: "1" -> "2"' in told.stdout) == (1, True), told
    ended = verb(platform, "shadow", "stop", "local/probe/version")
    assert (ended.returncode, "ago: stopped" in ended.stdout) == (0, True), ended
    gates = verb(platform, "gates", new)
    assert (
        "FAILED  shadow prod of version" in gates.stdout,
        f'run {found["examples"][0]["run_id"]} /text: "1" -> "2"' in gates.stdout,
    ) == (
        True,
        True,
    ), gates
    platform.invoke("version")
    assert shown(platform, "version")["compared"] == json.loads(verb(platform, "shadow", "show", "--json").stdout)["data"][-1]["compared"]
    assert platform.run(run_id)["release_id"] == release_at(platform, "prod")


def test_images_are_compared_by_their_pixels(platform: PlatformProcess, tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    for tolerance, word in ((0.01, "equal"), (0.001, "different")):
        start(platform, "shade", tolerance=tolerance)
        found = until_compared(platform, "shade", {"folder": str(tmp_path)}, 1)
        assert (found[word], found["by_digest"], found["images"]) == (found["compared"], 0, "pixels"), found
    assert found["examples"][0]["differences"][0]["distance"] == pytest.approx(1 / 255)
    platform.until(lambda: not files_of_copies(platform))
    platform.http.delete(PATH.format("shade"))


@pytest.mark.parametrize(("how", "code"), [("raises", "no more"), ("hangs", "timeout"), ("crashes", "worker_lost")])
def test_a_release_that_fails(platform: PlatformProcess, how: str, code: str) -> None:
    start(platform, "falter")
    assert platform.invoke("falter", {"text": how}).json()["status"] == "succeeded"
    found = until_compared(platform, "falter", {"text": how}, 1)
    assert (found["failed"], found["passed"], code in found["examples"][0]["error"]) == (found["compared"], False, True), found
    platform.http.delete(PATH.format("falter"))


def test_a_copy_gives_way_and_is_nowhere_to_be_seen(platform: PlatformProcess, tmp_path: Path) -> None:
    new = release_at(platform, "dev")
    start(platform, "nap")
    notes = tmp_path / "notes"

    def copied() -> list[str]:
        platform.invoke("nap", {"folder": str(tmp_path)})
        return [line for line in notes.read_text().splitlines() if line.startswith("shadow-")]

    (copy,) = platform.until(copied)
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("GET", "/export"),
        ("GET", "/webhooks"),
    ):
        assert platform.http.request(method, f"/v1/runs/{copy}{path}").status_code == 404, path
    assert platform.status()["open_runs"] == 0
    assert [each["runs"] for each in platform.http.get("/v1/workers").json()["data"] if each["runs"]] == []
    dropped = shown(platform, "nap")["dropped"]
    assert platform.http.post(f"/v1/local/probe/nap@{new}", json={"payload": {"text": "a"}}).json()["output"]["text"] == "a"
    platform.until(lambda: shown(platform, "nap")["dropped"] > dropped)
    assert (shown(platform, "nap")["compared"], shown(platform, "nap")["examples"]) == (0, [])
    platform.http.delete(PATH.format("nap"))


def test_a_restart_goes_on_with_what_was_counted(platform: PlatformProcess) -> None:
    new = release_at(platform, "dev")
    start(platform, "words", percent=100)
    before = until_compared(platform, "words", {"text": "a b"}, 2)
    leftover = platform.data / "files" / "local" / "shadow-left" / "1"
    leftover.mkdir(parents=True)
    (leftover / "x").write_text("x")
    platform.stop()
    platform.start()
    after = shown(platform, "words")
    assert (after["ended_at"], after["since"], after["compared"]) == (0, before["since"], before["compared"])
    assert not leftover.exists()
    assert until_compared(platform, "words", {"text": "a b"}, after["compared"] + 1)["equal"] > after["equal"]
    platform.until(lambda: [each for each in gates_of(platform, new) if each["subject"] == "prod" and each["function"] == "words"])

    assert platform.http.put(TAG.format("words", "prod"), json={"release_id": new}).status_code == 200
    until(lambda: shown(platform, "words")["why"] == "the tag points at it now")
    assert verb(platform, "shadow", "stop", "local/probe/words").returncode == 1


def gates_of(platform: PlatformProcess, release_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = platform.http.get(f"/v1/releases/{release_id}/gates").json()["data"]
    return found


def test_what_can_be_no_shadow(platform: PlatformProcess) -> None:
    old, new = release_at(platform, "prod"), release_at(platform, "dev")
    for body, status in (
        ({"release_id": old}, 409),
        ({"release_id": "none"}, 404),
        ({"release_id": new, "percent": 0}, 400),
        ({"release_id": new, "percent": 101}, 400),
        ({"release_id": new, "tolerance": 2}, 400),
        ({"release_id": new, "runs": -1}, 400),
        ({"release_id": new, "rounds": 1}, 400),
        ({}, 400),
    ):
        assert platform.http.put(PATH.format("echo"), json=body).status_code == status, body
    assert platform.http.put(PATH.format("nothing"), json={"release_id": new}).status_code == 404
    assert platform.http.get(PATH.format("echo")).status_code == 404
    assert platform.http.delete(PATH.format("echo")).status_code == 404
    for arguments, status in (
        (("start", "local/probe/echo", "--release", new, "--percent", "0"), 2),
        (("start", "probe/echo", "--release", new), 2),
        (("start", f"local/probe/echo@{new}", "--release", new), 3),
        (("show", "local/probe/echo"), 3),
    ):
        done = verb(platform, "shadow", *arguments)
        assert done.returncode == status, done
