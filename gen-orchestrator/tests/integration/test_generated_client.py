"""The OpenAPI document: every route, correct schemas, and a working client made by a third-party generator."""

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_process import PlatformProcess, write_project


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("client")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    yield started
    started.close()


@pytest.fixture(scope="module")
def client(platform: PlatformProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The generated package, imported whole."""
    pytest.importorskip("openapi_python_client")
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_bytes(platform.http.get("/openapi.json").content)
    command = [sys.executable, "-c", "from openapi_python_client.cli import app; app()", "generate"]
    arguments = ["--path", "openapi.json", "--meta", "none", "--output-path", "made_platform_client", "--fail-on-warning"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    try:
        package = importlib.import_module("made_platform_client")
        for module in pkgutil.walk_packages(package.__path__, "made_platform_client."):
            importlib.import_module(module.name)
        with package.Client(base_url=platform.url, httpx_args={"trust_env": False}) as made_client:
            yield made_client
    finally:
        sys.path.remove(str(folder))


def api(name: str) -> Any:
    return importlib.import_module(f"made_platform_client.api.{name}")


def model(name: str, **fields: Any) -> Any:
    return getattr(importlib.import_module("made_platform_client.models"), name)(**fields)


def test_a_generated_client_runs_functions(client: Any) -> None:
    body = model("ProbeEchoRequest", payload=model("Input", text="a"))
    run = api("functions.probe_echo").sync(client=client, body=body)
    assert (run.status, run.output.text, run.tag) == ("succeeded", "a", "prod")
    assert api("functions.probe_echo_dev").sync(client=client, body=model("ProbeEchoDevRequest", payload=model("Input"))).tag == "dev"
    found = api("api.get_run").sync(run.id, client=client)
    assert (found.id, found.input_["text"]) == (run.id, "a")
    assert run.id in [each.id for each in api("api.list_runs").sync(client=client).data]
    again = api("api.retry_run").sync(run.id, client=client)
    assert api("api.get_run").sync(again.id, client=client, wait=30).status == "succeeded"
    assert api("api.cancel_run").sync(run.id, client=client).status == "succeeded"


def test_a_generated_client_reads_failures_and_problems(client: Any) -> None:
    failed = api("functions.probe_refuse").sync_detailed(client=client, body=model("ProbeRefuseRequest", payload=model("Input")))
    assert (failed.status_code, failed.parsed.status, failed.parsed.error.code) == (400, "failed", "validation")
    body = model("ProbeEchoRequest", payload=model("Input"))
    refused = api("functions.probe_echo").sync_detailed(client=client, body=body, idempotency_key="k" * 300)
    assert (refused.status_code, refused.parsed.code) == (400, "validation")
    missing = api("api.get_run").sync_detailed("none", client=client)
    assert (missing.status_code, missing.parsed.error) == (404, "unknown_run")
    assert api("api.list_workers").sync(client=client).data[0].state in ("idle", "busy")
    assert api("api.get_status").sync(client=client).tags
    assert api("api.list_releases").sync(client=client).data[0].owner == "local"


def test_every_route_is_described_and_every_description_is_a_route(platform: PlatformProcess) -> None:
    document = platform.http.get("/openapi.json").json()
    functions = {path for path in document["paths"] if path.startswith("/v1/local/")}
    tags = platform.status()["tags"]
    assert len(functions) == len(tags)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            url = path.replace("{run_id}", "none").replace("{ref}", "none").replace("{worker_id}", "none")
            url = url.replace("{owner}", "local").replace("{endpoint}", "probe").replace("{function}", "echo").replace("{tag}", "prod")
            answer = platform.http.request(method.upper(), url, json={"payload": {}}, headers={"prefer": "respond-async"})
            assert answer.status_code != 405, path
            assert str(answer.status_code) in operation["responses"], (path, answer.status_code)
        assert "patch" in methods or platform.http.request("PATCH", path).status_code == 405, path
