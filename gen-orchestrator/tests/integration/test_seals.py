"""The end of an attempt seals its files; a saved file can be fetched by the name under which it was saved."""

from pathlib import Path

import httpx
from platform_process import PlatformProcess, kill
from saving import save, token_of


def fetch(platform: PlatformProcess, ref: str) -> tuple[int, str]:
    answer = platform.http.get(f"/v1/files/local/{ref}")
    return answer.status_code, answer.text if answer.status_code == 200 else ""


def test_the_end_of_a_run_seals_its_files(platform: PlatformProcess) -> None:
    run = platform.invoke("save", {"text": "what it said"}).json()
    for method in ("PUT", "POST"):
        late = save(platform, run["id"], 1, "another thing", method)
        assert (late.status_code, late.json()["code"]) == (403, "auth")
        assert "has ended: its file_token is no longer valid" in late.json()["detail"]
    assert fetch(platform, run["output"]["file"]["ref"]) == (200, "what it said")
    platform.kill()
    platform.start()
    assert save(platform, run["id"], 1, "another thing").status_code == 403
    assert fetch(platform, run["output"]["file"]["ref"]) == (200, "what it said")
    assert not list((platform.data / "files").rglob(".saving-*"))


def test_an_attempt_that_was_given_up_saves_no_more(platform: PlatformProcess, tmp_path: Path) -> None:
    run_id = platform.submit("save-as", {"text": "shared/a.txt", "seconds": 60, "folder": str(tmp_path)})
    platform.until(lambda: platform.run(run_id)["status"] == "running")
    assert save(platform, run_id, 1, "by hand").status_code == 200
    assert save(platform, run_id, 2, "early").status_code == 403
    (pid,) = platform.worker_pids().values()
    kill(pid)
    platform.until(lambda: platform.run(run_id)["attempt"] == 2)
    assert save(platform, run_id, 1, "late").status_code == 403
    (tmp_path / "go").touch()
    run = platform.run(run_id, 60)
    assert (run["status"], run["attempt"]) == ("succeeded", 2)
    assert fetch(platform, "shared/a.txt") == (200, run_id)
    assert fetch(platform, f"runs/{run_id}/outputs/note.txt") == (404, "")  # of the attempt that lost


def test_a_body_that_comes_after_the_end_changes_nothing(platform: PlatformProcess) -> None:
    """The save began while the run went on, and its last byte comes after the end."""
    run_id = platform.submit("save-as", {"text": "runs/mine/x", "seconds": 600})
    platform.until(lambda: platform.run(run_id)["status"] == "running")
    assert save(platform, run_id, 1, "in time").status_code == 200

    def slowly() -> object:
        yield b"too "
        assert platform.http.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "canceled"
        yield b"late"

    url = f"{platform.url}/api/v1/file/runs/{run_id}/outputs/note.txt"
    late = httpx.put(url, content=slowly(), headers=token_of(platform, run_id, 1), timeout=60, trust_env=False)  # type: ignore[arg-type]
    assert late.status_code == 403
    (record,) = (platform.data / "files" / "local" / run_id / "1").rglob("note.txt")
    (kept,) = [path for path in (platform.data / "blobs" / "runs" / "local" / run_id).iterdir() if path.read_text() != run_id]
    assert kept.name in record.read_text()
    assert kept.read_text() == "in time"


def test_a_save_under_conditions(platform: PlatformProcess) -> None:
    """A worker's ref may be written in several ways, as its contract says, and names one file."""
    run_id = platform.submit("save-as", {"text": "runs/mine/y", "seconds": 600})
    platform.until(lambda: platform.run(run_id)["status"] == "running")

    def save_if(text: str, name: str = "y.txt", **conditions: str) -> int:
        headers = {**token_of(platform, run_id, 1), **{key.replace("_", "-"): value for key, value in conditions.items()}}
        return platform.http.put(f"/api/v1/file/runs/{run_id}/{name}", content=text, headers=headers).status_code

    def head() -> httpx.Headers:
        return platform.http.head(f"/api/v1/file/runs/{run_id}/y.txt", headers=token_of(platform, run_id, 1)).headers

    assert [save_if("one", if_match="*"), save_if("one", if_none_match="*"), save_if("two", if_none_match="*")] == [412, 200, 412]
    first = head()["etag"]
    assert [save_if("two", if_match='"x"'), save_if("two", if_match=first), save_if("three", if_match=first)] == [412, 200, 412]
    assert head()["x-cozy-size-bytes"] == "3"
    assert [save_if("four", "/y.txt"), save_if("three", "y.txt%20"), save_if("eleven", "y.txt/", if_none_match="*")] == [200, 200, 412]
    assert head()["x-cozy-size-bytes"] == "5"
    assert platform.http.post(f"/v1/runs/{run_id}/cancel").status_code == 200


def test_every_name_that_is_saved_can_be_fetched(platform: PlatformProcess) -> None:
    first = platform.invoke("save", {"text": "its own"}).json()
    own = first["output"]["file"]["ref"]
    for ref in ("runs/other/x", "runs/other/outputs/x.txt", "runs/x", "runs/a/inputs/b", "a/b", "x"):
        run = platform.invoke("save-as", {"text": ref}).json()
        assert run["status"] == "succeeded"
        assert fetch(platform, run["output"]["file"]["ref"]) == (200, run["id"]), ref
        (shown,) = run["files"]
        assert platform.http.get(shown["url"]).text == run["id"]
    platform.invoke("save-as", {"text": own})
    assert fetch(platform, own) == (200, "its own"), "a run's own file comes before what others saved under its name"
