"""Input of the dev runner's callers, and what they are told about it: warnings, duplicate keys, forms, options."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Runner, WorkerProcess, write_project

from gen_worker.testing.loopback import LoopbackScheduler

CODE = """
import enum
from typing import Literal

class Size(enum.StrEnum):
    SMALL = "512"

class In(msgspec.Struct):
    prompt: str = "default"
    size: Size = Size.SMALL
    steps: int = 1
    tags: list[str] = []
    images: list[Asset] = []

class Strict(msgspec.Struct, forbid_unknown_fields=True):
    prompt: str = ""

class Out(msgspec.Struct):
    text: str

@worker_function
def show(ctx: ActionContext, payload: In) -> Out:
    return Out(f"{payload.prompt} {payload.size} {payload.steps} {payload.tags} {[image.read_bytes().decode() for image in payload.images]}")

@worker_function
def strict(ctx: ActionContext, payload: Strict) -> Out:
    return Out(payload.prompt)
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("callers")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    found.stop()


def post(runner: Runner, body: bytes, function: str = "show", **headers: str) -> tuple[int, dict[str, Any]]:
    response = runner.http.post(f"/v1/run/{function}", content=body, headers={"content-type": "application/json", **headers})
    return response.status_code, response.json()


def test_an_unknown_field_is_warned_of_in_the_answer_the_run_and_the_log(runner: Runner) -> None:
    status, answer = post(runner, b'{"payload": {"promt": "x"}}')
    expected = [{"pointer": "/promt", "message": "unknown field 'promt'", "suggestion": "prompt"}]
    assert (status, answer["warnings"]) == (200, expected)
    assert runner.http.get(f"/v1/runs/{answer['run_id']}").json()["warnings"] == expected
    assert "unknown_fields" in runner.log.read_text()
    assert "warnings" not in post(runner, b'{"prompt": "x"}')[1]
    (beside,) = post(runner, b'{"prompt": "x", "webhook": "https://x.example/"}')[1]["warnings"]
    assert beside["message"] == (
        'unknown field \'webhook\'; as an option of the run it stands beside the payload: {"payload": {...}, "webhook": ...}'
    )
    status, answer = post(runner, b'{"promt": "x"}', "strict")
    assert (status, answer["safe_message"]) == (400, "payload: unknown field 'promt'. Did you mean 'prompt'?")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"prompt": "a", "prompt": "b"}', "/prompt"),
        (b'{"payload": {"prompt": "a", "prompt": "b"}}', "/payload/prompt"),
        (b'{"payload": {"prompt": "a"}, "payload": {"prompt": "b"}}', "/payload"),
        (b'{"payload": {}, "timeout_ms": 1, "timeout_ms": 1000}', "/timeout_ms"),
        (b'{"payload": {}, "resolved_cozy_models_by_id": {"a": {}, "a": {}}}', "/resolved_cozy_models_by_id/a"),
    ],
)
def test_a_key_given_twice_is_refused(runner: Runner, body: bytes, pointer: str) -> None:
    status, answer = post(runner, body)
    assert (status, answer["error"]) == (400, "duplicate_key")
    assert answer["detail"] == f"the body: the key at {pointer} is given twice"


@pytest.mark.parametrize(
    ("option", "hint"),
    [("timeout", "Did you mean 'timeout_ms'?"), ("runid", "Did you mean 'run_id'?"), ("webhook", "Options are: run_id, timeout_ms")],
)
def test_an_unknown_option_is_refused_with_the_nearest(runner: Runner, option: str, hint: str) -> None:
    status, answer = post(runner, json.dumps({"payload": {}, option: 5}).encode())
    assert (status, answer["error"]) == (400, "unknown_option")
    assert answer["detail"].startswith(f"unknown option '{option}' beside 'payload'.")
    assert hint in answer["detail"]


def test_forms_know_the_types_of_their_fields(runner: Runner) -> None:
    fields = [("prompt", (None, "7")), ("size", (None, "512")), ("steps", (None, "7")), ("tags", (None, "1")), ("tags", (None, "b"))]
    files = [("images", ("a.txt", b"one")), ("images", ("b.txt", b"two"))]
    response = runner.http.post("/v1/run/show", files=[*fields, *files])
    assert response.json()["output"] == {"text": "7 512 7 ['1', 'b'] ['one', 'two']"}
    assert runner.http.post("/v1/run/show", files=[("images", ("a.txt", b"one"))]).json()["output"]["text"].endswith("['one']")


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "application/octet-stream"])
def test_the_payload_may_be_a_blob(runner: Runner, content_type: str) -> None:
    part = ("payload", ("blob", b'{"prompt": "from a blob", "steps": 3}', content_type))
    assert runner.http.post("/v1/run/show", files=[part]).json()["output"]["text"].startswith("from a blob 512 3")


def test_fields_and_files_go_into_an_envelopes_payload(runner: Runner) -> None:
    envelope = {"payload": {"prompt": "inside"}, "run_id": "form-1"}
    parts = [("payload", (None, json.dumps(envelope))), ("steps", (None, "4")), ("images", ("a.txt", b"one"))]
    answer = runner.http.post("/v1/run/show", files=parts).json()
    assert (answer["run_id"], answer["output"]["text"]) == ("form-1", "inside 512 4 [] ['one']")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([("payload", (None, '{"prompt": "a", "prompt": "b"}'))], "part 'payload' is not JSON: the key at /prompt is given twice"),
        ([("payload", (None, "{}")), ("payload", ("blob", b"{}", "application/json"))], "part 'payload' is given twice"),
        ([("payload", ("blob", b"[]", "application/json"))], "part 'payload' must hold a JSON object"),
        ([("payload", ("blob", b"\xff", "application/json"))], "part 'payload' is not JSON"),
        ([("prompt", (None, "a")), ("prompt", (None, "b"))], "field 'prompt' is given 2 times, but takes one value"),
        ([("images", (None, "a")), ("images", ("b", b"b"))], "field 'images' is given as a text and as a file"),
        ([("a[٣]", (None, "a"))], "expected a path such as image"),
    ],
)
def test_forms_that_cannot_be_read(runner: Runner, parts: list[Any], message: str) -> None:
    response = runner.http.post("/v1/run/show", files=parts)
    assert response.status_code == 400
    assert message in response.json()["detail"]


def test_a_message_keeps_the_field_it_speaks_of(runner: Runner) -> None:
    _, answer = post(runner, b'{"images": [{"ref": "http://127.0.0.1/x"}]}')
    assert answer["safe_message"].startswith("/images/0: input url blocked")


async def test_on_the_wire_too(start_worker: Callable[..., WorkerProcess], tmp_path: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        start_worker(write_project(tmp_path / "wire", CODE), scheduler.address)
        run = await scheduler.start_run("show", {"promt": "x"})
        assert (await run.result()).success
        [warned] = run.of_type("task.warning")
        assert warned["warnings"] == [{"pointer": "/promt", "message": "unknown field 'promt'", "suggestion": "prompt"}]
        for payload, message in (
            (b"\x82\xa6prompt\xa1a\xa6prompt\xa1b", "payload: the key at /prompt is given twice"),
            (b"\x81\x01\x02", "payload: expected keys that are str, got int"),
            ({"size": "513"}, "payload.size: expected one of '512', got '513'. Did you mean '512'?"),
            ({"tags": "word"}, "A list is written in JSON"),
        ):
            result = await (await scheduler.start_run("show", payload)).result()
            assert (result.error_type, message in result.safe_message) == ("validation", True), result.safe_message
        result = await (await scheduler.start_run("strict", {"promt": "x"})).result()
        assert result.safe_message == "payload: unknown field 'promt'. Did you mean 'prompt'?"
