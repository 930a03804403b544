"""The OpenAPI document: every route, correct schemas, and a working client made by a third-party generator."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Runner, write_project
from tests.runner_project import CODE

from gen_worker.dev.own_routes import own_routes

MORE = """
class Sized(msgspec.Struct):
    prompt: str
    width: Annotated[int, Clamp(1, 64)] = 8
    mode: Literal["fast", "good"] = "fast"

@worker_function
def sized(ctx: ActionContext, payload: Sized) -> Out:
    return Out(f"{payload.prompt} {payload.width} {payload.mode}")
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("client")
    found = Runner(write_project(folder / "project", "from typing import Literal\n" + CODE + MORE), folder / "outputs")
    yield found
    assert found.stop() == 0


@pytest.fixture(scope="module")
def client(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The generated package, imported whole."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_bytes(runner.http.get("/openapi.json").content)
    command = [sys.executable, "-c", "from openapi_python_client.cli import app; app()", "generate"]
    arguments = ["--path", "openapi.json", "--meta", "none", "--output-path", "made_client", "--fail-on-warning"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    try:
        package = importlib.import_module("made_client")
        for module in pkgutil.walk_packages(package.__path__, "made_client."):
            importlib.import_module(module.name)
        with package.Client(base_url=runner.url, httpx_args={"trust_env": False}) as made_client:
            yield made_client
    finally:
        sys.path.remove(str(folder))


def api(name: str) -> Any:
    return importlib.import_module(f"made_client.api.{name}")


def model(name: str, **fields: Any) -> Any:
    return getattr(importlib.import_module("made_client.models"), name)(**fields)


def test_a_generated_client_runs_functions(client: Any) -> None:
    answer = api("functions.sized").sync(client=client, body=model("Sized", prompt="a", width=3))
    assert answer.output.text == "a 3 fast"
    assert answer.success
    assert answer.events[0].event_type == "task.received"
    assert [word.chunk for word in api("functions.words").sync(client=client, body=model("In", prompt="a b")).outputs] == ["a", "b"]
    assert api("functions.warm_up_sized").sync(client=client, body=model("Sized", prompt="a")).ok


def test_a_generated_client_reads_a_failed_run_and_a_problem(client: Any) -> None:
    failed = api("functions.sized").sync_detailed(client=client, body=model("Sized", prompt=5))
    assert failed.status_code == 400
    assert failed.parsed.error_type == "validation"
    assert failed.parsed.errors[0].pointer == "/prompt"
    refused = api("functions.sized").sync_detailed(client=client, body=model("Sized", prompt="a"), idempotency_key="k" * 300)
    assert (refused.status_code, refused.parsed.code) == (400, "validation")
    missing = api("runner.get_run").sync_detailed("none", client=client)
    assert (missing.status_code, missing.parsed.error) == (404, "unknown_run")


def test_a_generated_client_follows_a_run(client: Any) -> None:
    later = api("functions.nap").sync_detailed(client=client, body=model("In", seconds=0.2), prefer="respond-async")
    assert later.status_code == 202
    run = api("runner.get_run").sync(later.parsed.id, client=client, wait=20)
    assert (run.status, run.function) == ("succeeded", "nap")
    assert later.parsed.id in [each.id for each in api("runner.list_runs").sync(client=client).data]
    assert api("runner.cancel_run").sync(run.id, client=client).status == "succeeded"
    assert "sized" in api("runner.get_status").sync(client=client).functions


def test_every_route_is_described_and_every_description_is_a_route(runner: Runner) -> None:
    paths = runner.http.get("/openapi.json").json()["paths"]
    functions = {path for path in paths if path.startswith(("/v1/run/", "/v1/warmup/"))}
    assert set(paths) - functions == set(own_routes())
    assert len(functions) == 2 * len(runner.http.get("/v1/status").json()["functions"])
    for path, methods in paths.items():
        for method in methods:
            answer = runner.http.request(method.upper(), path.replace("{run_id}", "none").replace("{ref}", "none"), json={})
            assert answer.status_code != 405
            assert str(answer.status_code) in methods[method]["responses"], (path, answer.status_code)
        assert runner.http.request("PATCH", path).status_code == 405


def test_what_is_sent_fits_what_is_described(runner: Runner) -> None:
    document = runner.http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    responses = document["paths"]["/v1/run/sized"]["post"]["responses"]
    for body, status in (('{"prompt":"a"}', 200), ('{"prompt":5}', 400), ("{", 400)):
        answer = runner.http.post("/v1/run/sized", content=body)
        assert answer.status_code == status
        content = responses[str(status)]["content"][answer.headers["content-type"]]["schema"]
        branches = [schemas[each["$ref"].rsplit("/", 1)[1]] for each in content.get("anyOf", [content])]
        assert any(set(branch["required"]) <= set(answer.json()) <= set(branch["properties"]) for branch in branches), json.dumps(
            answer.json()
        )
