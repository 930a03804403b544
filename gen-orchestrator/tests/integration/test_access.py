"""Keys: who has access, what each key allows, and that owners see nothing of each other, on every route."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from blake3 import blake3
from hello_project import write_hello
from platform_process import COZYCTL, PlatformProcess, write_project

OPEN = {("GET", "/livez"), ("GET", "/readyz"), ("GET", "/health-check"), ("GET", "/"), ("GET", "/docs")}
SIGNED = {("GET", "/v1/blobs/{digest}")}
# What lists or makes things of one's own: another owner gets an answer, without anything of the first.
OWN = {
    ("GET", "/v1/runs"), ("GET", "/v1/goldens"), ("GET", "/v1/shadows"), ("GET", "/v1/status"), ("GET", "/v1/workers"), ("GET", "/v1/releases"), ("GET", "/v1/tags"), ("GET", "/v1/builds"),
    ("GET", "/v1/models"), ("GET", "/v1/repos"), ("GET", "/v1/me"), ("GET", "/v1/keys"), ("POST", "/v1/keys"), ("GET", "/v1/audit"), ("GET", "/v1/usage"), ("GET", "/metrics"), ("GET", "/openapi.json"),
    ("POST", "/v1/endpoints/publish"), ("PUT", "/v1/blobs/{digest}"), ("GET", "/v1/files"), ("POST", "/mcp"), ("POST", "/v1/releases/prune"),
}  # fmt: skip
OPERATORS = {("GET", "/v1/disk"), ("POST", "/v1/repos/gc"), ("GET", "/v1/signing-keys"), ("POST", "/v1/signing-keys")}


class Keyed:
    """A platform that asks for keys, with the things of owner `local` and keys of two owners."""

    def __init__(self, platform: PlatformProcess) -> None:
        self.platform = platform
        self.operator = (platform.data / "operator.key").read_text().strip()
        made = [self.make(owner, ["admin"]) for owner in ("local", "bob")]
        self.ours, self.theirs = (str(each["key"]) for each in made)
        self.our_key_id = str(made[0]["key_id"])

    def ask(self, key: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**options.pop("headers", {}), **({"authorization": f"Bearer {key}"} if key else {})}
        return self.platform.http.request(method, path, headers=headers, **options)

    def make(self, owner: str, scopes: list[str], **more: Any) -> dict[str, Any]:
        answer = self.ask(self.operator, "POST", "/v1/keys", json={"owner": owner, "scopes": scopes, **more})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("access")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data", "--keys")
    yield Keyed(started)
    started.close()


@pytest.fixture(scope="module")
def things(keyed: Keyed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of owner `local`: what paths of routes name."""
    run = keyed.ask(keyed.ours, "POST", "/v1/local/probe/save", json={"payload": {"text": "secret-output"}}).json()
    assert run["status"] == "succeeded", run
    release = keyed.ask(keyed.ours, "GET", "/v1/releases").json()["data"][0]["release_id"]
    build = keyed.ask(keyed.ours, "POST", "/v1/endpoints/publish", content=b"", headers={"content-type": "application/gzip"}).json()
    listed = keyed.ask(keyed.ours, "PUT", "/v1/blobs/blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
    assert listed.status_code == 204, listed.text
    file = {"path": "x", "size_bytes": 0, "blake3": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"}
    hidden = keyed.ask(keyed.ours, "PUT", "/v1/endpoints/local/probe/secrets/TOKEN", json={"value": "a-value-nobody-sees"})
    assert hidden.status_code == 200, hidden.text
    assert keyed.ask(keyed.ours, "PUT", "/v1/models/local/toy/tags/latest", json={"files": [file]}).status_code == 200
    golden = keyed.ask(keyed.ours, "POST", f"/v1/runs/{run['id']}/golden").json()
    return {
        "golden_id": golden["golden_id"], "delivery_id": f"{run['id']}.ended",
        "run_id": run["id"], "worker_id": run["worker_id"], "release_id": release, "other_id": release, "build_id": build["build_id"],
        "owner": "local", "endpoint": "probe", "function": "save", "tag": "prod", "repo": "toy", "key_id": keyed.our_key_id,
        "name": "TOKEN", "ref": f"runs/{run['id']}/outputs/note.txt", "digest": "blake3:" + "0" * 64,
    }  # fmt: skip


def routes(keyed: Keyed) -> list[tuple[str, str]]:
    paths = keyed.ask(keyed.ours, "GET", "/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_no_route_but_the_open_ones_answers_without_a_key(keyed: Keyed, things: dict[str, str]) -> None:
    found = routes(keyed)
    assert len(found) > 40
    for method, path in found:
        for key in ("", "cz_000000_wrong", keyed.ours[:-1], keyed.ours + "x", "x" * 5000):
            status = keyed.ask(key, method, path.format(**things)).status_code
            expected = {200} if (method, path) in OPEN else {403} if (method, path) in SIGNED else {401}
            assert status in expected, (method, path, status)


def test_what_all_owners_share_is_for_operators(keyed: Keyed) -> None:
    for method, path in (("POST", "/v1/repos/gc"), ("GET", "/v1/disk")):
        answers = [keyed.ask(key, method, path) for key in (keyed.ours, keyed.operator)]
        assert [answer.status_code for answer in answers] == [403, 200], answers[0].text


def test_an_owner_reads_the_metrics_of_its_own_functions_and_workers(keyed: Keyed, things: dict[str, str]) -> None:
    pages = {}
    for name, key in (("operator", keyed.operator), ("local", keyed.ours), ("bob", keyed.theirs)):
        answer = keyed.ask(key, "GET", "/metrics")
        assert answer.status_code == 200, answer.text
        pages[name] = [line.removeprefix("gen_orchestrator_") for line in answer.text.splitlines() if not line.startswith("#")]
    run = 'runs_total{function="local/probe/save",status="succeeded"} 1'
    assert [run in pages[name] for name in ("operator", "local", "bob")] == [True, True, False]
    for of_all in ("route_total", "oom_total", "vram_used_bytes", "session_bytes_total", "webhook_deliveries_total"):
        assert [any(line.startswith(of_all) for line in pages[name]) for name in ("local", "bob")] == [False, False], of_all
    assert any(line.startswith("route_total") for line in pages["operator"])
    assert any(line.startswith("queue_depth{") and things["release_id"] in line for line in pages["local"])
    told = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in pages["bob"]}
    assert [name for name, value in told.items() if value and not name.startswith("build_info")] == [], "bob has nothing"
    assert sum(float(line.rpartition(" ")[2]) for line in pages["local"] if line.startswith("workers{")) >= 1
    assert keyed.ask(str(keyed.make("local", ["invoke"])["key"]), "GET", "/metrics").status_code == 403


def test_what_people_name_things_holds_no_control_characters(keyed: Keyed) -> None:
    """It is printed on terminals of others, and stored by databases that take no NUL."""
    for text in ("\0", "\x1b[2J", "a\rb", "\x9b31m"):
        file = {"path": "x", "size_bytes": 0, "blake3": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"}
        for method, path, options in (
            ("POST", "/v1/keys", {"json": {"scopes": ["invoke"], "name": text}}),
            ("POST", "/v1/endpoints/publish", {"params": {"message": text}, "headers": {"content-type": "application/gzip"}}),
            ("PUT", "/v1/models/local/named/tags/latest", {"json": {"files": [file], "message": text}}),
        ):
            answer = keyed.ask(keyed.ours, method, path, **options)
            assert (answer.status_code, "control characters" in answer.text) == (400, True), (path, answer.text)


def test_owners_see_nothing_of_each_other(keyed: Keyed, things: dict[str, str]) -> None:
    secrets = [things[name] for name in ("golden_id", "run_id", "worker_id", "release_id", "build_id", "key_id")] + [
        "secret-output",
        "a-value-nobody-sees",
        "toy",
        "probe",
    ]
    paths = keyed.ask(keyed.ours, "GET", "/openapi.json").json()["paths"]
    tagged = {(method.upper(), path): each["tags"] for path, methods in paths.items() for method, each in methods.items()}
    for method, path in routes(keyed):
        where = path.format(**things)
        options: dict[str, Any] = {}
        if path.endswith("/tags/{tag}"):
            options["json"] = {"release_id": things["release_id"], "files": []} if "models" not in path else {"files": []}
        elif method in ("POST", "PUT"):
            options["json"] = {"payload": {}, "scopes": ["invoke"]} if path != "/v1/keys" else {"scopes": ["invoke"]}
        if "openai" in tagged[method, path] and method == "POST":
            options["json"] = {"model": "local/probe/talk", "messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"}
        if "cog" in tagged[method, path] and method != "GET" and not path.endswith("cancel"):
            options["json"] = {"input": {}, "version": "save" if "endpoint" in path else "local/probe/save"}
        if path == "/v1/releases/prune":
            options["json"] = {"keep": 0, "owner": "local"}
        if path == "/mcp":
            options["json"] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            options["headers"] = {"accept": "application/json, text/event-stream"}
        if path == "/v1/audio/transcriptions":
            options = {"data": {"model": "local/probe/hear"}, "files": {"file": b"x"}}
        if path.endswith("/secrets/{name}") and method == "PUT":
            options["json"] = {"value": "another-value"}
        if path == "/v1/runs/{run_id}" and method == "PUT":
            where = "/v1/runs/a-new-one?function=local/probe/save"
        answer = keyed.ask(keyed.theirs, method, where, **options)
        if (method, path) in OPEN | OPERATORS | SIGNED:
            continue
        if (method, path) not in OWN:
            assert answer.status_code == 404, (method, path, answer.status_code, answer.text)
        for secret in secrets:
            asked = where in answer.text and secret in where
            text = answer.text.replace(where, "") if asked else answer.text
            if (method, path) not in OWN and secret in where:
                continue  # what the caller has named is named back
            assert secret not in text or secret in ("toy", "probe"), (method, path, secret, answer.text[:500])
    for path in ("/v1/runs", "/v1/workers", "/v1/releases", "/v1/tags", "/v1/models", "/v1/repos", "/v1/goldens"):
        assert keyed.ask(keyed.theirs, "GET", path).json()["data"] == [], path
        if path not in ("/v1/workers", "/v1/models"):
            assert keyed.ask(keyed.theirs, "GET", path, params={"owner": "local"}).json()["data"] == [], path
        assert keyed.ask(keyed.ours, "GET", path).json()["data"] != [], path
        assert keyed.ask(keyed.operator, "GET", path).json()["data"] != [], path


def test_a_digest_is_no_way_to_the_blobs_of_another_owner(keyed: Keyed) -> None:
    """Whoever lists another's blobs hears what whoever lists blobs of nobody hears, and gets nothing for the digests."""
    ours, nobodys = b'{"of": "ours"}', b"of nobody"

    def listed(content: bytes) -> dict[str, Any]:
        return {"files": [{"path": "config.json", "size_bytes": len(content), "blake3": blake3(content).hexdigest()}]}

    def push(key: str, name: str, content: bytes) -> httpx.Response:
        return keyed.ask(key, "PUT", f"/v1/models/{name}/tags/latest", json=listed(content))

    def send(key: str, content: bytes) -> int:
        return keyed.ask(key, "PUT", f"/v1/blobs/blake3:{blake3(content).hexdigest()}", content=content).status_code

    assert (send(keyed.ours, ours), push(keyed.ours, "local/mine", ours).status_code) == (204, 200)
    kept = next((keyed.platform.data / "models" / "blobs").rglob(blake3(ours).hexdigest()))
    inode = kept.stat().st_ino
    for content in (ours, nobodys):
        answer = push(keyed.theirs, "bob/stolen", content)
        assert (answer.status_code, answer.json()["missing"]) == (202, [blake3(content).hexdigest()]), answer.text
        assert send(keyed.theirs, b"wrong") == 204
        assert push(keyed.theirs, "bob/stolen", content).status_code == 202, "other bytes prove nothing"
    assert keyed.ask(keyed.theirs, "GET", "/v1/models/bob/stolen").status_code == 404
    assert push(keyed.ours, "local/second", ours).status_code == 200, "the repositories of an owner share"
    assert push(keyed.operator, "local/third", ours).status_code == 200, "an operator sees every owner's"
    assert (send(keyed.theirs, ours), push(keyed.theirs, "bob/own", ours).status_code) == (204, 200)
    assert kept.stat().st_ino == inode, "one copy for all owners"
    assert push(keyed.operator, "hf/org--public", ours).status_code == 200
    third = keyed.make("carol", ["admin"])["key"]
    assert push(third, "carol/of-a-mirror", ours).status_code == 200, "everybody may read mirrors of Hugging Face"
    for key, name in ((keyed.ours, "local/mine"), (keyed.ours, "local/second"), (keyed.ours, "local/third"), (keyed.theirs, "bob/own"),
                      (keyed.operator, "hf/org--public"), (third, "carol/of-a-mirror")):  # fmt: skip
        assert keyed.ask(key, "DELETE", f"/v1/models/{name}").status_code == 200


def test_owners_may_publish_the_same_source(keyed: Keyed, tmp_path: Path) -> None:
    """Each has a release, and files, of its own: who deletes one takes nothing from the other."""
    dora, erin = (str(keyed.make(owner, ["admin"])["key"]) for owner in ("dora", "erin"))
    project = write_hello(tmp_path / "hello", "same")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(project, ".")

    def publish(key: str) -> dict[str, Any]:
        kind = {"content-type": "application/gzip"}
        build = keyed.ask(key, "POST", "/v1/endpoints/publish", content=archive.getvalue(), headers=kind).json()
        while build["status"] in ("queued", "running"):
            build = keyed.ask(key, "GET", f"/v1/builds/{build['build_id']}?wait=60").json()
        assert build["status"] == "succeeded", build
        return dict(build)

    ours, theirs, again = publish(dora), publish(erin), publish(erin)
    assert (again["release_id"], theirs["existed"], again["existed"]) == (theirs["release_id"], False, True)
    assert ours["release_id"] != theirs["release_id"]
    for key, build in ((dora, ours), (erin, theirs)):
        listed = [each["release_id"] for each in keyed.ask(key, "GET", "/v1/releases").json()["data"] if each["endpoint"] == "same"]
        assert listed == [build["release_id"]]
    assert keyed.ask(dora, "DELETE", "/v1/endpoints/dora/same").status_code < 300
    assert keyed.ask(dora, "DELETE", f"/v1/releases/{ours['release_id']}").status_code < 300
    answer = keyed.ask(erin, "POST", "/v1/erin/same/greet", json={"payload": {"name": "you"}})
    assert (answer.status_code, answer.json().get("output")) == (200, {"text": "hello you"}), answer.text


def test_a_release_of_another_is_no_target(keyed: Keyed, things: dict[str, str]) -> None:
    answer = keyed.ask(keyed.theirs, "PUT", "/v1/endpoints/bob/probe/functions/save/tags/prod", json={"release_id": things["release_id"]})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("invoke", {"invoke"}), ("publish", {"publish"}), ("promote", {"promote"}), ("admin", {"invoke", "publish", "promote", "admin"})],
)
def test_a_key_does_what_its_scopes_say(keyed: Keyed, things: dict[str, str], scope: str, allowed: set[str]) -> None:
    key = keyed.make("local", [scope])["key"]
    asked = {
        "invoke": ("POST", "/v1/local/probe/echo", {"json": {"payload": {}}}),
        "publish": ("GET", "/v1/builds", {}),
        "promote": ("PUT", "/v1/endpoints/local/probe/functions/save/tags/prod", {"json": {"release_id": things["release_id"]}}),
        "admin": ("GET", "/v1/keys", {}),
    }
    for name, (method, path, options) in asked.items():
        answer = keyed.ask(key, method, path, **options)
        assert answer.status_code == (200 if name in allowed else 403), (name, answer.text)
    assert keyed.ask(key, "GET", "/v1/me").json()["scopes"] == [scope]


def test_a_key_ends(keyed: Keyed) -> None:
    made = keyed.make("local", ["invoke"], name="short")
    assert keyed.ask(made["key"], "GET", "/v1/me").status_code == 200
    assert keyed.ask(keyed.theirs, "DELETE", f"/v1/keys/{made['key_id']}").status_code == 404
    assert keyed.ask(keyed.ours, "DELETE", f"/v1/keys/{made['key_id']}").status_code == 200
    assert keyed.ask(made["key"], "GET", "/v1/me").status_code == 401
    brief = keyed.make("local", ["invoke"], life_s=0.001)
    keyed.platform.until(lambda: keyed.ask(brief["key"], "GET", "/v1/me").status_code == 401)
    for body in ({"scopes": []}, {"scopes": ["root"]}, {"scopes": ["invoke"], "owner": "../x"}, {"scopes": ["invoke"], "life_s": -1}, {}):
        answer = keyed.ask(keyed.operator, "POST", "/v1/keys", json=body)
        assert answer.status_code == 400, (body, answer.text)
    refused = keyed.ask(keyed.theirs, "POST", "/v1/keys", json={"scopes": ["admin"], "owner": "local"})
    assert refused.status_code == 403


def test_keys_and_the_audit_live_on(keyed: Keyed) -> None:
    keyed.platform.kill()
    keyed.platform.start()
    assert keyed.ask(keyed.ours, "GET", "/v1/me").json()["owner"] == "local"
    rows = keyed.ask(keyed.ours, "GET", "/v1/audit").json()["data"]
    assert {row["owner"] for row in rows} == {"local"}
    assert {"key.created", "key.revoked"} <= {row["action"] for row in rows}
    assert "key.refused" in {row["action"] for row in keyed.ask(keyed.operator, "GET", "/v1/audit", params={"limit": 500}).json()["data"]}
    written = (keyed.platform.data / "store.sqlite").read_bytes() + keyed.platform.log.read_bytes()
    for key in (keyed.operator, keyed.ours):
        assert key.split("_", 2)[2].encode() not in written  # a secret may have "_" in it
    assert (keyed.platform.data / "operator.key").stat().st_mode & 0o777 == 0o600


def test_login_keeps_a_key_for_the_other_verbs(keyed: Keyed, tmp_path: Path) -> None:
    env = {**{name: value for name, value in os.environ.items() if not name.startswith("COZY_")}, "COZY_HOME": str(tmp_path / "cozy")}

    def verb(*arguments: str, text: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(COZYCTL), *arguments], env={**env, **more}, input=text, capture_output=True, text=True, timeout=60, check=False
        )

    wrong = verb("login", "--url", keyed.platform.url, text="cz_0_0")
    assert (wrong.returncode, "refused this key" in wrong.stderr, "cozyctl login" in wrong.stderr) == (4, True, False), wrong.stderr
    done = verb("login", "--url", keyed.platform.url, "--profile", "work/dev", text=keyed.ours + "\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(verb("invoke", "local/probe/echo", "-i", "text=hi").stdout)["text"] == "hi"
    other = verb("invoke", "ann/probe/echo", "--payload", "{}")
    assert (other.returncode, "no owner 'ann'. This key is of owner local, whose endpoints are called local/NAME" in other.stderr) == (
        3,
        True,
    )
    assert verb("profile", "current").stdout.split() == ["work/dev", keyed.platform.url, "local"]
    assert verb("profile", "list").stdout == f"work/dev  {keyed.platform.url}  local  (in use)\n"
    made = verb("keys", "create", "--name", "ci", "--scope", "invoke", "--life", "1h")
    assert "requires no keys" not in made.stderr
    assert made.stdout.startswith("cz_")
    assert verb("keys", "list", COZY_API_KEY=made.stdout.strip()).returncode == 4, "the environment's key is used, and may not"
    assert "ci" in verb("keys", "list").stdout
    key_id = made.stdout.split("_")[1]
    for arguments in (("revoke", "ci"), ("set", "ci", "--rate", "1/s")):
        by_name = verb("keys", *arguments)
        assert (by_name.returncode, f"'ci' is the name of a key; use its id: {key_id}" in by_name.stderr) == (3, True), by_name
    assert verb("keys", "revoke", key_id).returncode == 0
    assert "use its id" not in verb("keys", "revoke", "ci").stderr, "that key is revoked already"
    head, *rows = verb("keys", "audit", COLUMNS="160").stdout.splitlines()
    assert head.split() == ["when", "(UTC)", "who", "what", "owner", "of", "details"]
    assert any("key.revoked" in row for row in rows)
    assert verb("profile", "switch", "nobody").returncode == 3
    assert verb("logout").returncode == 0
    assert verb("ps", "--url", keyed.platform.url).returncode == 4
    assert list((tmp_path / "cozy").glob("*/*/config.yaml")) == []


def test_workers_get_models_with_a_token_of_their_own(keyed: Keyed) -> None:
    answer = keyed.ask(keyed.ours, "POST", "/v1/local/probe/environment", json={"payload": {}})
    environment = json.loads(answer.json()["output"]["text"])
    token = environment["COZY_HUB_TOKEN"]
    assert environment["COZY_MODELS_OWNER"] == "local"
    body = {"model_ref": "cozy:local/toy", "constraints": {"dtypes": []}, "include_urls": True}
    assert keyed.ask(token, "POST", "/api/v1/public/models/request", json=body).status_code == 200
    theirs = {**body, "model_ref": "cozy:bob/x"}
    assert keyed.ask(token, "POST", "/api/v1/public/models/request", json=theirs).status_code == 404
    assert keyed.ask(token, "GET", "/v1/runs").status_code == 401, "a worker is no caller"
    assert keyed.ask(token, "PUT", "/api/v1/file/runs/-/outputs/x", content=b"x").status_code in (401, 403, 404, 409)
    assert not [name for name, value in environment.items() if value in (keyed.operator, keyed.ours)]


def test_front_doors_go_by_the_key(keyed: Keyed) -> None:
    said: dict[str, Any] = {"model": "local/probe/talk", "messages": [{"role": "user", "content": "hi"}]}
    only_publish = keyed.make("local", ["publish"])["key"]
    for key, error in (
        ("wrong", openai.AuthenticationError),
        (only_publish, openai.PermissionDeniedError),
        (keyed.theirs, openai.NotFoundError),
        (keyed.ours, None),
    ):
        with openai.OpenAI(base_url=f"{keyed.platform.url}/v1", api_key=key, max_retries=0) as client:
            if error is None:
                assert client.chat.completions.create(**said).choices[0].message.content == "hi"
                drawn = client.images.generate(model="local/probe/draw", prompt="x")
                assert drawn.data is not None
                assert httpx.get(str(drawn.data[0].url), trust_env=False).status_code == 200, "an address that holds without a key"
                continue
            with pytest.raises(error) as caught:
                client.chat.completions.create(**said)
            assert caught.value.body["code"] in ("auth", "forbidden", "not_found")  # type: ignore[index]
