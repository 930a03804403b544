"""Injection: one load for many waiters, sources, selection, leases, loaders of plain classes and folders."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.conftest import Runner

CODE = """
import json, threading

class In(msgspec.Struct):
    prompt: str = ""
    model: str = "a"

class Out(msgspec.Struct):
    text: str

LOADS = []

class Engine:
    @classmethod
    def from_pretrained(cls, path):
        time.sleep(0.3)
        LOADS.append(path)
        if "broken" in path:
            raise OSError("weights are cut off")
        return cls()

    def to(self, device):
        self.device = device
        return self

@worker_function
def fixed(ctx: ActionContext, engine: Annotated[Engine, ModelRef(ModelRefSource.FIXED, "a")], payload: In) -> Out:
    return Out(f"{type(engine).__name__} {engine.device} {len(LOADS)}")

@worker_function
def chosen(ctx: ActionContext, payload: In, engine: Annotated[Engine, ModelRef(ModelRefSource.PAYLOAD, "model")]) -> Out:
    return Out(str(id(engine)))

@worker_function
def folder(ctx: ActionContext, payload: In, path: Annotated[Path, ModelRef(ModelRefSource.FIXED, "a")]) -> Out:
    return Out(path.joinpath("weights").read_text())

class OutOfMemoryError(RuntimeError):
    pass

@worker_function
def greedy(ctx: ActionContext, payload: In, engine: Annotated[Engine, ModelRef(ModelRefSource.FIXED, "b")]) -> Out:
    raise OutOfMemoryError("CUDA out of memory")

@worker_function
def hold(ctx: ActionContext, payload: In, engine: Annotated[Engine, ModelRef(ModelRefSource.FIXED, "b")]) -> Out:
    ctx.done().wait(30)
    return Out("")
"""
COZY = '[models]\na = "hf:demo/a"\nb = "cozy:demo/b:v1"\nbroken = "hf:demo/broken"\nabsent = "hf:demo/absent"\n'


@pytest.fixture
def runner(project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path) -> Runner:
    for key in ("a", "b", "broken"):
        (tmp_path / "models" / key).mkdir(parents=True)
        (tmp_path / "models" / key / "weights").write_text(f"weights of {key}")
    folder = project(CODE, COZY)
    overrides = ",".join(f"{key}=../models/{key}" for key in ("b", "broken"))
    return start_runner(
        folder, "--model", f"a={tmp_path / 'models' / 'a'}", env={"COZY_MODEL_OVERRIDES": overrides, "WORKER_DEVICE": "cpu"}
    )


def test_the_document_names_the_models_that_a_payload_may_select(runner: Runner) -> None:
    document = runner.http.get("/openapi.json").json()

    def fields(function: str) -> dict:
        schema = document["paths"][f"/v1/run/{function}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        while "$ref" not in schema:
            schema = schema["anyOf"][0]
        return document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]["properties"]

    assert fields("chosen")["model"]["enum"] == ["a", "absent", "b", "broken"]
    assert "enum" not in fields("fixed")["model"]


def test_one_load_for_many_waiters_then_none(runner: Runner) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = [answer.json() for answer in threads.map(lambda _: runner.run("fixed"), range(8))]
    assert {answer["output"]["text"] for answer in answers} == {"Engine cpu 1"}
    states = [event["payload"]["cache_state"] for answer in answers for event in answer["events"] if event["event_type"] == "metrics.run"]
    assert "warm_disk" in states
    warm = runner.run("fixed").json()
    types = [event["event_type"] for event in warm["events"]]
    assert "task.model_load.started" not in types
    assert "task.model_resolve.completed" in types
    assert runner.http.get("/v1/models/status").json()["model_cache"]["vram_models"] == ["hf:demo/a#Engine"]


def test_the_caller_chooses_among_declared_keys_only(runner: Runner) -> None:
    a, b, a_again = (runner.run("chosen", {"model": key}).json()["output"]["text"] for key in ("a", "b", "a"))
    assert a == a_again != b
    refused = runner.run("chosen", {"model": "brokn"})
    assert refused.status_code == 400
    assert refused.json()["safe_message"] == "no model 'brokn'. Did you mean 'broken'? Allowed keys: a, absent, b, broken."
    assert refused.json()["errors"][0]["pointer"] == "/model"
    for inline in ("hf:demo/a", "", " "):
        assert runner.run("chosen", {"model": inline}).status_code == 400


def test_a_folder_is_handed_out_as_it_is(runner: Runner) -> None:
    assert runner.run("folder").json()["output"] == {"text": "weights of a"}


def test_a_load_that_fails_tells_all_and_may_be_tried_again(runner: Runner) -> None:
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda _: runner.run("chosen", {"model": "broken"}), range(3)))
    for answer in answers:
        assert answer.status_code == 500
        assert "could not be loaded as Engine: OSError: weights are cut off" in answer.json()["error_message"]
        assert "task.model_load.failed" in answer.text
    assert runner.run("chosen", {"model": "broken"}).status_code == 500


def test_a_model_that_is_not_here_says_how_to_bring_it(runner: Runner) -> None:
    answer = runner.run("chosen", {"model": "absent"}).json()
    assert "--model absent=FOLDER" in answer["error_message"]


def test_prefetch_load_unload(runner: Runner) -> None:
    def ask(what: str, model_id: str) -> dict:
        return runner.http.post(f"/v1/models/{what}", json={"model_id": model_id}).json()

    prefetched = runner.http.post("/v1/models/prefetch", json={"models": ["hf:demo/a", {"model_id": "b"}]}).json()["results"]
    assert [result["ok"] for result in prefetched] == [True, True]
    assert ask("load", "cozy:demo/b:v1") == {"ok": True, "error_message": ""}
    assert "cozy:demo/b:v1#Engine" in runner.http.get("/v1/models/status").json()["model_cache"]["vram_models"]
    held = runner.http.post("/v1/run/hold", json={}, headers={"prefer": "respond-async"}).headers["location"]
    runner.until(lambda: ask("unload", "b")["error_message"] == "model_in_use")
    runner.http.post(held + "/cancel")
    runner.until(lambda: ask("unload", "b")["ok"])
    assert json.dumps(runner.http.get("/v1/models/status").json()).count("#Engine") == 0
    assert "Did you mean" in ask("load", "brokn")["error_message"]


def test_a_cache_that_is_too_small_refuses(project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "weights").write_bytes(b"x" * 5_000_000)
    small = start_runner(
        project(CODE, COZY), "--model", f"a={tmp_path / 'big'}", env={"WORKER_MAX_VRAM_GB": "0.001", "WORKER_DEVICE": "cpu"}
    )
    response = small.run("fixed")
    assert response.status_code == 503
    assert "does not fit" in response.json()["error_message"]
    assert response.json()["error_type"] == "resource"


def test_a_run_out_of_memory_makes_room_for_the_next(runner: Runner) -> None:
    assert runner.run("fixed").json()["success"]
    answer = runner.run("greedy").json()
    assert (answer["error_type"], answer["error_message"].partition(":")[0]) == ("resource", "OutOfMemoryError")
    runner.until(lambda: "hf:demo/a#Engine" not in runner.http.get("/v1/models/status").json()["model_cache"]["vram_models"])
    assert runner.run("fixed").json()["success"]
