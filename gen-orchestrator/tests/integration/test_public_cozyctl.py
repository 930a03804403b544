"""The requests of the public command line tool, sent as its source does: log in, upload, build, follow, deploy."""

import io
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hello_project import HELLO, write_hello
from platform_process import PlatformProcess, write_project


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("public")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data", "--keys")
    yield started
    started.close()


class Tool:
    """The public tool's own requests."""

    def __init__(self, platform: PlatformProcess, login: str, password: str) -> None:
        self.http = httpx.Client(base_url=platform.url, timeout=60, trust_env=False)
        self.answer = self.http.post("/api/v1/auth/password/login", json={"login": login, "password": password})
        if self.answer.status_code == 200:
            self.http.headers["authorization"] = f"Bearer {self.answer.json()['access_token']}"

    def upload(self, folder: Path, project: str) -> str:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as tar:
            tar.add(folder / "cozy.toml", "cozy.toml")
            tar.add(folder / "src", "src")
        path = f"builds/{project}/{time.time_ns()}.tar.gz"
        answer = self.http.put(f"/api/v1/file/{path}", content=made.getvalue(), headers={"content-type": "application/gzip"})
        assert answer.status_code in (200, 201), answer.text
        return path

    def build(self, path: str) -> dict[str, Any]:
        build = self.http.post("/api/v1/builds", json={"tarball_path": path})
        assert build.status_code in (200, 201), build.text
        found: dict[str, Any] = build.json()
        while found["status"] in ("pending", "queued", "running"):
            found = self.http.get(f"/api/v1/builds/{found['id']}").json()
        return found


@pytest.fixture
def log_in(platform: PlatformProcess) -> Iterator[Callable[[str, str], Tool]]:
    """Makes tools, and closes their connections in the end."""
    made: list[Tool] = []

    def make(login: str, password: str) -> Tool:
        made.append(Tool(platform, login, password))
        return made[-1]

    yield make
    for tool in made:
        tool.http.close()


def operator(platform: PlatformProcess) -> str:
    return (platform.data / "operator.key").read_text().strip()


def test_the_whole_way(platform: PlatformProcess, log_in: Callable[[str, str], Tool], tmp_path: Path) -> None:
    tool = log_in("local", operator(platform))
    assert tool.answer.status_code == 200
    assert {"access_token", "token_type", "expires_in", "refresh_token"} <= tool.answer.json().keys()
    assert tool.http.get("/api/v1/auth/me").json() == {"id": "local", "name": "local"}
    assert {"id", "username", "email"} <= tool.http.get("/api/v1/auth/user/me").json().keys()
    folder = write_hello(tmp_path / "way", "way")
    first = tool.build(tool.upload(folder, "way"))
    assert (first["status"], first["deployment_id"]) == ("success", "way")
    logs = tool.http.get(f"/api/v1/builds/{first['id']}/logs", params={"after_id": 0, "limit": 100}).json()
    assert logs["count"] == len(logs["logs"]) > 0
    assert [line["id"] for line in logs["logs"]] == list(range(1, logs["count"] + 1))
    rest = tool.http.get(f"/api/v1/builds/{first['id']}/logs", params={"after_id": logs["count"]}).json()
    assert rest == {"logs": [], "count": 0}
    write_hello(folder, "way", HELLO.replace("hello", "hi"))
    second = tool.build(tool.upload(folder, "way"))
    deployed = tool.http.post(f"/api/v1/builds/{second['id']}/deploy")
    assert deployed.status_code in (200, 201), deployed.text
    assert (deployed.json()["active_build_id"], deployed.json()["previous_build_id"]) == (second["id"], first["id"])
    answer = tool.http.post("/v1/local/way/greet", json={"payload": {"name": "you"}})
    assert answer.json()["output"]["text"] == "hi you"
    shown = tool.http.get("/v1/deployments/way").json()
    assert (shown["active_build_id"], shown["function_requirements"]) == (second["id"], [{"name": "greet", "requires_gpu": False}])
    assert "way" in [each["id"] for each in tool.http.get("/v1/deployments").json()["items"]]
    back = tool.http.post("/v1/deployments", json={"build_id": first["id"], "tenant_id": "local"})
    assert (back.status_code, back.json()["active_build_id"]) == (201, first["id"])


def test_a_build_that_fails_says_why(platform: PlatformProcess, log_in: Callable[[str, str], Tool], tmp_path: Path) -> None:
    tool = log_in("local", operator(platform))
    build = tool.build(tool.upload(write_hello(tmp_path / "bad", "bad", "import nothing_of_that_name"), "bad"))
    assert (build["status"], "nothing_of_that_name" in build["error_message"]) == ("failed", True)
    assert tool.http.post(f"/api/v1/builds/{build['id']}/deploy").status_code == 409


def test_who_is_not_let_in(platform: PlatformProcess, log_in: Callable[[str, str], Tool]) -> None:
    key = httpx.post(
        f"{platform.url}/v1/keys", json={"owner": "bob", "scopes": ["admin"]}, headers={"authorization": f"Bearer {operator(platform)}"}
    ).json()["key"]
    assert log_in("local", "nonsense").answer.status_code == 401
    assert log_in("local", key).answer.status_code == 401
    bob = log_in("bob", key)
    assert bob.http.get("/v1/deployments").json() == {"items": []}
    assert bob.http.get("/v1/deployments/probe").status_code == 404
    for path in ("builds/x/../../1.tar.gz", "builds/x/1.zip", "other/x/1.tar.gz", "builds/x/1.tar.gz"):
        assert bob.http.post("/api/v1/builds", json={"tarball_path": path}).status_code in (400, 404), path
