"""Secrets of functions: workers get them, and they appear nowhere else."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from platform_process import COZYCTL, PlatformProcess
from webhook_receiver import Receiver

from gen_worker.client import Client

COZY_TOML = """\
schema_version = 1
name = "probe"
main = "probe.main"
gen_worker = ">=0.2.0,<0.3.0"

[env]
PROBE_MODE = "warm"

[secrets]
PLAIN = "a key as services give them"
AWKWARD = "with what has to be escaped"
"""
MAIN = """\
import base64, html, json, os, sys
from collections.abc import Iterator
import msgspec
from gen_worker import ActionContext, RealtimeSocket, worker_function, worker_websocket

class Input(msgspec.Struct):
    pass

class Output(msgspec.Struct):
    text: str
    data: bytes = b""

class Word(msgspec.Struct):
    text: str

MODE = os.environ.get("PROBE_MODE", "")

def all_of_them() -> str:
    return os.environ["PLAIN"] + " " + os.environ["AWKWARD"]

print("at import", all_of_them(), flush=True)

@worker_function()
def tells(ctx: ActionContext, payload: Input) -> Output:
    print("print", all_of_them(), file=sys.stderr, flush=True)
    ctx.log("log " + all_of_them())
    ctx.progress(0.5, stage=os.environ["PLAIN"])
    return Output(all_of_them() + repr(dict(os.environ)) + base64.b64encode(os.environ["PLAIN"].encode()).decode(), all_of_them().encode())

@worker_function()
def says(ctx: ActionContext, payload: Input) -> Iterator[Word]:
    yield Word(all_of_them())

@worker_websocket()
async def speaks(ctx: ActionContext, sock: RealtimeSocket) -> None:
    await sock.send_json({"text": all_of_them()})
    await sock.send_bytes(b"\\x00\\xff" + all_of_them().encode() + b"\\xfe")
    await sock.send_bytes(bytes(range(256)))

@worker_function()
def raises(ctx: ActionContext, payload: Input) -> Output:
    raise ValueError("wrong key " + all_of_them())

@worker_function()
def breaks(ctx: ActionContext, payload: Input) -> Output:
    print(html.escape(all_of_them()), all_of_them().encode(), flush=True)
    raise RuntimeError(repr({"headers": all_of_them()}))

@worker_function()
def dies(ctx: ActionContext, payload: Input) -> Output:
    print("dies with", all_of_them(), '{"error": ' + json.dumps(repr({"a": all_of_them()})) + "}", flush=True)
    print('{"error": ' + json.dumps(repr({"a": all_of_them()})) + "}", flush=True)
    os._exit(7)

@worker_function()
def value(ctx: ActionContext, payload: Input) -> Output:
    return Output(os.environ["PLAIN"][::-1])

@worker_function()
def mode(ctx: ActionContext, payload: Input) -> Output:
    return Output(MODE)
"""
PLAIN = "sk-live-Zk31xQ07mUY"
AWKWARD = 'first-line "quoted" \\ é/+\nsecond-line-of-it'
NEVER_QUOTED = "first-line"  # of AWKWARD, however it is written
LATER = "sk-live-another-one-55"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("secrets")
    project = folder / "probe"
    (project / "src" / "probe").mkdir(parents=True)
    (project / "cozy.toml").write_text(COZY_TOML)
    (project / "src" / "probe" / "__init__.py").write_text("")
    (project / "src" / "probe" / "main.py").write_text(MAIN.replace('print("at import"', 'if "PLAIN" in os.environ: print("at import"'))
    started = PlatformProcess(project, folder / "data", "--allow-private-webhooks")
    yield started
    started.close()


def cozyctl(platform: PlatformProcess, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [str(COZYCTL), *arguments, "--url", platform.url]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_a_secret_that_is_not_set_is_waited_for(platform: PlatformProcess) -> None:
    run_id = platform.submit("value")
    waits = platform.until(lambda: (found := platform.run(run_id)).get("routing", {}).get("last_lines") and found)["routing"]
    assert "PLAIN, AWKWARD are declared in cozy.toml but not set for local/probe" in waits["last_lines"], waits
    assert "cozyctl secrets set local/probe PLAIN" in waits["last_lines"]
    assert platform.worker_pids() == {}
    listed = cozyctl(platform, "secrets", "list", "local/probe")
    assert "PLAIN is declared but not set" in listed.stderr, listed
    made = cozyctl(platform, "secrets", "set", "local/probe", "PLAIN", stdin=PLAIN + "\n")
    assert (made.returncode, made.stdout) == (0, "PLAIN of local/probe is set (version 1)\n"), made
    assert cozyctl(platform, "secrets", "set", "local/probe", "AWKWARD", stdin=AWKWARD).returncode == 0
    assert platform.run(run_id, wait_s=60)["output"]["text"] == PLAIN[::-1]
    assert platform.run(platform.submit("mode"), wait_s=60)["output"]["text"] == "warm"  # of `[env]`, at import


def test_nothing_that_comes_out_holds_a_secret(platform: PlatformProcess) -> None:
    receiver = Receiver()
    texts: list[str] = []
    try:
        hook = {"webhook": receiver.url, "webhook_events": ["started", "succeeded", "failed"]}
        for function in ("tells", "says", "raises", "breaks"):
            answer = platform.invoke(function, **hook)
            run_id = str(answer.json()["id"]) if "id" in answer.json() else str(answer.json()["run_id"])
            events = platform.events(run_id)
            texts += [answer.text, json.dumps(events), platform.http.get(f"/v1/runs/{run_id}/export").text]
            texts += [platform.http.get(f"/v1/runs/{run_id}").text, cozyctl(platform, "runs", "get", run_id).stdout]
            texts += [receiver.messages.get(timeout=60)[1].decode() for _ in range(2)]
    finally:
        receiver.close()
    with Client(platform.url) as client, client.session("local/probe/speaks") as session:
        text, binary, other = session
    assert binary == b"\x00\xff[secret PLAIN] [secret AWKWARD]\xfe"
    assert other == bytes(range(256))
    texts.append(str(text))
    assert "[secret PLAIN]" in texts[0], texts[0]
    assert "[secret AWKWARD]" in texts[0]
    for worker_id in [path.stem for path in (platform.data / "logs").glob("*.log")]:
        log = platform.http.get(f"/v1/workers/{worker_id}/logs", params={"after": 0})
        assert log.status_code == 200
        texts.append(log.text)
        texts.append(cozyctl(platform, "logs", worker_id).stdout)
        for place in (at.start() + 3 for at in re.finditer(PLAIN.encode(), (platform.data / "logs" / f"{worker_id}.log").read_bytes())):
            inside = platform.http.get(f"/v1/workers/{worker_id}/logs", params={"after": place})
            assert PLAIN[3:] not in inside.text, "a place inside a secret"
    assert any("print [secret PLAIN]" in text for text in texts)
    dying = platform.submit("dies")
    platform.until(lambda: platform.run(dying)["status"] == "failed")
    texts += [
        platform.http.get(path).text for path in (f"/v1/runs/{dying}", "/v1/status", "/v1/workers", "/metrics", "/v1/audit", "/v1/runs")
    ]
    texts += [platform.http.get("/v1/endpoints/local/probe/secrets").text, platform.log.read_text()]
    leaks = [(secret, text[:2000]) for text in texts for secret in _parts() if secret in text]
    assert leaks == []
    written = {
        path: path.read_bytes()
        for path in platform.data.rglob("*")
        if path.is_file() and path.parent.name != "logs"  # a worker writes these itself: they are shown without
    }
    assert any(path.name == "store.sqlite" for path in written)
    assert [(path, secret) for path, data in written.items() for secret in _parts() if secret.encode() in data] == []
    assert (platform.data / "secrets.key").stat().st_mode & 0o777 == 0o600


def test_a_change_reaches_new_workers_and_loses_no_run(platform: PlatformProcess) -> None:
    before = platform.until(platform.worker_pids)
    assert cozyctl(platform, "secrets", "set", "local/probe", "PLAIN", stdin=LATER).returncode == 0
    assert platform.invoke("value").json()["output"]["text"] == LATER[::-1]
    platform.until(lambda: not before.keys() & platform.worker_pids().keys())
    listed = json.loads(cozyctl(platform, "secrets", "list", "local/probe", "--json").stdout)
    assert [(each["name"], each["version"], each["declared"]) for each in listed["data"]] == [("AWKWARD", 1, True), ("PLAIN", 2, True)]


def test_secrets_outlive_a_restart_and_the_earlier_ones_stay_hidden(platform: PlatformProcess) -> None:
    logs = [path.stem for path in (platform.data / "logs").glob("*.log")]
    platform.stop()
    platform.start()
    assert platform.invoke("value").json()["output"]["text"] == LATER[::-1]
    for worker_id in logs:
        text = platform.http.get(f"/v1/workers/{worker_id}/logs", params={"after": 0}).text
        assert [secret for secret in _parts() if secret in text] == []


def test_what_cannot_be_a_secret_is_refused(platform: PlatformProcess) -> None:
    for name, value, why in (("WORKER_JWT", "long-enough", "begins with none of"), ("OTHER", "brief", "expected 8 to")):
        refused = cozyctl(platform, "secrets", "set", "local/probe", name, stdin=value)
        assert refused.returncode == 2, refused
        assert why in refused.stderr
        assert value not in refused.stderr
    given = cozyctl(platform, "secrets", "set", "local/probe", "PLAIN=long-enough", stdin="")
    assert (given.returncode, "long-enough" in given.stderr) == (2, False), given.stderr
    assert "cozyctl secrets set local/probe PLAIN < file" in given.stderr
    unknown = cozyctl(platform, "secrets", "rm", "local/probe", "PLAIM")
    assert unknown.returncode == 3
    assert "Did you mean 'PLAIN'?" in unknown.stderr
    early = cozyctl(platform, "secrets", "set", "local/prob", "PLAIN", stdin="long-enough")
    assert "nothing is published as local/prob yet" in early.stderr
    extra: Any = cozyctl(platform, "secrets", "set", "local/probe", "EXTRA", stdin="long-enough")
    assert "no release of local/probe declares it" in extra.stderr
    for endpoint, name in (("local/prob", "PLAIN"), ("local/probe", "EXTRA")):
        assert cozyctl(platform, "secrets", "rm", endpoint, name).returncode == 0
    assert cozyctl(platform, "secrets", "list", "local/prob").returncode == 3


def _parts() -> list[str]:
    awkward = [NEVER_QUOTED, "second-line-of-it", AWKWARD, json.dumps(AWKWARD)[1:-1], *AWKWARD.splitlines()]
    return [PLAIN, PLAIN[::-1] + "-", LATER, *awkward, json.dumps(AWKWARD, ensure_ascii=False)[1:-1], "c2stbGl2ZS1aazMxeFEwN21V"]
