"""Releases of one endpoint and their tags: which moves are made, which are refused, and how releases differ."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_process import COZYCTL, PlatformProcess, write_project

from gen_orchestrator.cli.api import Api
from gen_orchestrator.cli.release_names import release_named

TAG = "/v1/endpoints/local/probe/functions/{}/tags/{}"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """A platform whose project was edited once: `version` says 2 at `dev`, and `echo` needs another field there."""
    folder = tmp_path_factory.mktemp("releases")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    main = started.project / "src" / "probe" / "main.py"
    text = main.read_text().replace("VERSION = 1", "VERSION = 2")
    text = text.replace(
        "class Output(", "class Echoed(msgspec.Struct):\n    text: str\n    size: int\n    weight: int = 0\n\nclass Output(", 1
    )
    text = text.replace(
        "def echo(ctx: ActionContext, payload: Input) -> Output:", "def echo(ctx: ActionContext, payload: Echoed) -> Output:"
    )
    main.write_text(text)
    started.until(lambda: len(started.http.get("/v1/releases").json()["data"]) == 2)
    old = tagged(started, "version", "prod")
    started.until(lambda: old not in [tag["release_id"] for tag in started.status()["tags"] if tag["ref"].endswith(":dev")])
    yield started
    started.close()


def tagged(platform: PlatformProcess, function: str, tag: str) -> str:
    return str(platform.http.get(TAG.format(function, tag)).json()["release_id"])


def verb(platform: PlatformProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_promote_and_rollback(platform: PlatformProcess) -> None:
    old, new = tagged(platform, "version", "prod"), tagged(platform, "version", "dev")
    done = verb(platform, "promote", "local/probe:dev", "--function", "version")
    assert (done.returncode, done.stdout) == (0, f"local/probe/version:prod is {new}\n"), done.stderr
    assert "cozyctl rollback local/probe/version\n" in done.stderr
    assert platform.invoke("version").json()["output"]["text"] == "2"
    again = verb(platform, "promote", "local/probe:dev", "--function", "version")
    assert (again.returncode, again.stdout) == (0, ""), "the tag has not moved"
    assert f"version:prod already points at {new}: it has not moved" in again.stderr
    assert "undo" not in again.stderr, "a rollback would undo the promote before"
    done = verb(platform, "rollback", "local/probe/version")
    assert (done.returncode, done.stdout) == (0, f"local/probe/version:prod is {old}\n"), done.stderr
    assert platform.invoke("version").json()["output"]["text"] == "1"
    history = [each["release_id"] for each in platform.http.get(TAG.format("version", "prod")).json()["history"]]
    assert history == [old, new, old]
    shown = verb(platform, "tags", "local/probe/version", "--history")
    assert shown.stdout.count(" prod ") == 3


def test_promote_one_function_by_its_ref(platform: PlatformProcess) -> None:
    new, others = tagged(platform, "version", "dev"), tagged(platform, "echo", "prod")
    done = verb(platform, "promote", "local/probe/version:dev")
    assert (done.returncode, done.stdout) == (0, f"local/probe/version:prod is {new}\n"), done.stderr
    assert tagged(platform, "echo", "prod") == others
    assert verb(platform, "rollback", "local/probe/version").returncode == 0


def test_a_breaking_promote_is_asked_for(platform: PlatformProcess) -> None:
    old, new = tagged(platform, "echo", "prod"), tagged(platform, "echo", "dev")
    refused = platform.http.put(TAG.format("echo", "prod"), json={"release_id": new})
    assert (refused.status_code, refused.json()["code"]) == (409, "breaking_change")
    assert {"pointer": "/size", "message": "input: a new field that every payload must have"} in refused.json()["errors"]
    assert refused.json()["hint"] == 'to move the tag anyway, send "breaking": true'
    assert refused.json()["cli_hint"] == "to move the tag anyway, repeat the command with --breaking"
    done = verb(platform, "promote", new, "--function", "echo")
    assert done.returncode == 1
    assert "/size" in done.stderr
    assert ("anyway, repeat the command with --breaking" in done.stderr, '"breaking": true' in done.stderr) == (True, False), done.stderr
    assert tagged(platform, "echo", "prod") == old
    assert verb(platform, "promote", new, "--function", "echo", "--breaking").returncode == 0
    assert tagged(platform, "echo", "prod") == new
    back = verb(platform, "rollback", "local/probe/echo")
    assert (tagged(platform, "echo", "prod"), "undo" in back.stderr) == (old, False), "back is always possible"
    forth = verb(platform, "rollback", "local/probe/echo")
    assert (forth.returncode, forth.stdout) == (0, f"local/probe/echo:prod is {new}\n"), forth.stderr
    assert f"this undoes the rollback from {new}: it breaks callers again\n" in forth.stderr
    assert "undo with: cozyctl rollback local/probe/echo\n" in forth.stderr
    assert platform.http.put(TAG.format("echo", "prod"), json={"release_id": old}).status_code == 200, "back is always possible"


def test_diff_says_what_breaks_first(platform: PlatformProcess) -> None:
    old, new = tagged(platform, "echo", "prod"), tagged(platform, "echo", "dev")
    done = verb(platform, "diff", old, "local/probe:dev")
    lines = done.stdout.splitlines()
    assert "BREAKS echo input /size: a new field that every payload must have" in lines, done.stderr
    assert "       echo input /weight: a new field" in lines
    assert [line.startswith("BREAKS") for line in lines] == sorted([line.startswith("BREAKS") for line in lines], reverse=True)
    assert json.loads(verb(platform, "diff", old, old, "--json").stdout) == {"from": old, "to": old, "breaking": False, "changes": []}
    assert platform.http.get(f"/v1/releases/{old}/diff/{new[:-1]}x").status_code == 404


def test_releases_are_listed_with_their_tags(platform: PlatformProcess) -> None:
    new = tagged(platform, "echo", "dev")
    listed = platform.http.get("/v1/releases", params={"endpoint": "probe"}).json()["data"]
    assert listed[0]["release_id"] == new
    assert "echo:dev" in listed[0]["tags"]
    whole = platform.http.get(f"/v1/releases/{new}").json()
    assert {entry["name"] for entry in whole["manifest"]["functions"]} == set(whole["functions"])
    shown = verb(platform, "releases").stdout
    assert shown.index(new) < shown.index(tagged(platform, "echo", "prod"))


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("promote", "probe-000"), 3, "no release"),
        (("promote", "local/prob:dev"), 3, "no tag"),
        (("promote", "local/probe:dev", "--function", "ecko"), 3, "echo"),
        (("promote", "local/probe/ecko:dev"), 3, "Did you mean 'echo'?"),
        (("promote", "local/probe/echo/x:dev"), 2, "owner/endpoint/function"),
        (("promote", "local/probe/:dev"), 2, "owner/endpoint/function"),
        (("releases", "local/probe/echo"), 2, "expected owner/endpoint,"),
        (("golden", "list", "local/probe/echo"), 2, "expected owner/endpoint,"),
        (("rollback", "local/prob"), 3, "local/probe"),
        (("rollback", "local/probe/echo/x"), 2, "owner/endpoint/function"),
        (("rollback", "probe"), 2, "owner/endpoint"),
        (("diff", "a", "b"), 3, "no release"),
        (("tags", "probe"), 2, "owner/endpoint"),
    ],
)
def test_what_is_not_there_is_named(platform: PlatformProcess, arguments: tuple[str, ...], status: int, word: str) -> None:
    done = verb(platform, *arguments)
    assert (done.returncode, word in done.stderr) == (status, True), done


def test_a_worker_token_is_for_one_release(platform: PlatformProcess) -> None:
    """`version` is at the new release, all else at the old one: which is meant has to be said."""
    old, new = tagged(platform, "version", "prod"), tagged(platform, "version", "dev")
    assert verb(platform, "promote", "local/probe:dev", "--function", "version").returncode == 0
    done = verb(platform, "workers", "token", "--endpoint", "local/probe")
    assert (done.returncode, f"version at {new}" in done.stderr, f"echo at {old}" in done.stderr) == (2, True, True), done.stderr
    assert "--release" in done.stderr
    assert verb(platform, "rollback", "local/probe/version").returncode == 0
    done = verb(platform, "workers", "token", "--endpoint", "local/probe")
    assert (done.returncode, f"of release {old}" in done.stderr) == (0, True), done.stderr


def test_a_platform_without_keys_says_that_it_asks_for_none(platform: PlatformProcess) -> None:
    made = verb(platform, "keys", "create", "--rate", "60/m")
    assert (made.returncode, "requires no keys" in made.stderr, "--keys" in made.stderr) == (0, True, True), made.stderr
    for arguments in (("list",), ("set", made.stdout.split("_")[1], "--rate", "none")):
        assert "requires no keys" in verb(platform, "keys", *arguments).stderr, arguments


def test_a_move_that_came_too_late_changes_nothing(platform: PlatformProcess, tmp_path: Path) -> None:
    now = tagged(platform, "sleep", "prod")
    lost = platform.http.put(TAG.format("sleep", "prod"), json={"release_id": tagged(platform, "sleep", "dev"), "expected": "probe-0"})
    assert (lost.status_code, tagged(platform, "sleep", "prod")) == (409, now)
    unknown = platform.http.put(TAG.format("sleep", "prod"), json={"release_id": now, "breakin": True})
    assert (unknown.status_code, "breakin" in unknown.json()["detail"]) == (400, True)


def test_a_release_can_be_called_by_its_id(platform: PlatformProcess) -> None:
    old, new = tagged(platform, "version", "prod"), tagged(platform, "version", "dev")
    assert [platform.invoke(f"version@{each}").json()["output"]["text"] for each in (old, new)] == ["1", "2"]
    run = platform.invoke(f"version@{new}").json()
    assert (run["release_id"], run["tag"]) == (new, f"@{new}")
    again = platform.http.post(f"/v1/runs/{run['id']}/retry").json()
    assert platform.run(again["id"], 60)["output"]["text"] == "2", "a retry runs the same release"
    unknown = platform.invoke(f"version@{new[:-1]}")
    assert (unknown.status_code, new in unknown.json()["detail"]) == (404, True)
    assert platform.http.post(f"/v1/local/other/version@{new}", json={}).status_code == 404
    done = verb(platform, "invoke", f"local/probe/echo@{new}", "-i", "text=a", "-i", "size=3")
    assert json.loads(done.stdout)["text"] == "a", done.stderr


def test_every_verb_that_takes_a_release_takes_a_tag_or_the_beginning_of_an_id(platform: PlatformProcess, tmp_path: Path) -> None:
    old, new = tagged(platform, "echo", "prod"), tagged(platform, "version", "dev")
    api = Api(platform.url)
    short = next(new[:length] for length in range(len("probe-") + 1, len(new)) if not old.startswith(new[:length]))
    for name in (new, short, "local/probe:dev", "local/probe/version:dev"):
        assert release_named(api, name) == new
    file = tmp_path / "run.json"
    file.write_text(json.dumps(platform.http.get(f"/v1/runs/{platform.invoke('version').json()['id']}/export").json()))
    for arguments, status, word in (
        (("gates", "local/probe:dev"), 0, "no gate has checked"),
        (("golden", "run", short), 0, "no golden requests"),
        (("releases", "show", "local/probe:dev"), 0, new),
        (("diff", "local/probe/echo:prod", short), 0, "BREAKS echo"),
        (("workers", "token", "--release", short), 0, f"of release {new}"),
        (("shadow", "start", "local/probe/sleep", "--release", short), 0, new),
        (("shadow", "stop", "local/probe/sleep"), 0, new),
        (("promote", short, "--function", "sleep"), 0, new),
        (("rollback", "local/probe/sleep", "--to", "local/probe/echo:prod"), 0, old),
        (("replay", str(file), "--release", short), 1, f'"{1}" -> "{2}"'),
        (("invoke", f"local/probe/version@{short}"), 0, '"2"'),
    ):
        done = verb(platform, *arguments)
        assert (done.returncode, word in done.stdout + done.stderr) == (status, True), (arguments, done)


@pytest.mark.parametrize(
    ("name", "status", "word"),
    [
        ("probe-", 3, "no release 'probe-'"),
        ("probe", 3, "no release 'probe'"),
        ("probe-zz", 3, "no release 'probe-zz'"),
        ("prod", 2, "'prod' is a tag; write a tag behind a colon: OWNER/ENDPOINT[/FUNCTION]:prod"),
        ("../keys", 2, "expected a release"),
        ("local/probe", 2, "such as local/hello:prod"),
        ("local/probe:", 2, "tag ''"),
        ("local/probe:a/b", 2, "tag 'a/b'"),
        ("local/probe:dve", 3, "Did you mean 'dev'?"),
        ("local/probe/ecko:dev", 3, "Did you mean 'echo'?"),
        ("local/prob:dev", 3, "local/probe"),
        ("other/probe:dev", 3, "no tag 'dev'"),
    ],
)
def test_what_names_no_release_is_said(platform: PlatformProcess, name: str, status: int, word: str) -> None:
    done = verb(platform, "releases", "rm", name)
    assert (done.returncode, word in done.stderr) == (status, True), done


def test_a_name_that_means_several_releases_is_refused(platform: PlatformProcess) -> None:
    old, new = tagged(platform, "version", "prod"), tagged(platform, "version", "dev")
    assert verb(platform, "promote", "local/probe/version:dev").returncode == 0
    done = verb(platform, "gates", "local/probe:prod")
    assert (done.returncode, f"version at {new}" in done.stderr, f"at {old}" in done.stderr) == (2, True, True), done.stderr
    assert verb(platform, "rollback", "local/probe/version").returncode == 0


def test_an_exported_run_is_run_again_and_compared(platform: PlatformProcess, tmp_path: Path) -> None:
    new = tagged(platform, "version", "dev")
    for function, payload in (("version", {}), ("count", {"times": 3})):
        run = platform.invoke(function, payload).json()
        file = tmp_path / f"{function}.json"
        file.write_text(verb(platform, "runs", "export", run["id"]).stdout)
        exported = json.loads(file.read_text())
        assert (exported["run"]["id"], exported["release"]["function"]["name"]) == (run["id"], function)
        same = verb(platform, "replay", str(file))
        assert same.returncode == 0, same.stderr
        assert "the same output" in same.stderr
    other = verb(platform, "replay", str(tmp_path / "version.json"), "--release", new, "--json")
    assert (other.returncode, json.loads(other.stdout)["differences"]) == (
        1, [{"pointer": "/text", "expected": "1", "actual": "2", "distance": 1.0}],
    )  # fmt: skip
    (tmp_path / "bad.json").write_text("{}")
    assert verb(platform, "replay", str(tmp_path / "bad.json")).returncode == 2
