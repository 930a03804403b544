"""Canaries: a share of a tag's runs goes to a candidate, which is dropped if it is worse."""

import os
import subprocess
from pathlib import Path

from platform_process import COZYCTL, PlatformProcess, write_project

from gen_orchestrator.domain.canary import MIN_RUNS, takes_part

TAG = "/v1/endpoints/local/probe/functions/{}/tags/{}"
IDS = [f"run-{number}" for number in range(1000)]


def verb(platform: PlatformProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


def tag(platform: PlatformProcess, function: str, name: str = "prod") -> dict[str, object]:
    found: dict[str, object] = platform.http.get(TAG.format(function, name)).json()
    return found


def release_of(platform: PlatformProcess, function: str, run_id: str) -> str:
    return str(platform.http.put(f"/v1/runs/{run_id}", params={"function": f"local/probe/{function}"}, json={}).json()["release_id"])


def test_a_canary_gets_its_share_and_is_dropped_where_it_fails(tmp_path: Path) -> None:
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data")
    try:
        main = platform.project / "src" / "probe" / "main.py"
        main.write_text(main.read_text().replace('return Output(text=ctx.traceparent or "")', 'raise ValueError("worse")'))
        old = tag(platform, "trace")["release_id"]
        platform.until(lambda: tag(platform, "trace", "dev")["release_id"] != old)
        new = str(tag(platform, "trace", "dev")["release_id"])

        for function in ("trace", "version"):
            done = verb(platform, "promote", new, "--function", function, "--canary", "20%")
            assert (done.returncode, f"local/probe/{function}:prod is {old}, and for 20% of its runs {new}" in done.stdout) == (0, True), (
                done
            )
        assert f"{old} + 20% {new}" in verb(platform, "tags", "local/probe/version").stdout
        assert "20% of its runs go to" in verb(platform, "ps").stdout

        platform.kill()
        platform.start()
        mine, others = ([each for each in IDS if takes_part(each, 20) == wanted] for wanted in (True, False))
        assert {release_of(platform, "version", each) for each in mine[:3]} == {new}
        assert {release_of(platform, "version", each) for each in others[:3]} == {old}
        moved = platform.http.put(TAG.format("version", "prod"), json={"release_id": new, "canary": 100}).json()
        assert (moved["release_id"], "candidate" in moved, "candidate" in tag(platform, "version")) == (new, False, False)

        assert {release_of(platform, "trace", each) for each in others[3:6]} == {old}
        assert {release_of(platform, "trace", each) for each in mine[3 : 3 + MIN_RUNS]} == {new}
        platform.until(lambda: "candidate" not in tag(platform, "trace"))
        assert release_of(platform, "trace", mine[3 + MIN_RUNS]) == old
        assert f"local/probe/trace:prod: canary {new} was dropped: 100% of its last {MIN_RUNS} runs failed" in verb(platform, "ps").stdout
        assert "FAILED  canary prod of trace" in verb(platform, "gates", new).stdout
        rows = {row["action"]: row for row in platform.http.get("/v1/audit").json()["data"]}
        assert (rows["canary.dropped"]["actor"], new in rows["canary.dropped"]["detail"]) == ("gate:canary", True)
    finally:
        platform.close()


def test_a_rollback_ends_the_canary_and_moves_nothing(tmp_path: Path) -> None:
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data")
    try:
        main = platform.project / "src" / "probe" / "main.py"
        main.write_text(
            main.read_text().replace("class Input(msgspec.Struct):", "class Input(msgspec.Struct, kw_only=True):\n    size: int")
        )
        first = str(tag(platform, "version")["release_id"])
        platform.until(lambda: tag(platform, "version", "dev")["release_id"] != first)
        second = str(tag(platform, "version", "dev")["release_id"])
        assert verb(platform, "promote", second, "--function", "version", "--breaking").returncode == 0
        for function, now in (("version", second), ("words", first)):
            path, old = TAG.format(function, "prod"), second if now == first else first
            begun = platform.http.put(path, json={"release_id": old, "canary": 10, "breaking": True})
            assert begun.json()["candidate"]["release_id"] == old, begun.text
        before = [tag(platform, function)["release_id"] for function in ("version", "words", "echo")]
        done = verb(platform, "rollback", "local/probe")
        assert (done.returncode, f"the canary {first} is ended" in done.stderr) == (0, True), done
        assert [tag(platform, function)["release_id"] for function in ("version", "words", "echo")] == before
        assert not any("candidate" in tag(platform, function) for function in ("version", "words"))
        assert verb(platform, "rollback", "local/probe/version").returncode == 0
        assert tag(platform, "version")["release_id"] == first, "without a canary the tag moves"

        # Ended by hand, too, a candidate that breaks callers breaks nobody by going.
        path = TAG.format("words", "prod")
        assert platform.http.put(path, json={"release_id": second, "canary": 10}).status_code == 409
        assert platform.http.put(path, json={"release_id": second, "canary": 10, "breaking": True}).status_code == 200
        dry = platform.http.put(path, json={"release_id": second, "canary": 0, "dry_run": True})
        assert (dry.status_code, "candidate" in tag(platform, "words")) == (200, True)
        assert platform.http.put(path, json={"release_id": second, "canary": 0}).status_code == 200
        again = platform.http.put(path, json={"release_id": second, "canary": 0, "dry_run": True})
        assert (again.status_code, "not a candidate of probe/words:prod" in again.text) == (409, True)
    finally:
        platform.close()


def test_what_can_be_no_canary(platform: PlatformProcess) -> None:
    now = tag(platform, "echo")["release_id"]
    for percent, status in ((10, 409), (0, 409), (-1, 400), (101, 400), ("x", 400)):
        answer = platform.http.put(TAG.format("echo", "prod"), json={"release_id": now, "canary": percent})
        assert answer.status_code == status, answer.text
    assert verb(platform, "promote", str(now), "--canary", "110%").returncode == 2
