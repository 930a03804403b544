"""`cozyctl up` from its users' view: runs, streams, cancels, retries, releases, and wrong requests."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from platform_process import COZYCTL, PlatformProcess, kill, read_events, write_project

from gen_orchestrator.store.sqlite import SqliteStore


def test_a_run_is_answered_and_can_be_looked_up(served: PlatformProcess) -> None:
    answer = served.invoke("echo", {"text": "hello"})
    assert answer.status_code == 200, answer.text
    run = answer.json()
    assert (run["status"], run["output"]["text"], run["attempt"], run["owner"], run["tag"]) == ("succeeded", "hello", 1, "local", "prod")
    assert run["routing"]["reason"] == "no_models"
    assert run["timings"]["total_ms"] >= 0
    again = served.run(run["id"])
    assert again["input"] == {"text": "hello"}
    assert {**again, "input": None} == {**run, "input": None}


def test_an_async_run_is_polled_with_an_etag(served: PlatformProcess) -> None:
    answer = served.invoke("sleep", {"seconds": 0.3, "text": "x"}, headers={"prefer": "respond-async"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    location = answer.headers["location"]
    done = served.http.get(location, params={"wait": 60})
    assert done.json()["status"] == "succeeded"
    assert served.http.get(location, headers={"if-none-match": done.headers["etag"]}).status_code == 304


def test_a_stream_tells_everything_in_order(served: PlatformProcess) -> None:
    with served.http.stream(
        "POST", "/v1/local/probe/count", json={"payload": {"times": 200}}, headers={"accept": "text/event-stream"}
    ) as answer:
        events = list(read_events(answer))
    outputs = [(ident, data["number"]) for ident, name, data in events if name == "output"]
    assert outputs == [(f"1-{number + 1}", number) for number in range(200)]
    assert [name for _, name, _ in events][-1] == "done"
    assert events[-1][2]["status"] == "succeeded"


def test_a_reader_resumes_where_it_was(served: PlatformProcess) -> None:
    run_id = served.submit("count", {"times": 50})
    served.run(run_id, 60)
    rest = served.events(run_id, "1-45")
    assert [ident for ident, name, _ in rest if name == "output"] == ["1-46", "1-47", "1-48", "1-49", "1-50"]
    assert served.http.get(f"/v1/runs/{run_id}/events", headers={"last-event-id": "x"}).status_code == 400


def test_ndjson_is_the_same_by_lines(served: PlatformProcess) -> None:
    answer = served.http.post("/v1/local/probe/progress", json={"payload": {"times": 3}}, headers={"accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in answer.text.splitlines() if line]
    assert [line["event"] for line in lines if line["event"] != "status"] == ["progress", "progress", "progress", "log", "done"]
    assert lines[-1]["data"]["output"] == {"text": "done", "pid": 0}


def test_a_running_run_is_canceled(served: PlatformProcess) -> None:
    run_id = served.submit("sleep", {"seconds": 60})
    served.until(lambda: served.run(run_id)["status"] == "running")
    answer = served.http.post(f"/v1/runs/{run_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert served.http.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "canceled"


def test_a_waiting_run_is_canceled_at_once(served: PlatformProcess) -> None:
    first = served.submit("one-at-a-time", {"seconds": 1.0})
    second = served.submit("one-at-a-time", {"seconds": 60})
    assert served.http.post(f"/v1/runs/{second}/cancel").json()["status"] == "canceled"
    assert served.run(first, 60)["status"] == "succeeded"


def test_what_may_pass_is_tried_again(served: PlatformProcess, tmp_path: Path) -> None:
    answer = served.invoke("later", {"times": 2, "folder": str(tmp_path)})
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["attempt"] == 2


def test_a_failed_run_answers_its_problem(served: PlatformProcess) -> None:
    answer = served.invoke("refuse")
    assert answer.status_code == 400
    assert (answer.json()["status"], answer.json()["error"]["code"]) == ("failed", "validation")
    assert "text is empty" in answer.json()["error"]["detail"]


def test_a_wrong_payload_is_pointed_at(served: PlatformProcess) -> None:
    answer = served.invoke("echo", {"text": "a", "times": "many"})
    assert answer.status_code == 400
    (error,) = answer.json()["error"]["errors"]
    assert (error["pointer"], error["expected"]) == ("/times", "int"), error
    assert served.run(answer.json()["id"])["error"] == answer.json()["error"]


def test_fields_that_nobody_knows_are_said(served: PlatformProcess) -> None:
    run = served.invoke("echo", {"text": "a", "txet": "b"}).json()
    assert run["status"] == "succeeded"
    (warning,) = run["warnings"]
    assert (warning["pointer"], warning["suggestion"]) == ("/txet", "text"), warning
    assert served.run(run["id"])["warnings"] == [warning]


def test_heads_and_hosts_are_bounded(served: PlatformProcess) -> None:
    assert served.http.get("/livez", headers={"x-long": "x" * 100_000}).status_code == 431
    for method, path in (("GET", "/v1/runs"), ("POST", "/v1/local/probe/echo"), ("GET", "/metrics"), ("GET", "/nothing")):
        assert served.http.request(method, path, headers={"host": "evil.example"}).status_code == 421
    for path in ("/v1/local/probe/echo", "/v1/runs/x/cancel"):
        assert served.http.post(path, json={}, headers={"origin": "http://evil.example"}).status_code == 403


def test_a_run_beyond_its_time_is_ended(platform: PlatformProcess) -> None:
    answer = platform.invoke("brief", {"seconds": 30})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")


def test_the_same_key_runs_once(served: PlatformProcess) -> None:
    key = {"idempotency-key": "k1"}
    first = served.invoke("echo", {"text": "a"}, headers=key).json()
    assert served.invoke("echo", {"text": "a"}, headers=key).json()["id"] == first["id"]
    other = served.invoke("echo", {"text": "b"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    put = served.http.put("/v1/runs/mine", params={"function": "local/probe/echo"}, json={"payload": {"text": "c"}})
    assert (put.status_code, put.json()["id"]) == (200, "mine")
    assert served.http.put("/v1/runs/mine", params={"function": "local/probe/echo"}, json={"payload": {"text": "c"}}).json() == put.json()


def test_runs_are_listed_and_tried_again(served: PlatformProcess) -> None:
    ids = [served.invoke("echo", {"text": str(number)}).json()["id"] for number in range(5)]
    page = served.http.get("/v1/runs", params={"limit": 3}).json()
    assert [run["id"] for run in page["data"]] == ids[:1:-1]
    rest = served.http.get("/v1/runs", params={"cursor": page["next_cursor"]}).json()
    assert [run["id"] for run in rest["data"]][:2] == ids[1::-1]
    again = served.http.post(f"/v1/runs/{ids[0]}/retry")
    assert (again.status_code, again.json()["parent_id"]) == (202, ids[0])
    assert served.run(again.json()["id"], 30)["output"]["text"] == "0"


def test_a_saved_file_is_fetched(served: PlatformProcess) -> None:
    run = served.invoke("save", {"text": "kept"}).json()
    ref = run["output"]["file"]["ref"]
    assert served.http.get(f"/v1/files/local/{ref}").text == "kept"
    raw = served.invoke("save", {"text": "raw"}, headers={"accept": "text/plain"})
    assert (raw.status_code, raw.text) == (200, "raw")
    assert served.http.get("/v1/files/local/runs/x/outputs/y").status_code == 404


def test_an_edit_becomes_a_release_under_dev_and_prod_stays(platform: PlatformProcess, project: Path) -> None:
    main = project / "src" / "probe" / "main.py"
    main.write_text(main.read_text().replace("VERSION = 1", "VERSION = 2"))
    platform.until(lambda: platform.invoke("version", tag="dev").json()["output"] == {"text": "2", "pid": 0})
    assert platform.invoke("version").json()["output"]["text"] == "1"
    main.write_text("this is no Python")
    new = platform.http.get("/v1/releases").json()["data"][0]["release_id"]
    moved = platform.http.put("/v1/endpoints/local/probe/functions/version/tags/prod", json={"release_id": new})
    assert moved.status_code == 200, moved.text
    assert platform.invoke("version").json()["output"]["text"] == "2"
    lost = platform.http.put("/v1/endpoints/local/probe/functions/version/tags/prod", json={"release_id": new, "expected": ""})
    assert lost.status_code == 409


def test_unknown_names_get_the_nearest(served: PlatformProcess) -> None:
    for path, word in (
        ("/v1/locl/probe/echo", "local"), ("/v1/local/prob/echo", "probe"), ("/v1/local/probe/ecko", "echo"), ("/v1/local/probe/echo:prd", "prod"),
    ):  # fmt: skip
        answer = served.http.post(path, json={})
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert f"Did you mean '{word}'" in answer.json()["detail"], answer.text


def test_wrong_requests_say_what_is_wrong(served: PlatformProcess) -> None:
    for body, word in (
        (b"{", "JSON"), (b"[1]", "list"), (b'{"payload": [5]}', "payload is a list"), (b'{"payload": {}, "priorty": "low"}', "priority"),
        (b'{"payload": {}, "timeout_s": -1}', "timeout_s"), (b'{"payload": {}, "priority": "hi"}', "high"), (b"[" * 100_000, "nested"),
        (b"\xff", "JSON"), (b'{"payload": {"text": "a", "a/b": [1, 36893488147419103232]}}', "/a~1b/1"),
        (b'{"payload": {}, "timeout_s": 1e400}', "out of range"), (b'{"payload": {}, "timeout_s": "1"}', "timeout_s"),
        (b'{"payload": {"text": "\\ud800"}}', "JSON"), (b'{"payload": {}, "webhook": 5}', "webhook"),
        (b'{"payload": {}, "priority": null}', "priority"), (b'{"payload": {}, "start_timeout_s": 1e9}', "start_timeout_s"),
    ):  # fmt: skip
        answer = served.http.post("/v1/local/probe/echo", content=body)
        assert (answer.status_code, word in answer.json()["detail"]) == (400, True), answer.text
    assert served.http.get("/v1/runs", params={"status": "runing"}).status_code == 400
    misspelt = served.http.get("/v1/runs", params={"sttus": "failed"})
    assert (misspelt.status_code, "Did you mean 'status'?" in misspelt.json()["detail"]) == (400, True), misspelt.text
    assert served.http.post("/v1/local/probe/echo?wait=1", json={}).status_code == 400
    assert served.http.get("/v1/runs/nothing").status_code == 404
    assert served.http.get("/v1/runs/x", params={"wait": "-1"}).status_code in (400, 404)


def test_it_tells_about_itself(platform: PlatformProcess) -> None:
    platform.invoke("echo")
    document = platform.http.get("/openapi.json").json()
    assert "/v1/local/probe/echo" in document["paths"]
    metrics = platform.http.get("/metrics").text
    assert 'gen_orchestrator_runs_total{function="local/probe/echo",status="succeeded"} 1' in metrics
    assert platform.http.get("/readyz").status_code == 200
    status = platform.status()
    assert status["workers"][0]["state"] == "idle"


def test_a_second_one_on_the_same_data_is_refused(served: PlatformProcess) -> None:
    command = [str(COZYCTL), "up", str(served.project), "--listen", "127.0.0.1:0", "--data", str(served.data)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "in use by another process" in second.stderr


def ports_of(pid: int) -> list[int]:
    """The TCP ports on which a process listens."""
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(str(descriptor.readlink()))
        except OSError:
            continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held]


def test_callers_wait_while_it_starts(platform: PlatformProcess, project: Path, tmp_path: Path) -> None:
    """A request is told to come again, and both `cozyctl` and the clients do so by themselves."""
    release_id = platform.status()["tags"][0]["release_id"]
    platform.kill()  # the store still names it as the leader
    main, gate = project / "src" / "probe" / "main.py", tmp_path / "gate"
    main.write_text(f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.01)\n" + main.read_text())
    starting = platform.launch()
    waiting: list[subprocess.Popen[str]] = []
    try:

        def found_url() -> str | None:
            for port in ports_of(starting.pid):
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/livez", timeout=5, trust_env=False).status_code == 200:
                        return f"http://127.0.0.1:{port}"
                except httpx.HTTPError:
                    continue  # the port of its workers
            return None

        url = platform.until(found_url)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            for path in ("/readyz", "/v1/status", "/v1/runs/run-x"):
                found = http.get(path)
                assert (found.status_code, found.headers["retry-after"], found.json()["code"]) == (503, "1", "not_ready"), found.text
                assert ("is starting" in found.json()["detail"], found.json()["error"]) == (True, "starting")
            for verb in (
                ["invoke", "local/probe/echo", "--payload", '{"text":"a"}'],
                ["invoke", "local/probe/echo", "-i", "text=a"],
                ["ps"],
            ):
                waiting.append(spawn(url, *verb))
            said = [each.stderr.readline() for each in waiting if each.stderr is not None]
            assert all("is starting" in line for line in said), said
            gate.touch()
            for each in waiting:
                out, err = each.communicate(timeout=60)
                assert each.returncode == 0, err
                assert "is starting" not in err, "it is said once"
                assert '"a"' in out or "probe" in out
            assert starting.stdout is not None
            assert starting.stdout.readline()
            assert http.get("/readyz").json() == {"ok": True, "role": "leader"}
            assert release_id in {tag["release_id"] for tag in http.get("/v1/status").json()["tags"]}
    finally:
        gate.touch()
        for each in waiting:
            each.kill()
            each.communicate()
        starting.terminate()
        starting.wait(60)
        assert starting.stdout is not None
        starting.stdout.close()


def spawn(url: str, *arguments: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "COZY_URL": url, "COLUMNS": "200"}
    return subprocess.Popen([str(COZYCTL), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)


def test_it_ends_in_order(platform: PlatformProcess) -> None:
    run_id = platform.submit("sleep", {"seconds": 1, "text": "kept"})
    platform.until(lambda: platform.run(run_id)["status"] in ("running", "succeeded"))
    before = len(platform.log.read_text())
    assert platform.stop() == 0, platform.log.read_text()[-2000:]
    ending = platform.log.read_text()[before:]
    assert "worker.ended" in ending
    assert "worker.crashed" not in ending
    store = SqliteStore(platform.data)
    assert store.leader() is None, "the next start need not wait for the end of a lease"
    store.close()
    platform.start()
    assert platform.run(run_id, 60)["status"] == "succeeded"


def test_a_release_whose_source_is_gone_says_so(platform: PlatformProcess, project: Path) -> None:
    main = project / "src" / "probe" / "main.py"
    main.write_text(main.read_text().replace("VERSION = 1", "VERSION = 2"))
    platform.until(lambda: platform.invoke("version", tag="dev").json()["output"]["text"] == "2")
    platform.stop()
    shutil.rmtree(platform.data / "releases")
    platform.start()
    assert platform.invoke("version", tag="dev").json()["output"]["text"] == "2", "the project's own is made again"
    waiting = platform.submit("version")
    routing = platform.run(waiting)["routing"]
    assert routing["reason"] == "worker_crashed", routing
    assert "no longer on this machine" in routing["last_lines"]
    assert "cozyctl promote" in routing["last_lines"]
    # And in the middle: what cannot be started again says why.
    shutil.rmtree(platform.data / "releases")
    for pid in platform.worker_pids().values():
        kill(pid)
    found = platform.until(lambda: [text for text in platform.status()["failures"].values() if "could not be started" in text])
    assert "no longer on this machine" in found[0]


@pytest.mark.parametrize(
    ("model", "said"), [("x=/tmp", "no cozy.toml here declares the model 'x'. Keys: none"), ("x", "expected KEY=FOLDER")]
)
def test_a_model_that_nobody_declares_is_refused(tmp_path: Path, model: str, said: str) -> None:
    command = [str(COZYCTL), "up", str(write_project(tmp_path / "probe")), "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data")]
    refused = subprocess.run([*command, "--model", model], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert said in refused.stderr


def test_it_says_what_it_serves_of_an_earlier_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = PlatformProcess(write_project(tmp_path / "probe"), data)
    release = first.http.get("/v1/status").json()["tags"][0]["release_id"]
    assert first.stop() == 0
    other = write_project(tmp_path / "other")
    (other / "cozy.toml").write_text((other / "cozy.toml").read_text().replace('name = "probe"', 'name = "other"'))
    for gone in (False, True):
        if gone:
            shutil.rmtree(data / "releases")
        second = PlatformProcess(other, data)
        try:
            second.process.terminate()
            assert second.process.stdout is not None
            said = second.process.stdout.read().decode()
        finally:
            second.stop()
        assert ("of an earlier start is also served" in said, "is gone; name its project's folder" in said) == (not gone, gone), said
        assert (
            f"local/probe: release {release} " if gone else f"local/probe ({release}); take it out of service with: cozyctl rm local/probe"
        ) in said
